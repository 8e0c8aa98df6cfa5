"""Real data that every installation has."""

from pathlib import Path

import matplotlib
from matplotlib.cbook import get_sample_data

from diffsim.fields.file import File
from diffsim.fields.maker import Maker, Positive
from diffsim.fields.resample import Method
from diffsim.solver import frozen


@frozen
class MatplotlibSample(Maker):
    """An array out of an npz file among matplotlib's sample data.

    ``topobathy.npz`` holds ``topo``, elevations (m) of the Salish Sea and its shores, 91 × 120
    samples ``[y, x]`` from 48.016° N, 125.983° W on; on a plane that is true at 49° N they are
    2431 m apart both ways. ``jacksboro_fault_dem.npz`` holds ``elevation`` (m), 344 × 403 samples
    of hills in Tennessee, the north first, 92.7 m apart in y and 74.4 m in x.

    Args:
        file: its name, such as ``topobathy.npz``
        name: of the array
        row: take this one row alone, ``[x]``; all if absent
        columns: of that row, the first and the one after the last; all if absent
        spacing: m, between samples along each axis; without it the array stays as it is
        origin: m, where the first sample lies; zeros if absent
        method: ``nearest``, ``linear`` or ``cubic``, to resample to the grid
    """

    file: str
    name: str
    row: int | None = None
    columns: tuple[int, int] | None = None
    spacing: tuple[Positive, ...] = ()  # m
    origin: tuple[float, ...] = ()  # m
    method: Method | None = None

    def __post_init__(self):
        held = sorted(path.name for path in _folder().glob("*.npz"))
        if self.file not in held:
            raise ValueError(
                f"matplotlib has no sample {self.file!r}: give one of {', '.join(held)}"
            )
        if self.columns and self.row is None:
            raise ValueError("columns are those of a row: give row too")
        self._as_file()

    def make(self, solver, steps):
        """The array, ``[*grid.shape]`` if it is resampled."""
        values = self._as_file().make(solver, steps)
        if self.row is None:
            return values
        first, after = self.columns or (0, values.shape[1])
        if not (0 <= self.row < len(values) and 0 <= first < after <= values.shape[1]):
            raise ValueError(
                f"row {self.row} and columns {self.columns} are not all in {values.shape} samples: "
                f"give a row below {len(values)}, columns up to {values.shape[1]} in order"
            )
        return values[self.row, first:after]

    def _as_file(self) -> File:
        path = Path(get_sample_data(self.file, asfileobj=False))
        where = {"spacing": self.spacing, "origin": self.origin, "method": self.method}
        return File(path=path, name=self.name, **where)


def _folder() -> Path:
    return Path(matplotlib.get_data_path()) / "sample_data"
