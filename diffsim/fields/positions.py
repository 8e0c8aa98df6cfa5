"""Positions of sources and receivers."""

from typing import Annotated

import numpy as np
from annotated_types import MinLen

from diffsim.fields.maker import Count, Maker
from diffsim.solver import frozen


@frozen
class Line(Maker):
    """Positions evenly spaced from the first to the last.

    Args:
        first: m, one number for each axis of the grid
        last: m, likewise
        count: number of positions, both ends included
    """

    first: Annotated[tuple[float, ...], MinLen(1)]  # m
    last: tuple[float, ...]  # m
    count: Count

    def __post_init__(self):
        if len(self.first) != len(self.last):
            raise ValueError(
                f"first {self.first} and last {self.last} differ in length: give one number for "
                "each axis of the grid"
            )

    def make(self, solver, steps):
        """``[count, axis]``."""
        return np.linspace(self.first, self.last, self.count)
