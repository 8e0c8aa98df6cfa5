"""Where arrays come from: makers that a case names in its params, forcing and positions."""

import zipfile
import zlib
from abc import ABC, abstractmethod
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Gt, MinLen
from pydantic import FilePath, InstanceOf

from diffsim.solver import Solver, frozen

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


# Plain numbers and nested lists of them are arrays too
Values = Annotated[InstanceOf[Maker] | float | list[Any], Home("diffsim.fields")]


def array(values: Values, solver: Solver, steps: int) -> np.ndarray:
    """The array that values stand for, of a floating type."""
    if isinstance(values, Maker):
        made = values.make(solver, steps)
    else:
        try:
            made = np.asarray(values, float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{values!r} is no array of numbers: give a number, lists of equal length, or "
                "{type: …}"
            ) from error
    return made if np.issubdtype(made.dtype, np.floating) else made.astype(float)


@frozen
class File(Maker):
    """An array out of a file that ``numpy.savez`` or ``savez_compressed`` wrote.

    Args:
        path: of the file, ``.npz``; in a case relative paths count from the case's folder
        name: of the array
    """

    path: FilePath
    name: str

    def __post_init__(self):
        if not zipfile.is_zipfile(self.path):
            raise ValueError(f"{self.path} is not an npz file: write it with numpy.savez")
        with np.load(self.path, allow_pickle=False) as archive:
            if self.name not in archive:
                held = ", ".join(archive)
                raise ValueError(f"{self.path} has no array {self.name!r}: it holds {held}")

    def make(self, solver, steps):
        """The array as it stands in the file."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                values = archive[self.name]
        except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.path}: {self.name!r} cannot be read: {error}") from error
        if values.dtype.kind not in "fiu":
            raise ValueError(f"{self.path}: {self.name!r} holds {values.dtype}: give real numbers")
        return values


@frozen
class Constant(Maker):
    """One value at every node of the grid.

    Args:
        value: in the units of the field that it fills
    """

    value: float

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        return np.full(solver.grid.shape, self.value)


@frozen
class Ricker(Maker):
    """The wavelet ``(1 - 2 a²) exp(-a²)`` with ``a = π f (t - delay)``, ``t = n dt``.

    Its spectrum peaks at f and is below 1 % of that peak beyond 2.8 f (Ricker 1953).

    Args:
        frequency: Hz, the peak frequency f
        delay: s, when the wavelet peaks; from ``1.5 / f`` on it starts from less than 1e-8
        amplitude: the peak value, in the units of the field that it fills
    """

    frequency: Positive  # Hz
    delay: float  # s
    amplitude: float = 1.0

    def make(self, solver, steps):
        """``[steps]``."""
        time = np.arange(steps) * solver.dt
        a = np.pi * self.frequency * (time - self.delay)
        return self.amplitude * (1 - 2 * a**2) * np.exp(-(a**2))


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
