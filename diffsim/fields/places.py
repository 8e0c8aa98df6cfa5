"""Where the samples of a file lie in a grid's space."""

import numpy as np

from diffsim.fields.formats import Samples
from diffsim.fields.maker import check_axes, coordinates
from diffsim.fields.units import metres
from diffsim.grid import Grid

Places = tuple[np.ndarray, ...]  # m, ascending, along each axis

NEAR = 1e-3  # of a cell: so far a file may round its coordinates


def in_order(found: Samples, axes: tuple[str, ...]) -> Samples:
    """The samples with axes in the grid's order, if they have the same names."""
    if sorted(found.axes) != sorted(axes):
        return found
    order = [found.axes.index(axis) for axis in axes]
    places = tuple(found.places[i] for i in order) if found.places else ()
    return found._replace(values=found.values.transpose(order), axes=axes, places=places)


def located(
    found: Samples, grid: Grid, spacing: tuple[float, ...], origin: tuple[float, ...]
) -> tuple[np.ndarray, Places]:
    """The values with all axes ascending, and where they lie; no places if nobody says it.

    Args:
        found: with as many axes as the grid
        grid: in whose space
        spacing: m, for a file that does not say it
        origin: m, of the first sample; where the file says, or zeros, if empty
    """
    check_axes(grid, **{k: v for k, v in (("spacing", spacing), ("origin", origin)) if v})
    values, places = _ascending(found)
    if not places or any(place is None for place in places):
        if not spacing and origin:
            raise ValueError("origin tells nothing without spacing: give both")
        if not spacing:
            return values, ()
        places = [
            step * np.arange(count) for count, step in zip(values.shape, spacing, strict=True)
        ]
        origin = origin or (0.0,) * grid.ndim
    elif spacing:
        raise ValueError("the file says where its samples lie: leave out spacing")
    if origin:
        places = [place - place[0] + start for place, start in zip(places, origin, strict=True)]
    return values, tuple(places)


def _ascending(found: Samples):
    """Values, and places in metres: None along an axis whose units are no length."""
    values, places = found.values, []
    for axis, (place, units) in enumerate(found.places):
        if place[0] > place[-1]:
            values, place = np.flip(values, axis), place[::-1]
        if not np.all(np.diff(place) > 0):
            raise ValueError(f"the places along axis {axis} are in no order: sort the file")
        places.append(metres(place, units))
    return values, places


def check_same(places: Places, grid: Grid):
    """``ValueError`` unless the samples lie on the nodes."""
    ends = zip(grid.axes, places, coordinates(grid), grid.spacing, strict=True)
    for name, place, node, step in ends:
        if len(place) != len(node) or np.any(np.abs(place - node) > NEAR * step):
            raise ValueError(
                f"{_reach(name, place, node)}: resample it by a method, or say its origin"
            )


def check_within(places: Places, grid: Grid):
    """``ValueError`` if a node lies outside the samples: nothing is extrapolated."""
    ends = zip(grid.axes, places, coordinates(grid), grid.spacing, strict=True)
    for name, place, node, step in ends:
        if node[0] < place[0] - NEAR * step or node[-1] > place[-1] + NEAR * step:
            raise ValueError(
                f"{_reach(name, place, node)}, and nothing is extrapolated: give a smaller grid, a "
                "larger file or another origin"
            )


def _reach(name: str, place: np.ndarray, node: np.ndarray) -> str:
    """Where the samples and the nodes along an axis begin and end, in words."""
    return (
        f"along {name} the samples reach from {place[0]:g} to {place[-1]:g} m, the grid from "
        f"{node[0]:g} to {node[-1]:g} m"
    )
