"""File formats: what a file holds, as arrays with what the format tells about them."""

import zipfile
from abc import ABC, abstractmethod
from math import prod
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import xarray as xr
from annotated_types import MinLen

from diffsim.fields.extra import EXTRA
from diffsim.fields.maker import Count
from diffsim.solver import frozen


class Place(NamedTuple):
    """Where the samples along an axis lie."""

    samples: np.ndarray
    units: str


class Samples(NamedTuple):
    """What a file holds.

    Missing values are NaN. A format that tells neither names nor places of axes leaves them out.
    """

    values: np.ndarray
    units: str = ""
    axes: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()  # one for each axis


class Format(ABC):
    """How a file is laid out."""

    @abstractmethod
    def names(self, path: Path) -> list[str]:
        """Of the arrays in a file; none if it holds one array without a name."""

    @abstractmethod
    def read(self, path: Path, name: str) -> Samples:
        """An array and what the file tells about it."""


@frozen
class Npz(Format):
    """Arrays that ``numpy.savez`` or ``savez_compressed`` wrote."""

    def names(self, path):
        """Of the arrays."""
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not an npz file: write it with numpy.savez")
        with np.load(path, allow_pickle=False) as archive:
            return list(archive)

    def read(self, path, name):
        """The array; the format tells no more."""
        with np.load(path, allow_pickle=False) as archive:
            return Samples(archive[name])


@frozen
class NetCDF(Format):
    """Variables with coordinates and units as the CF conventions write them, read by xarray.

    Axes are put into the grid's order if they have the names of the grid's axes.
    """

    def names(self, path):
        """Of the variables, without coordinates."""
        with _dataset(path) as data:
            return [str(name) for name in data.data_vars]

    def read(self, path, name):
        """A variable, its units, and the coordinates along its axes if there are all."""
        with _dataset(path) as data:
            variable = data[name].load()
        places = tuple(
            Place(variable[axis].to_numpy(), variable[axis].attrs.get("units", ""))
            for axis in variable.dims
            if axis in variable.coords and variable[axis].dtype.kind in "fiu"
        )
        return Samples(
            variable.to_numpy(),
            variable.attrs.get("units", ""),
            tuple(map(str, variable.dims)),
            places if len(places) == variable.ndim else (),
        )


def _dataset(path: Path) -> xr.Dataset:
    try:
        return xr.open_dataset(path, decode_times=False)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as NetCDF: correct it, or install what reads NetCDF-4: {EXTRA}"
        ) from error


@frozen
class Raw(Format):
    """Bare numbers, one after the other, without a header.

    Args:
        shape: along each axis in the grid's order, such as ``(187, 801)``
        dtype: in numpy's words: ``float32``, or ``>f4`` for big-endian
        order: ``C`` if the last axis runs fastest, ``F`` if the first one does, as in many seismic
            models
    """

    shape: Annotated[tuple[Count, ...], MinLen(1)]
    dtype: str = "float32"
    order: Literal["C", "F"] = "C"

    def __post_init__(self):
        try:
            kind = np.dtype(self.dtype).kind
        except TypeError:
            kind = ""
        if kind not in ("f", "i", "u"):
            raise ValueError(f"dtype {self.dtype!r} is no real number: give one such as float32")

    def names(self, path):
        """None; the size of the file is checked."""
        held, wanted = path.stat().st_size, prod(self.shape) * np.dtype(self.dtype).itemsize
        if held != wanted:
            raise ValueError(
                f"{path} has {held} bytes, but {self.dtype} of shape {self.shape} takes {wanted}: "
                "correct shape or dtype"
            )
        return []

    def read(self, path, name):
        """The numbers; the format tells no more."""
        return Samples(np.fromfile(path, self.dtype).reshape(self.shape, order=self.order))
