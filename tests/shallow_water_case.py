"""Channels and basins: shared by the tests of the shallow water solver."""

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.grid import Grid
from diffsim.simulate import simulate
from solvers.shallow_water import ShallowWater, ShallowWaterParams, Wall

GRAVITY = 9.81  # m/s²


def basin(lengths, cells, dt, boundary=None, **fields):
    """A solver for cells that fill a box from its corner at 0."""
    spacing = tuple(length / n for length, n in zip(lengths, cells, strict=True))
    grid = Grid(shape=tuple(cells), spacing=spacing, origin=tuple(h / 2 for h in spacing))
    boundary = boundary or ((Wall(), Wall()),) * len(cells)
    return ShallowWater(grid=grid, dt=dt, boundary=boundary, **fields)


def centres(solver):
    """The coordinates of the cells, one array for each axis."""
    ends = zip(solver.grid.shape, solver.grid.spacing, solver.grid.origin, strict=True)
    return np.meshgrid(*(o + h * np.arange(n) for n, h, o in ends), indexing="ij")


def params(bed, stage, **others):
    """Parameters from arrays, or numbers in place of them."""
    bed, stage = (jnp.asarray(a, float) for a in np.broadcast_arrays(bed, stage))
    return ShallowWaterParams(bed, stage, **others)


def end(solver, values, steps, forcing=None, **how):
    """The state after so many steps; differentiable."""
    seen = simulate(solver, values, lambda _: (), steps=steps, forcing=forcing, **how)
    return seen[0]


def water(solver, values, steps, forcing=None):
    """Depth and discharge after so many steps, compiled."""
    state = jax.jit(lambda v, f: end(solver, v, steps, f))(values, forcing)
    return np.asarray(state.depth), np.stack(state.discharge)
