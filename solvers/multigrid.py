"""A multigrid cycle for diffusion on a regular grid: a preconditioner for implicit steps.

Cells are merged in twos along each axis until few are left (cell-centred multigrid, Wesseling
1988); what conducts between them halves with the distance.
All fields carry a halo of one empty cell.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from solvers import stencil

COARSEST = 4  # cells along the longest axis that are left to Jacobi's iteration alone
DAMPING = 0.8  # of Jacobi's iteration: what smooths best in two and three dimensions


class Operator(NamedTuple):
    """``own x - ∇·(conductance ∇x)`` on one level; symmetric and positive."""

    own: jax.Array  # what a cell loses by itself: to time, and through the grid's faces
    conductance: tuple[jax.Array, ...]  # of the face before each cell, for each axis
    joint: tuple[jax.Array | None, ...]  # between the last cells of an axis and the first


def part(ndim, axis, piece):
    """An index of a piece of one axis, and of the cells without their halo along the others."""
    return tuple(piece if i == axis else slice(1, -1) for i in range(ndim))


def divergence(conductance, field):
    """``∇·(conductance ∇field)`` between insulated faces; its own transpose.

    No face of a cell in the halo conducts. So all rows are one line, in which the neighbours along
    any axis lie so far ahead and behind: of slices that are padded along each axis XLA makes a loop
    that takes twice as long.
    """
    here = _ahead(field, 0)
    total = jnp.zeros_like(here)
    for of_face, far in zip(conductance, _strides(field), strict=True):
        total += _ahead(of_face, far) * (_ahead(field, far) - here)
        total -= _ahead(of_face, 0) * (here - _ahead(field, -far))
    return _rows(total, field, 1)


def jumps(field):
    """Along each axis the differences across the faces before the cells."""
    last = math.prod(field.shape[1:])
    here = _ahead(field, 0, last)
    return [_rows(here - _ahead(field, -far, last), field, 0) for far in _strides(field)]


def _strides(field):
    """How far apart neighbours lie in memory, for each axis."""
    return [math.prod(field.shape[axis + 1 :]) for axis in range(field.ndim)]


def _ahead(field, far, more=0):
    """What lies so far ahead of the cells, and of so many after them, in one line."""
    row = math.prod(field.shape[1:])
    return lax.slice_in_dim(field.reshape(-1), row + far, field.size - row + more + far)


def _rows(line, field, after):
    """A line as a field, with a first row of zeros and so many last ones."""
    rows = line.reshape(-1, *field.shape[1:])
    return jnp.pad(rows, [(1, after)] + [(0, 0)] * (field.ndim - 1))


def coupling(operator):
    """What each cell loses to its neighbours: the rest of the operator's diagonal."""
    ndim = operator.own.ndim
    total = jnp.zeros_like(operator.own)
    for axis, (of_face, joint) in enumerate(zip(*operator[1:], strict=True)):
        pieces = (part(ndim, axis, piece) for piece in (slice(1, -1), slice(2, None)))
        total += jnp.pad(sum(of_face[piece] for piece in pieces), 1)
        if joint is not None:
            for end in (slice(1, 2), slice(-2, -1)):
                total = total.at[part(ndim, axis, end)].add(joint)
    return total


def apply(operator, field):
    """The operator's product with a field."""
    new = operator.own * field - divergence(operator.conductance, field)
    for axis, joint in enumerate(operator.joint):
        if joint is not None:
            ends = [part(field.ndim, axis, end) for end in (slice(1, 2), slice(-2, -1))]
            across = joint * (field[ends[0]] - field[ends[1]])
            new = new.at[ends[0]].add(across).at[ends[1]].add(-across)
    return new


def cycle(operator):
    """A function that about solves ``operator x = right``: symmetric, positive, one V-cycle."""
    damped = DAMPING / (operator.own + coupling(operator))

    def sweep(right, field):
        return field + damped * (right - apply(operator, field))

    if max(damped.shape) <= COARSEST + 2:
        return lambda right: lax.fori_loop(0, 8, lambda _, field: sweep(right, field), 0 * right)
    # merged with what reads them, the levels would take minutes to compile
    apart = stencil.materialise
    coarser = cycle(apart(_coarse(operator)))

    def solve(right):
        field = damped * right
        left = apart(_merge(right - apply(operator, field)))
        return sweep(right, apart(field + _spread(coarser(left), right.shape)))

    return solve


def _coarse(operator):
    """The operator on cells twice as wide."""
    own, conductance, joint = operator
    axes = list(range(own.ndim))
    faces, joints = [], []
    for axis in axes:
        others = [other for other in axes if other != axis]
        of_face = conductance[axis][(slice(1, -1),) * own.ndim]
        of_face = lax.slice_in_dim(of_face, 0, None, stride=2, axis=axis)
        faces.append(jnp.pad(_pairs(of_face, others) / 2, 1))
        alone = of_face.shape[axis] == 1  # a cell that would be its own neighbour
        joints.append(None if joint[axis] is None or alone else _pairs(joint[axis], others) / 2)
    return Operator(_merge(own, halo=1), tuple(faces), tuple(joints))


def _pairs(field, axes):
    """Sums of neighbours in twos; an odd one at the end stays alone."""
    for axis in axes:
        widths = [(0, field.shape[axis] % 2 * (i == axis)) for i in range(field.ndim)]
        field = jnp.pad(field, widths)
        first, second = (lax.slice_in_dim(field, i, None, 2, axis) for i in (0, 1))
        field = first + second
    return field


def _merge(field, halo=0):
    inner = field[(slice(1, -1),) * field.ndim]
    return jnp.pad(_pairs(inner, range(field.ndim)), 1, constant_values=halo)


def _spread(field, shape):
    """The transpose of `_merge`."""
    field = field[(slice(1, -1),) * field.ndim]
    for axis, n in enumerate(shape):
        field = lax.slice_in_dim(jnp.repeat(field, 2, axis), 0, n - 2, axis=axis)
    return jnp.pad(field, 1)
