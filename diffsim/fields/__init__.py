"""Where arrays come from: makers that a case names in its params, forcing and positions."""

from diffsim.fields.file import File
from diffsim.fields.formats import Format, NetCDF, Npz, Raw
from diffsim.fields.formulas import (
    Checkerboard,
    Constant,
    Gaussian,
    Layers,
    LinearGradient,
    Terrain,
)
from diffsim.fields.maker import Count, Entry, Home, Maker, Positive, Values, array
from diffsim.fields.positions import LatLon, Line
from diffsim.fields.raster import Raster
from diffsim.fields.sample import MatplotlibSample
from diffsim.fields.segy import SegY
from diffsim.fields.series import Ricker, Rise

__all__ = [
    "Checkerboard",
    "Constant",
    "Count",
    "Entry",
    "File",
    "Format",
    "Gaussian",
    "Home",
    "LatLon",
    "Layers",
    "Line",
    "LinearGradient",
    "Maker",
    "MatplotlibSample",
    "NetCDF",
    "Npz",
    "Positive",
    "Raster",
    "Raw",
    "Ricker",
    "Rise",
    "SegY",
    "Terrain",
    "Values",
    "array",
]
