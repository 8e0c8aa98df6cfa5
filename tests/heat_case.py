"""A small language for tests of heat conduction."""

import jax
import jax.numpy as jnp

from diffsim.grid import Grid
from solvers.heat import Heat, HeatState, Neumann


def heat(shape, lengths, dt, scheme, boundary=None):
    """A solver on a box that begins at the origin: its cells' centres lie half a cell inside."""
    spacing = tuple(length / n for length, n in zip(lengths, shape, strict=True))
    grid = Grid(shape=shape, spacing=spacing, origin=tuple(h / 2 for h in spacing))
    boundary = boundary or ((Neumann(), Neumann()),) * len(shape)
    return Heat(grid=grid, dt=dt, boundary=boundary, scheme=scheme)


def centres(solver):
    """m, of each axis, shaped to broadcast over the grid."""
    grid = solver.grid
    axes = [
        o + h * jnp.arange(n) for o, h, n in zip(grid.origin, grid.spacing, grid.shape, strict=True)
    ]
    return jnp.meshgrid(*axes, indexing="ij")


def run(solver, params, steps, forcing=None):
    """The temperature after some steps, without its halo."""
    coefficients = solver.coefficients(params)

    def step(state, forcing_n):
        return solver.step(coefficients, state, forcing_n), None

    state, _ = jax.lax.scan(step, solver.init(params), forcing, steps)
    return inside(solver, state)


def inside(solver, state):
    return state.temperature[(slice(1, -1),) * solver.grid.ndim]


def padded(field):
    """A state of this temperature."""
    return HeatState(jnp.pad(field, 1))
