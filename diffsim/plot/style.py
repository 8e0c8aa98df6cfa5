"""What all figures share: sizes, labels, colour scales."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.formatter.use_mathtext": True,
    "axes.formatter.limits": (-3, 5),
    "legend.frameon": False,
    "figure.dpi": 150,
}
DAY = 86400.0  # s
YEAR = 365.25 * DAY  # s
WIDTH = 10.0  # inches; on a slide 11 pt then stay 11 pt or more


def length_unit(extent: float) -> tuple[float, str]:
    """The factor that takes m to the unit of an axis, and the unit: km beyond 5 km."""
    return (1e-3, "km") if abs(extent) > 5000 else (1.0, "m")


def time_unit(extent: float) -> tuple[float, str]:
    """The factor that takes s to the unit of an axis, and the unit: s up to an hour and a half."""
    for unit, seconds, most in (("s", 1.0, 5400.0), ("h", 3600.0, 3 * DAY), ("d", DAY, 3 * YEAR)):
        if extent <= most:
            return 1 / seconds, unit
    return (1 / YEAR, "years") if extent < 1e4 * YEAR else (1e-3 / YEAR, "thousand years")


def axis_name(axis: str) -> str:
    """An axis of the grid in words."""
    return "depth" if axis == "z" else axis


def quantity_label(value: xr.DataArray, exponent: int = 0) -> str:
    """Name and units, with a power of ten; a plain number has none."""
    power = f"$10^{{{exponent}}}$" if exponent else ""
    shown = [part for part in (power, units(value)) if part not in ("", "1")]
    return f"{quantity_name(value)} ({' '.join(shown)})" if shown else quantity_name(value)


def quantity_name(value: xr.DataArray) -> str:
    """The name in words, if the file has one."""
    return value.attrs.get("long_name", str(value.name))


def units(value: xr.DataArray) -> str:
    """Units with raised powers: Pa2 s becomes Pa² s."""
    return re.sub(
        r"(?<=[A-Za-z])\^?\(?(-?\d+(?:/\d+)?)\)?", r"$^{\1}$", value.attrs.get("units", "1")
    )


def robust_limit(values: list[xr.DataArray], percentile: float) -> float:
    """Half width of a symmetric colour scale, a percentile of the absolute values."""
    sizes = np.abs(np.concatenate([value.values.ravel() for value in values]))
    return float(np.nanpercentile(sizes, percentile)) or float(np.nanmax(sizes))


def colorbar(
    figure: Figure, image, panels: list[Axes], value: xr.DataArray, *, clip: int = 0, where="right"
):
    """A colour bar that says name, units, power of ten and the percentile at which it ends.

    Without a name, ``long_name=""``, it says the units alone.
    """
    exponent = math.floor(math.log10(max(map(abs, image.get_clim())) or 1))
    exponent = exponent if not -3 <= exponent <= 4 else 0
    beneath = where == "bottom"
    clipped = ("," if beneath else "\n") + f" clipped at the {clip}th percentile" if clip else ""
    figure.colorbar(
        image,
        ax=panels,
        location=where,
        aspect=50 if beneath else 25,
        pad=0.02,
        label=quantity_label(value, exponent).strip() + clipped,
        format=lambda tick, _: f"{tick / 10.0**exponent:g}".replace("-", "\N{MINUS SIGN}"),
        extend=("both" if image.get_clim()[0] < 0 else "max") if clip else "neither",
    )


def legend(figure: Figure, panels: Sequence[Axes], above: bool = True):
    """Where it hides nothing: above the first panel if that is wide enough, or else below all."""
    axes, found = panels[0], {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    handles, labels = list(found.values()), list(found)
    style: dict[str, Any] = {"ncols": 4, "handletextpad": 0.4, "columnspacing": 1.5}
    if above and handles:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        axes.legend(handles, labels, **place, **style)
    elif handles:
        figure.legend(handles, labels, loc="outside lower center", **style)
