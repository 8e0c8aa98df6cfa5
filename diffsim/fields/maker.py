"""What a maker is, and how the values of a case become arrays."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Gt
from pydantic import InstanceOf

from diffsim.grid import Grid
from diffsim.solver import Solver

Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Gt(0)]


class Home(NamedTuple):
    """Where a case looks up bare class names; the annotation of a field."""

    module: str


class Maker(ABC):
    """Makes an array; it may use the solver's grid and time step."""

    @abstractmethod
    def make(self, solver: Solver, steps: int) -> np.ndarray:
        """The array, for a run of so many steps; ``ValueError`` says what is wrong."""

    def make_in(self, units: str, solver: Solver, steps: int) -> np.ndarray:
        """The array in units; only a maker that knows the units of its numbers converts them."""
        return self.make(solver, steps)


# Plain numbers and nested lists of them are arrays too
Values = Annotated[InstanceOf[Maker] | float | list[Any], Home("diffsim.fields")]
# A record within a record is a mapping of its fields
Entry = Annotated[InstanceOf[Maker] | float | list[Any] | dict[str, Values], Home("diffsim.fields")]


def array(values: Values, solver: Solver, steps: int, units: str = "") -> np.ndarray:
    """The array that values stand for, of a floating type.

    Args:
        values: numbers or a maker
        solver: whose grid and time step a maker may use
        steps: of the run
        units: of the field that the array fills, such as ``"m/s"``; SI if absent
    """
    if isinstance(values, Maker):
        made = values.make_in(units, solver, steps)
    else:
        try:
            made = np.asarray(values, float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{values!r} is no array of numbers: give a number, lists of equal length, or "
                "{type: …}"
            ) from error
    return made if np.issubdtype(made.dtype, np.floating) else made.astype(float)


def coordinates(grid: Grid) -> tuple[np.ndarray, ...]:
    """m, where the nodes of each axis lie."""
    ends = zip(grid.shape, grid.spacing, grid.origin, strict=True)
    return tuple(origin + spacing * np.arange(count) for count, spacing, origin in ends)


def check_axes(grid: Grid, **entries: tuple):
    """``ValueError`` unless each of the named tuples has one entry for each axis of the grid."""
    for name, values in entries.items():
        if len(values) != grid.ndim:
            raise ValueError(
                f"{name} {values} has {len(values)} entries, but the grid has {grid.ndim} axes: "
                f"give one for each of {grid.axes}"
            )
