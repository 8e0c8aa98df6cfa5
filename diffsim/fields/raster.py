"""Rasters of maps: elevation, sea floor, roughness."""

import numpy as np

from diffsim.fields.extra import library
from diffsim.fields.formats import Format, Place, Samples
from diffsim.solver import frozen


@frozen
class Raster(Format):
    """A GeoTIFF or an ESRI ASCII grid of one band, ``[y, x]``; read by rasterio.

    A sample stands for its cell and lies at the cell's centre. Without a coordinate reference
    system lengths are taken for metres.
    """

    def names(self, path):
        """None."""
        library("rasterio", "reading GeoTIFF and ESRI ASCII grids")
        return []

    def read(self, path, name):
        """The band; places in metres if its reference system has lengths, in degrees if not."""
        rasterio = library("rasterio", "reading GeoTIFF and ESRI ASCII grids")
        with rasterio.open(path) as file:
            if file.count != 1:
                raise ValueError(f"it has {file.count} bands: give a file of one")
            to_map, crs = file.transform, file.crs
            if to_map.b or to_map.d:
                raise ValueError("its rows are turned against its axes: warp it with gdalwarp")
            band = file.read(1, masked=True)
            values = band.astype(np.result_type(band.dtype, np.float32)).filled(np.nan)
            values = values * file.scales[0] + file.offsets[0]
            units = file.units[0] or ""
        metre, unit = 1.0, "m"
        if crs is not None and crs.is_geographic:
            unit = "degrees"
        elif crs is not None:
            metre = crs.linear_units_factor[1]
        y = metre * (to_map.f + to_map.e * (np.arange(values.shape[0]) + 0.5))
        x = metre * (to_map.c + to_map.a * (np.arange(values.shape[1]) + 0.5))
        known = not to_map.is_identity
        return Samples(values, units, ("y", "x"), (Place(y, unit), Place(x, unit)) if known else ())
