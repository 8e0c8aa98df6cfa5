"""How a kept state is written: as it is, rounded, or compressed.

Only real and complex leaves of single or double precision are rounded or compressed; all others
are kept as they are. The store measures what rounding does.
"""

import math
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import ml_dtypes
import numpy as np
from annotated_types import Ge, Lt

from diffsim.solver import frozen

PART = 2**30  # bytes that are compressed at once; Blosc takes less than 2^31


class Packed(NamedTuple):
    """An array as it is stored."""

    dtype: str
    shape: tuple[int, ...]
    parts: list[Any]  # bytes-like


class Codec(ABC):
    """How floating-point values are written."""

    exact: ClassVar[bool]

    @abstractmethod
    def encode(self, values: np.ndarray) -> list[Any]:
        """One-dimensional float32 or float64 values as pieces of bytes."""

    @abstractmethod
    def decode(self, parts: list[Any], dtype: np.dtype) -> np.ndarray:
        """The values again."""


@frozen
class Exact(Codec):
    """As they are."""

    exact: ClassVar[bool] = True

    def encode(self, values):
        return [values.view(np.uint8)]

    def decode(self, parts, dtype):
        return np.frombuffer(parts[0], dtype)


@frozen
class Rounded(Codec):
    """In a shorter type; a run in float64 with states in float32 halves what is stored.

    The relative round-off of a value is at most 6.0e-8 (float32) or 3.9e-3 (bfloat16) while a leaf
    stays within the type's range; beyond it the gradient stops with an error.
    """

    exact: ClassVar[bool] = False
    dtype: Literal["float32", "bfloat16"]

    def encode(self, values):
        if self._type.itemsize < values.itemsize:
            with np.errstate(over="ignore"):  # the store finds it
                values = values.astype(self._type)
        return Exact().encode(values)

    def decode(self, parts, dtype):
        short = self._type if self._type.itemsize < dtype.itemsize else dtype
        return np.frombuffer(parts[0], short).astype(dtype)

    @property
    def _type(self) -> np.dtype:
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype)


@frozen
class Lossless(Codec):
    """Compressed without loss: bytes of equal weight side by side, then LZ4 (Blosc).

    Noise does not shrink; a wave that has not reached most of the grid shrinks many times.
    """

    exact: ClassVar[bool] = True

    def __post_init__(self):
        _numcodecs(self)

    def encode(self, values):
        blosc = _numcodecs(self).Blosc("lz4", 1)
        size = PART // values.itemsize
        starts = range(0, max(len(values), 1), size)
        return [blosc.encode(values[start : start + size]) for start in starts]

    def decode(self, parts, dtype):
        blosc = _numcodecs(self).Blosc()
        return np.concatenate([np.frombuffer(blosc.decode(part), dtype) for part in parts])


@frozen
class Bounded(Codec):
    """Compressed with an error of at most ``relative`` times each value's own size.

    The last bits of the mantissa are rounded away, then the rest is compressed without loss.
    """

    exact: ClassVar[bool] = False
    relative: Annotated[float, Ge(1e-15), Lt(0.5)]

    def __post_init__(self):
        _numcodecs(self)

    def encode(self, values):
        bits = int(np.ceil(-np.log2(self.relative))) - 1  # rounding leaves half of the last one
        if bits < np.finfo(values.dtype).nmant:
            rounded = _numcodecs(self).BitRound(max(bits, 1)).encode(values)
            values = np.frombuffer(rounded, values.dtype)
        return Lossless().encode(values)

    def decode(self, parts, dtype):
        return Lossless().decode(parts, dtype)


def _numcodecs(asked: Codec):
    try:
        return import_module("numcodecs")
    except ImportError as error:
        raise ImportError(
            f"codec {asked} needs the package numcodecs, which is not installed: "
            "pip install 'diffsim-adjoint[compress]', or choose Exact() or Rounded(dtype=…)"
        ) from error


def pack(array: np.ndarray, codec: Codec) -> Packed:
    """An array as bytes; `unpack` undoes it."""
    codec, real = _suited(codec, array.dtype, array.size)
    flat = np.ascontiguousarray(array).reshape(-1)
    return Packed(array.dtype.name, array.shape, codec.encode(flat.view(real)))


def unpack(packed: Packed, codec: Codec) -> np.ndarray:
    """The array again."""
    dtype = np.dtype(packed.dtype)
    codec, real = _suited(codec, dtype, math.prod(packed.shape))
    return codec.decode(packed.parts, real).view(dtype).reshape(packed.shape)


def _suited(codec: Codec, dtype: np.dtype, size: int) -> tuple[Codec, np.dtype]:
    """What deals with an array, and the type of the numbers that it sees."""
    if size and dtype.kind in "fc" and dtype.itemsize >= 4:
        return codec, np.finfo(dtype).dtype
    return Exact(), dtype


def worst(array: np.ndarray, packed: Packed, codec: Codec) -> tuple[float, float]:
    """The largest error of a packed array, and its largest entry; zeros if that is not finite."""
    if array.dtype.kind not in "fc" or not array.size:
        return 0.0, 0.0
    largest = float(np.max(np.abs(array)))
    if not np.isfinite(largest):
        return 0.0, 0.0  # that a field blew up is for others to say
    error = float(np.max(np.abs(unpack(packed, codec) - array)))
    return error if np.isfinite(error) else np.inf, largest
