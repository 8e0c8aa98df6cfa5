"""From the samples of a file to the nodes of a grid."""

from typing import Literal

import numpy as np
from scipy.interpolate import make_interp_spline

from diffsim.fields.maker import coordinates
from diffsim.fields.places import Places, check_within
from diffsim.grid import Grid

Method = Literal["nearest", "linear", "cubic"]
DEGREE = {"linear": 1, "cubic": 3}  # of the spline


def resampled(values: np.ndarray, places: Places, grid: Grid, method: Method) -> np.ndarray:
    """Values at the grid's nodes, interpolated along one axis after the other.

    ``cubic`` is the interpolating spline with not-a-knot ends; it may overshoot at jumps. A grid
    coarser than the samples picks values: smooth them before.

    Args:
        values: with the grid's axes; finite
        places: m, where they lie; the grid reaches not beyond them
        grid: whose nodes are wanted
        method: ``nearest``, ``linear`` (of the product kind: bilinear in 2-D) or ``cubic``
    """
    _check_finite(values, places)
    check_within(places, grid)
    for axis, (place, node) in enumerate(zip(places, coordinates(grid), strict=True)):
        inside = np.clip(node, place[0], place[-1])  # the file may round its coordinates
        if method == "nearest":
            nearest = np.searchsorted((place[1:] + place[:-1]) / 2, inside)
            values = values.take(nearest, axis)
        elif len(place) > (degree := DEGREE[method]):
            values = make_interp_spline(place, values, degree, axis=axis)(inside)
        else:
            raise ValueError(
                f"{method} takes {degree + 1} samples along {grid.axes[axis]}, but there are "
                f"{len(place)}: choose another method"
            )
    return values


def _check_finite(values: np.ndarray, places: Places):
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        at = ", ".join(f"{place[i]:g}" for place, i in zip(places, first, strict=True))
        raise ValueError(
            f"{len(bad)} values are missing or not finite, the first at {first}, that is ({at}) m: "
            "fill them before they are resampled"
        )
