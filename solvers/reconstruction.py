"""Fluxes through faces from limited linear reconstruction (van Leer 1979), and their transpose.

The flux through a face is a local function of the two cells beside it and of their slopes. So its
transpose is local too: it is taken for all faces at once, then each cell gathers what its faces
hold for it. The transpose that JAX derives of the sweep would instead pad each slice of each field
back to full shape. For a cell to gather from as many faces as any other, the fields go on beyond
the cells that matter, by `reach`, with cotangents of zero.

Cells are any pytree of fields of one shape.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from solvers import stencil


class Side(NamedTuple):
    """The cells on one side of each face."""

    cell: Any
    slope: Any  # the limited difference across each cell


Flux = Callable[[Side, Side], Any]  # before and after each face -> pytree of fields on faces


def halo(limiter: stencil.Limiter | None) -> int:
    """How many cells on either side the flux through a face depends on."""
    return 1 if limiter is None else 2


def reach(limiter: stencil.Limiter | None) -> int:
    """How far from a cell lie those whose fluxes depend on it, too."""
    return 2 * halo(limiter) - 1


def fluxes(flux: Flux, cells, axis: int, limiter: stencil.Limiter | None):
    """Through the faces across an axis: ``2 halo - 1`` fewer than there are cells."""
    return flux(*_sides(cells, _steps(cells, axis), axis, limiter))


def vjp(flux: Flux, cells, axis: int, limiter: stencil.Limiter | None):
    """`fluxes`, and their transpose: to cotangents of the cells without `reach` at either end."""
    steps = _steps(cells, axis)
    through, pull = jax.vjp(flux, *_sides(cells, steps, axis, limiter))

    def gather(bars):
        before, after = pull(bars)
        sums = jax.tree.map(jnp.add, cut(before, axis, 1, 0), cut(after, axis, 0, 1))
        if limiter is None:
            return sums.cell
        through_slopes = lambda *leaves: _through_slopes(limiter, axis, *leaves)  # noqa: E731
        return jax.tree.map(through_slopes, steps, *sums)

    return through, gather


def _through_slopes(limiter, axis, step, cell_bar, slope_bar):
    """Cotangents of cells, from those of the cells themselves and of their slopes."""
    across = cut(step, axis, 1, 2), cut(step, axis, 2, 1)
    before, after = stencil.pair(*jax.vjp(limiter.slope, *across)[1](slope_bar))
    step_bar = cut(after, axis, 0, 1) + cut(before, axis, 1, 0)
    return cut(cell_bar, axis, 1, 1) - jnp.diff(step_bar, axis=axis)


def _steps(cells, axis):
    return jax.tree.map(lambda u: jnp.diff(u, axis=axis), cells)


def _sides(cells, steps, axis, limiter):
    """The cells before and after each face, those with a slope."""
    if limiter is None:
        both = Side(cells, jax.tree.map(jnp.zeros_like, cells))
    else:
        slope = lambda step: limiter.slope(cut(step, axis, 0, 1), cut(step, axis, 1, 0))  # noqa: E731
        slopes = stencil.barrier(jax.tree.map(slope, steps))
        both = Side(cut(cells, axis, 1, 1), slopes)
    return cut(both, axis, 0, 1), cut(both, axis, 1, 0)


def cut(fields, axis: int, first: int, last: int):
    """Fields without so many entries at either end of an axis."""
    part = lambda u: lax.slice_in_dim(u, first, u.shape[axis] - last, axis=axis)  # noqa: E731
    return jax.tree.map(part, fields)
