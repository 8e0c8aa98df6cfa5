"""Positions of sources and receivers."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

from diffsim.fields.maker import Count, Maker
from diffsim.solver import frozen

EARTH = 6.371e6  # m, mean radius
Latitude = Annotated[float, Ge(-90), Le(90)]
Degrees = tuple[Latitude, float]  # latitude, longitude


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


@frozen
class LatLon(Maker):
    """Positions from degrees, on a plane ``[y, x]`` whose x is true along one parallel.

    ``y = R (lat - lat0)``, ``x = R cos(parallel) (lon - lon0)`` with the Earth's mean radius R: the
    equirectangular projection. At 100 km from the parallel x is wrong by 2 % at 50° latitude.

    Args:
        degrees: north and east, a pair for each position; west is negative
        origin: degrees north and east, where the grid's ``y = x = 0`` lies
        parallel: degrees north, where x is true, such as the middle of the grid; 0 if the solver
            has a ``sphere``, whose x is that of the equator
    """

    degrees: Annotated[tuple[Degrees, ...], MinLen(1)]
    origin: Degrees
    parallel: Annotated[float, Gt(-90), Lt(90)]

    def make(self, solver, steps):
        """``[count, (y, x)]``."""
        offset = np.radians(np.asarray(self.degrees) - self.origin)
        turn = np.radians(180)
        east = (offset[:, 1] + turn) % (2 * turn) - turn  # 235° east is 125° west
        narrow = np.cos(np.radians(self.parallel))
        return EARTH * np.stack([offset[:, 0], narrow * east], axis=1)
