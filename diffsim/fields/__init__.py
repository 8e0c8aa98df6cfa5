"""Where arrays come from: makers that a case names in its params, forcing and positions."""

from diffsim.fields.file import File
from diffsim.fields.formats import Format, NetCDF, Npz, Raw
from diffsim.fields.formulas import Checkerboard, Constant, Gaussian, Layers, LinearGradient
from diffsim.fields.maker import Count, Home, Maker, Positive, Values, array
from diffsim.fields.positions import Line
from diffsim.fields.raster import Raster
from diffsim.fields.segy import SegY
from diffsim.fields.series import Ricker

__all__ = [
    "Checkerboard",
    "Constant",
    "Count",
    "File",
    "Format",
    "Gaussian",
    "Home",
    "Layers",
    "Line",
    "LinearGradient",
    "Maker",
    "NetCDF",
    "Npz",
    "Positive",
    "Raster",
    "Raw",
    "Ricker",
    "SegY",
    "Values",
    "array",
]
