"""SEG-Y, the format of seismic surveys."""

import numpy as np

from diffsim.fields.extra import library
from diffsim.fields.formats import Format, Samples
from diffsim.solver import frozen


@frozen
class SegY(Format):
    """SEG-Y traces, down the first axis; read by segyio.

    The headers tell no spacing that can be trusted in depth, so none is read.

    Args:
        volume: whether in-line and cross-line numbers sort the traces into ``[z, y, x]``, y along
            the in-line numbers; else all traces of the file stand side by side, ``[z, x]``
    """

    volume: bool = False

    def names(self, path):
        """None."""
        library("segyio", "reading SEG-Y")
        return []

    def read(self, path, name):
        """The traces."""
        segyio = library("segyio", "reading SEG-Y")
        with segyio.open(path, ignore_geometry=not self.volume) as file:
            if not self.volume:
                return Samples(file.trace.raw[:].T, axes=("z", "x"))
            if len(file.offsets) > 1:
                raise ValueError("it has traces of several offsets: give a stacked volume")
            cube = segyio.tools.cube(file)
            if file.sorting == segyio.TraceSortingFormat.CROSSLINE_SORTING:
                cube = cube.swapaxes(0, 1)
        return Samples(np.moveaxis(cube, -1, 0), axes=("z", "y", "x"))
