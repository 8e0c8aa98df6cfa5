"""Points between nodes: where sources and receivers are, and what is seen and put there."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from diffsim.grid import Grid
from diffsim.linear import linear as linear_map
from solvers import native

# Kaiser window parameter b by radius, for wavenumbers up to half of Nyquist (Hicks 2002, table 2)
KAISER = {1: 1.24, 2: 2.94, 3: 4.53, 4: 6.31, 5: 7.91, 6: 9.42, 7: 10.95, 8: 12.53}


class Points(NamedTuple):
    """Points between nodes: for each, a window of nodes and weights on it."""

    start: Any  # integers [count, axis], the first node of the window
    weights: jax.Array  # [count, *window]


def located(grid: Grid, positions, windows, *how) -> Points:
    """``windows(positions, *how)`` around positions ``[count, axis]`` in metres, known or traced.

    Outside the grid there is nothing to feel. Where a traced position leaves it, its weights are
    NaN rather than a silent zero.

    Raises:
        ValueError: if positions known by now are outside, or not one number for each axis
    """
    if np.ndim(positions) != 2 or np.shape(positions)[1] != grid.ndim:
        raise ValueError(
            f"positions of shape {np.shape(positions)}: give a row of {grid.ndim} numbers each"
        )
    if not isinstance(positions, jax.core.Tracer):
        positions = np.asarray(positions)
        outside = grid.outside(positions)
        if np.any(outside):
            raise ValueError(
                f"{np.sum(outside)} of {len(positions)} positions are outside the grid "
                f"{grid.extent} m, the first at {positions[np.argmax(outside)].tolist()} m: move "
                "them inside"
            )
    return _located(grid, jnp.asarray(positions), windows, how)


@partial(jax.jit, static_argnums=(0, 2, 3), inline=True)  # one program, not one for each operation
def _located(grid, positions, windows, how):
    start, weights = windows(positions, *how)
    lost = jnp.repeat(grid.outside(positions), len(start) // max(1, len(positions)))
    lost = jnp.expand_dims(lost, tuple(range(1, weights.ndim)))
    return Points(start, jnp.where(lost, jnp.nan, weights))


def between_nodes(positions, grid: Grid) -> Points:
    """`linear` around positions in metres, for `located`."""
    return linear(grid.nodes(positions), grid.shape)


def on_nodes(positions, grid: Grid) -> tuple[bool, ...]:
    """Along which axes all positions lie on nodes, as far as numbers of their type can tell; none
    if they are traced, or no places that `located` takes."""
    nowhere = (False,) * grid.ndim
    if isinstance(positions, jax.core.Tracer) or np.shape(positions)[1:] != (grid.ndim,):
        return nowhere
    places = np.asarray(positions)
    if not len(places) or np.any(grid.outside(places)):
        return nowhere
    kind = places.dtype if np.issubdtype(places.dtype, np.inexact) else np.float64
    nodes = np.stack(grid.nodes(places.astype(np.float64)), -1)
    slack = 2 * np.finfo(kind).eps * max(1.0, np.abs(nodes).max())
    return tuple(bool(on) for on in np.all(np.abs(nodes - np.round(nodes)) <= slack, axis=0))


def sinc(
    nodes,
    shape: tuple[int, ...],
    radius: int,
    signs: Sequence[Sequence[int]],
    along: int | None = None,
    on: Sequence[bool] = (),
) -> Points:
    """Kaiser-sinc windows around fractional node numbers, ``[count]`` for each axis.

    Differentiable in ``nodes``. On an axis whose first or last node carries a mirror, odd (sign -1,
    a pressure-free surface) or even (sign 1, a rigid wall), what the window would hold beyond is
    folded back with that sign, so that a point near the mirror feels its image. With ``along`` the
    weights are differentiated by the node number of that axis. A sinc is 0 at all nodes but its
    own: along an axis that all are ``on`` the nodes of, a window holds one node.
    """
    if min(shape) < 2 * radius:
        raise ValueError(f"{shape} nodes are too few for a window of {2 * radius} nodes an axis")
    starts, weights = [], jnp.ones_like(nodes[0])
    on = on or (False,) * len(shape)
    for axis, (node, count, ends) in enumerate(zip(nodes, shape, signs, strict=True)):
        one = on[axis] and axis != along
        size, first = (1, jnp.round(node)) if one else (2 * radius, jnp.floor(node) - radius + 1)
        start = jnp.clip(lax.stop_gradient(first).astype(int), 0, count - size)
        window = partial(_window, start=start, size=size, count=count, radius=radius, signs=ends)
        if axis == along:
            weight = jax.jvp(window, (node,), (jnp.ones_like(node),))[1]
        else:
            weight = window(node)
        starts.append(start)
        weights = weights[..., None] * weight.reshape(-1, *(1,) * (weights.ndim - 1), size)
    return Points(jnp.stack(starts, -1), weights)


def _window(node, start, size, count, radius, signs):
    """Weights of one axis ``[count, window]``."""
    k = start[:, None] + jnp.arange(size)[None]
    weight = kaiser_sinc(k - node[:, None], radius)
    for sign, end in zip(signs, (0, count - 1), strict=True):
        if sign:
            image = kaiser_sinc(2 * end - k - node[:, None], radius)
            # an even mirror shows the node on it once
            weight = weight + jnp.where(k == end, 0, image) if sign > 0 else weight - image
    return weight


def linear(nodes, shape: tuple[int, ...]) -> Points:
    """Multilinear windows around fractional node numbers, ``[count]`` for each axis.

    Differentiable in ``nodes``, with a kink at each node.
    """
    starts, weights = [], jnp.ones_like(nodes[0])
    for node, count in zip(nodes, shape, strict=True):
        start = jnp.clip(jnp.floor(lax.stop_gradient(node)).astype(int), 0, count - 2)
        part = node - start
        weight = jnp.stack([1 - part, part], -1)
        starts.append(start)
        weights = weights[..., None] * weight.reshape(-1, *(1,) * (weights.ndim - 1), 2)
    return Points(jnp.stack(starts, -1), weights)


@partial(jax.jit, static_argnames="radius", inline=True)
def kaiser_sinc(x, radius: int):
    """sinc(x) times a Kaiser window that ends at ``±radius`` nodes (Hicks 2002, eq. 5–8).

    The window's Bessel function I0(b √(1 - (x/r)²)) is summed as a power series of its squared
    argument, which has a derivative at the window's end, where the square root has none.
    """
    inside = jnp.abs(x) < radius
    quarter = KAISER[radius] ** 2 / 4 * (1 - (jnp.where(inside, x, 0) / radius) ** 2)
    return jnp.where(inside, jnp.sinc(x) * _bessel0(quarter) / _bessel0(KAISER[radius] ** 2 / 4), 0)


def _bessel0(quarter):
    """I0(2 √quarter) = Σ quarterᵏ / (k!)²; 32 terms reach round-off for every b in the table."""
    total = 1.0
    for k in range(32, 0, -1):
        total = 1.0 + total * quarter / k**2
    return total


# --- what is seen and put there


def take(u, points: Points):
    """The field at the points: ``[count]``."""
    return _twin(_take, _take_compiled, points)(u, points)


def _take(u, points):
    return jnp.sum(windows(u, points) * points.weights, axis=tuple(range(1, u.ndim + 1)))


def windows(u, points: Points):
    """The field on each point's window: ``[count, *window]``."""
    window = points.weights.shape[1:]
    axes = tuple(range(u.ndim))
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(i + 1 for i in axes), collapsed_slice_dims=(), start_index_map=axes
    )
    return lax.gather(u, points.start, numbers, window, mode="promise_in_bounds")


def put(u, points: Points, values):
    """Add ``values`` ``[count]`` to the field, spread by the weights: the transpose of `take`."""
    return _twin(_put, _put_compiled, points)(u, points, values.astype(u.dtype))


def _put(u, points, values):
    axes = tuple(range(u.ndim))
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(i + 1 for i in axes),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=axes,
    )
    updates = (points.weights * values.reshape(-1, *(1,) * u.ndim)).astype(u.dtype)
    return lax.scatter_add(u, points.start, updates, numbers, mode="promise_in_bounds")


def _twin(plain, compiled, points):
    """XLA's CPU back end gathers and scatters number by number."""
    known = 1 <= points.weights.ndim - 1 <= 3
    return native.twin(plain, compiled) if known else plain


def _take_compiled(u, points):
    shape = jax.ShapeDtypeStruct(points.weights.shape[:1], u.dtype)
    return native.call("take", [shape], {}, [u, *_places(points)])[0]


def _put_compiled(u, points, values):
    return native.call("put", [u], {0: 0}, [u, *_places(points), values])[0]


def _places(points):
    return jnp.asarray(points.start, jnp.int32), points.weights


def see(state, name: str, points: Points, scale=None):
    """A state handed on, and what `take` gives of a field of it: for a `Sampler`.

    In reverse `put` adds what the points felt to the field's cotangent, times the field ``scale``
    if there is one.
    """
    felt = points.weights if scale is None else points.weights * windows(scale, points)
    u, seen = _see(getattr(state, name), *points, felt)
    return state._replace(**{name: u}), seen


@jax.custom_jvp
def _see(u, start, weights, felt):
    """``felt`` are the weights with which cotangents are put."""
    return u, take(u, Points(start, weights))


@partial(_see.defjvp, symbolic_zeros=True)
def _see_jvp(primals, tangents):
    (u, *points), (u_dot, _, weights_dot, _) = primals, tangents
    if isinstance(u_dot, SymbolicZero):
        u_dot = jnp.zeros_like(u)
    back = partial(_put_back, jax.ShapeDtypeStruct(u.shape, u.dtype))
    dots = linear_map(lambda points, dots: [*_see(*dots, *points)], back, points, [u_dot])
    if not isinstance(weights_dot, SymbolicZero):
        dots[1] += _take(u, Points(points[0], weights_dot))
    return _see(*primals), tuple(dots)


def _put_back(like, points, bars):
    (start, _, felt), (u_bar, seen_bar) = points, bars
    if u_bar is None:  # what XLA itself puts into zeros it adds to what else there is
        return [_put(jnp.zeros_like(like), Points(start, felt), seen_bar)]
    return [u_bar if seen_bar is None else put(u_bar, Points(start, felt), seen_bar)]
