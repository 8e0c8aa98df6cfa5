"""What figures of water share: land and sea, the coast line, the bed, and where it is dry."""

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

RIPPLE = 0.02  # of the height over the lowest bed: levels that vary by less are drawn alone

# matplotlib's terrain, parted where it goes over from sea to land
SEA_AND_LAND = LinearSegmentedColormap.from_list(
    "sea_and_land",
    colormaps["terrain"](np.r_[np.linspace(0, 0.17, 128), np.linspace(0.25, 1, 128)]),
)


def elevation(value: xr.DataArray) -> dict:
    """Colours for a bed that lies below sea level in one place and above it in another."""
    low, high = float(value.min()), float(value.max())
    if value.name != "bed" or not low < 0 < high:
        return {}
    return {"cmap": SEA_AND_LAND, "norm": TwoSlopeNorm(0, low, high)}


def drained(results: xr.Dataset) -> xr.Dataset:
    """The results without a water level where the bed is above it: land is not drawn as water."""
    if not {"bed", "stage"} <= results.keys():
        return results
    return results.assign(stage=results["stage"].where(results["stage"] > results["bed"]))


def over_bed(results: xr.Dataset, level: xr.DataArray) -> bool:
    """Whether a level along a line shows best over its bed: with a shore, or as no mere ripple."""
    if "bed" not in results or level.name not in ("stage", "highest") or level.ndim != 1:
        return False
    if level.isnull().all():
        return False
    height = float(level.max() - results["bed"].min())
    return bool(level.isnull().any()) or float(level.max() - level.min()) > RIPPLE * height


def bed(axes: Axes, results: xr.Dataset, x: np.ndarray, level: xr.DataArray):
    """The bed under a level, and the water between them."""
    ground = results["bed"].values
    low = ground.min() - 0.05 * (max(np.nanmax(level.values), ground.max()) - ground.min())
    axes.fill_between(x, ground, level.values, color="tab:blue", alpha=0.25, linewidth=0)
    axes.fill_between(x, low, ground, color="tab:brown", alpha=0.5, linewidth=0, label="bed")
    axes.set_ylim(bottom=low)


def has_coast(results: xr.Dataset) -> bool:
    """Whether there is land and sea."""
    if not {"bed", "stage"} <= results.keys() or results["bed"].ndim != 2:
        return False
    wet = results["stage"] > results["bed"]  # NaN, where it is drained, is dry
    return bool(wet.any() and not wet.all())


def coast(axes: Axes, results: xr.Dataset, x: np.ndarray, y: np.ndarray):
    """The line between cells with water and cells without, at the start."""
    wet = (results["stage"] > results["bed"]).values.astype(float)
    axes.contour(x, y, wet, [0.5], colors="black", linewidths=0.7)
    axes.plot([], [], color="black", linewidth=0.7, label="coast line")
