"""Fields on the grid from formulas; positions in metres, values in the units of what they fill."""

from itertools import pairwise
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from diffsim.fields.maker import Maker, Positive, Values, array, check_axes, coordinates
from diffsim.solver import Solver, frozen

ON_NODE = 1e-6  # of a cell: round-off in a node's position moves it over no edge


@frozen
class Constant(Maker):
    """One value at every node of the grid.

    Args:
        value: in the units of the field that it fills
    """

    value: float

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        return np.full(solver.grid.shape, self.value)


@frozen
class Layers(Maker):
    """Layers along the first axis, usually depth; a node on an interface belongs to what follows.

    Args:
        values: of each layer, in the order of the axis
        interfaces: m, ascending, where one layer ends and the next begins: one less than values
    """

    values: Annotated[tuple[float, ...], MinLen(1)]
    interfaces: tuple[float, ...]  # m

    def __post_init__(self):
        if len(self.interfaces) != len(self.values) - 1:
            raise ValueError(
                f"{len(self.values)} values have {len(self.interfaces)} interfaces between them: "
                "give one interface less than values"
            )
        if any(upper >= lower for upper, lower in pairwise(self.interfaces)):
            raise ValueError(f"interfaces {self.interfaces} do not ascend: order them")

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        grid = solver.grid
        depth = coordinates(grid)[0] + ON_NODE * grid.spacing[0]
        layer = np.searchsorted(self.interfaces, depth)
        column = np.asarray(self.values)[layer]
        return np.broadcast_to(np.expand_dims(column, tuple(range(1, grid.ndim))), grid.shape)


@frozen
class Terrain(Maker):
    """One field above the ground, another below it; the first axis is depth.

    A node on the ground or deeper is below.

    Args:
        elevation: m, of the ground, ``[*grid.shape[1:]]``; at depth 0 it is 0
        above: a number or another maker of a field on the grid
        below: likewise
    """

    elevation: Values  # m
    above: Values
    below: Values

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        grid = solver.grid
        ground = array(self.elevation, solver, steps, "m")
        if ground.shape != grid.shape[1:]:
            raise ValueError(
                f"the elevation has shape {ground.shape}, but the grid has {grid.shape[1:]} after "
                "its first axis: give one for each column"
            )
        depth = coordinates(grid)[0] + ON_NODE * grid.spacing[0]
        below = depth.reshape(-1, *(1,) * ground.ndim) >= -ground
        names = ("below", "above")
        return np.where(
            below, *(_on_grid(getattr(self, name), solver, steps, name) for name in names)
        )


@frozen
class LinearGradient(Maker):
    """``value + slope · x``, such as a speed that grows with depth.

    Args:
        value: at position zero of all axes
        slope: growth by the metre along each axis, such as ``(0.6, 0)`` for 0.6 m/s by the metre
    """

    value: float
    slope: tuple[float, ...]  # units of the value / m

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        check_axes(solver.grid, slope=self.slope)
        places = np.ix_(*coordinates(solver.grid))
        return self.value + sum(s * x for s, x in zip(self.slope, places, strict=True))


@frozen
class Gaussian(Maker):
    """``background + amplitude exp(-½ Σ ((x - centre) / width)²)``.

    At a distance of 3 widths 1.1 % of the amplitude is left, at 5 widths 4e-6.

    Args:
        centre: m, one number for each axis
        width: m, the standard deviation along each axis
        amplitude: the height above the background, or the depth below it if negative
        background: a number or another maker of a field on the grid
    """

    centre: tuple[float, ...]  # m
    width: tuple[Positive, ...]  # m
    amplitude: float
    background: Values = 0.0

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        check_axes(solver.grid, centre=self.centre, width=self.width)
        axes = zip(np.ix_(*coordinates(solver.grid)), self.centre, self.width, strict=True)
        squares = sum(((x - centre) / width) ** 2 for x, centre, width in axes)
        bump = self.amplitude * np.exp(-0.5 * squares)
        return _on_grid(self.background, solver, steps, "the background") + bump


@frozen
class Checkerboard(Maker):
    """``background ± amplitude`` in boxes of alternating sign; the box at the origin is positive.

    The usual test of what an inversion resolves.

    Args:
        size: m, of a box along each axis
        amplitude: the departure from the background
        background: a number or another maker of a field on the grid
    """

    size: tuple[Positive, ...]  # m
    amplitude: float
    background: Values = 0.0

    def make(self, solver, steps):
        """``[*grid.shape]``."""
        grid = solver.grid
        check_axes(grid, size=self.size)
        boxes = [
            (np.arange(count) + ON_NODE) * spacing // size
            for count, spacing, size in zip(grid.shape, grid.spacing, self.size, strict=True)
        ]
        sign = 1 - 2 * (sum(np.ix_(*boxes)) % 2)
        return _on_grid(self.background, solver, steps, "the background") + self.amplitude * sign


def _on_grid(values: Values, solver: Solver, steps: int, name: str) -> np.ndarray:
    made = array(values, solver, steps)
    if made.shape not in ((), solver.grid.shape):
        raise ValueError(
            f"{name} has shape {made.shape}, but the grid has {solver.grid.shape}: give a number "
            "or a field on the grid"
        )
    return made
