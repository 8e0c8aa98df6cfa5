"""Arrays out of files: checked, converted and put on the grid."""

import zipfile
import zlib

import numpy as np
from pydantic import FilePath, InstanceOf

from diffsim.fields.formats import Format, NetCDF, Npz, Samples
from diffsim.fields.maker import Maker, Positive
from diffsim.fields.places import check_same, in_order, located
from diffsim.fields.raster import Raster
from diffsim.fields.resample import Method, resampled
from diffsim.fields.segy import SegY
from diffsim.fields.units import agreed, converted
from diffsim.grid import Grid
from diffsim.solver import frozen

BY_SUFFIX: dict[str, Format] = {
    ".npz": Npz(),
    ".nc": NetCDF(),
    **dict.fromkeys((".sgy", ".segy"), SegY()),
    **dict.fromkeys((".tif", ".tiff", ".asc"), Raster()),
}
UNREADABLE = (ValueError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


@frozen
class File(Maker):
    """An array out of a file, as it stands there or resampled to the grid.

    Args:
        path: of the file; in a case relative paths count from the case's folder
        name: of the array, where the format names arrays
        format: ``Npz``, ``NetCDF``, ``SegY``, ``Raster`` or ``Raw``; by the suffix if absent
        method: ``nearest``, ``linear`` or ``cubic`` resamples to the grid; without it the array
            stays as it is, and a file that says where its samples lie must agree with the grid
        spacing: m, between samples along each axis, where the file does not say it
        origin: m, where the first sample lies; zeros, or what the file says, if absent
        units: of the numbers, where the file does not say them; they are converted to the units of
            the field, or else to SI
        allowed: least and greatest value, after the conversion
    """

    path: FilePath
    name: str = ""
    format: InstanceOf[Format] | None = None
    method: Method | None = None
    spacing: tuple[Positive, ...] = ()  # m
    origin: tuple[float, ...] = ()  # m
    units: str = ""
    allowed: tuple[float, float] | None = None

    def __post_init__(self):
        held = self._format.names(self.path)
        if held and not self.name:
            raise ValueError(f"{self.path} holds named arrays: give name, one of {', '.join(held)}")
        if held and self.name not in held:
            raise ValueError(f"{self.path} has no array {self.name!r}: it holds {', '.join(held)}")
        if self.name and not held:
            raise ValueError(f"{self.path} holds no named arrays: leave out name {self.name!r}")
        if self.allowed and self.allowed[0] > self.allowed[1]:
            raise ValueError(f"allowed {self.allowed} is no range: give the least value first")

    @property
    def _format(self) -> Format:
        found = self.format or BY_SUFFIX.get(self.path.suffix.lower())
        if found is None:
            raise ValueError(
                f"{self.path}: no format is known by {self.path.suffix!r}: give format, such as "
                "{type: Raw, shape: …}"
            )
        return found

    def make(self, solver, steps):
        """The array in SI units."""
        return self.make_in("", solver, steps)

    def make_in(self, units, solver, steps):
        """The array in units, ``[*grid.shape]`` if it is resampled."""
        found = self._read()
        try:
            values = self._on_grid(in_order(found, solver.grid.axes), solver.grid)
            values = converted(values, agreed(found.units, self.units), units)
            self._check_range(values, units)
        except ValueError as error:
            raise ValueError(f"{self._called}: {error}") from error
        return values

    @property
    def _called(self) -> str:
        return f"{self.path}: {self.name!r}" if self.name else f"{self.path}"

    def _read(self) -> Samples:
        try:
            found = self._format.read(self.path, self.name)
        except UNREADABLE as error:
            raise ValueError(f"{self._called} cannot be read: {error}") from error
        if (dtype := found.values.dtype).kind not in "fiu":
            raise ValueError(f"{self._called} holds {dtype}: give real numbers")
        return found

    def _on_grid(self, found: Samples, grid: Grid) -> np.ndarray:
        asked = self.method or self.spacing or self.origin
        if not asked and found.values.shape != grid.shape:
            return found.values  # no field on the grid, but positions or a time series, say
        if found.values.ndim != grid.ndim:
            raise ValueError(
                f"shape {found.values.shape}, but the grid has the axes {grid.axes}: give an array "
                "of as many axes"
            )
        values, places = located(found, grid, self.spacing, self.origin)
        if self.method:
            if not places:
                raise ValueError("it does not say where its samples lie in metres: give spacing")
            return resampled(values, places, grid, self.method)
        if places:
            check_same(places, grid)
        return values

    def _check_range(self, values: np.ndarray, units: str):
        if self.allowed is None:
            return
        low, high = self.allowed
        bad = np.argwhere(~((values >= low) & (values <= high)))  # NaN is out of every range
        if len(bad):
            first = tuple(int(i) for i in bad[0])
            raise ValueError(
                f"{len(bad)} values are not in the allowed range from {low:g} to {high:g} {units}: "
                f"the first, at {first}, is {values[first]:g}; correct the file, units or allowed"
            )
