"""What grid-based solvers share: differences, limiters, stages in time, points between nodes."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from diffsim.linear import linear
from diffsim.solver import frozen
from solvers import native

# Central second differences: weights of nodes 0, ±1, ±2, … by order of accuracy (Fornberg 1988)
SECOND_DIFFERENCE = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    6: (-49 / 18, 3 / 2, -3 / 20, 1 / 90),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}

# Staggered first differences: weights of half points ±1/2, ±3/2, … (Fornberg 1988)
FIRST_DIFFERENCE = {
    2: (1.0,),
    4: (9 / 8, -1 / 24),
    6: (75 / 64, -25 / 384, 3 / 640),
    8: (1225 / 1024, -245 / 3072, 49 / 5120, -5 / 7168),
}

# Kaiser window parameter b by radius, for wavenumbers up to half of Nyquist (Hicks 2002, table 2)
KAISER = {1: 1.24, 2: 2.94, 3: 4.53, 4: 6.31, 5: 7.91, 6: 9.42, 7: 10.95, 8: 12.53}


def along(axis: int, ndim: int, part: slice) -> tuple[slice, ...]:
    """An index that takes ``part`` of one axis and all of the others."""
    return tuple(part if i == axis else slice(None) for i in range(ndim))


def put_part(u, where: tuple[slice, ...], part):
    """``u.at[where].set(part)`` in place.

    That tests for indices out of bounds, and XLA:CPU merges the test into a loop over all of the
    field: two columns of 512² take 100 µs, and 3 like this.
    """
    starts = [at.indices(size)[0] for at, size in zip(where, u.shape, strict=True)]
    return lax.dynamic_update_slice(u, part, starts)


def add_part(fields, where: tuple[slice, ...], parts):
    """``u.at[where].add(part)`` in place, for a pytree of fields: what is there is read first, or
    XLA would copy all of it."""
    there = materialise(jax.tree.map(lambda u: u[where], fields))
    put = lambda u, old, part: put_part(u, where, old + part)  # noqa: E731
    return jax.tree.map(put, fields, there, parts)


def laplacian(u, order: int, spacing: tuple[float, ...]):
    """∇²u (1/m² of u) where ``u`` has a halo of ``order // 2`` nodes; zero in the halo.

    With a halo that is zero or the odd mirror image of the field, this is its own transpose: so
    it serves the adjoint too. Slices of the input and one pad of the *output* fuse into a single
    loop over the field; padding the input would not.
    """
    halo = order // 2
    weights = SECOND_DIFFERENCE[order]
    inner = (slice(halo, -halo),) * u.ndim
    total = sum(weights[0] / h**2 for h in spacing) * u[inner]
    for axis, h in enumerate(spacing):
        for k in range(1, halo + 1):
            for shift in (-k, k):
                part = slice(halo + shift, u.shape[axis] - halo + shift)
                index = (*inner[:axis], part, *inner[axis + 1 :])
                total += weights[k] / h**2 * u[index]
    return jnp.pad(total, halo)


def difference(u, order: int, axis: int) -> Any:
    """``h ∂u`` halfway between nodes along an axis, ``order - 1`` values fewer than ``u`` has.

    Along an axis of half points it is the difference at nodes.
    """
    pairs = _pairs(u, order, axis)
    return sum(w * (after - before) for w, before, after in pairs)


def difference_magnitude(u, order: int, axis: int):
    """`difference` with the magnitudes of its weights: what bounds it."""
    return sum(abs(w) * (after + before) for w, before, after in _pairs(u, order, axis))


def _pairs(u, order, axis):
    """Each weight of `difference` with the values that it multiplies, before and after."""
    size = u.shape[axis] - order + 1
    for k, weight in enumerate(FIRST_DIFFERENCE[order]):
        starts = order // 2 - 1 - k, order // 2 + k
        before, after = (u[along(axis, u.ndim, slice(i, i + size))] for i in starts)
        yield weight, before, after


@jax.custom_jvp
def materialise(values):
    """``values`` themselves, written to memory before anything reads them.

    XLA's CPU back end merges elementwise work into whatever consumes it, as often as it is
    consumed: a layer's recursion into every point of the field, the update of the field into the
    one-thread copy that fills its halo. A loop of no trips, which XLA can't see through, keeps
    kernels apart (at 512² with all layers: 190 instead of 250 to 300 µs a step). Elsewhere nothing
    is done: a GPU would have to read the number of trips back at each step.
    """
    return lax.platform_dependent(values, cpu=_loop_of_no_trips, default=lambda values: values)


def _loop_of_no_trips(values):
    none = lax.optimization_barrier(jnp.int32(0))
    return lax.fori_loop(0, none, lambda _, v: _changed(v), values)


def _changed(values):
    """The values in other places, those that are alone of their type negated.

    XLA compiles a kernel for each that is computed, though the loop never runs.
    """
    leaves, tree = jax.tree.flatten(values)
    alike = {}
    for i, leaf in enumerate(leaves):
        alike.setdefault(jax.typeof(leaf), []).append(i)
    for places in alike.values():
        found = [leaves[i] for i in places]
        found = [-found[0]] if len(found) == 1 else [*found[1:], found[0]]
        for i, leaf in zip(places, found, strict=True):
            leaves[i] = leaf
    return jax.tree.unflatten(tree, leaves)


@materialise.defjvp
def _materialise_jvp(primals, tangents):
    return materialise(*primals), tangents[0]


@jax.custom_jvp
def pair(a, b):
    """``a`` and ``b`` themselves, written to memory by one kernel as complex numbers.

    XLA's CPU back end gives each result a kernel of its own, which computes again what they share.
    """

    def together(a, b):
        both = _loop_of_no_trips(lax.complex(a, b))
        return lax.real(both), lax.imag(both)

    return lax.platform_dependent(a, b, cpu=together, default=lambda *pair: pair)


@pair.defjvp
def _pair_jvp(primals, tangents):
    return pair(*primals), tangents


def stable_courant(order: int) -> float:
    """The largest eigenvalue of ``-h² ∂²`` of this order: the sum of the weights' magnitudes."""
    first, *others = SECOND_DIFFERENCE[order]
    return abs(first) + 2 * sum(abs(w) for w in others)


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


class Points(NamedTuple):
    """Points between nodes: for each, a window of nodes and weights on it."""

    start: Any  # integers [count, axis], the first node of the window
    weights: jax.Array  # [count, *window]


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
    window = points.weights.shape[1:]
    square = len(window) <= 3 and len(set(window)) == 1
    return native.twin(plain, compiled, in_turn=False) if square else plain


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
    dots = linear(lambda points, dots: [*_see(*dots, *points)], back, points, [u_dot])
    if not isinstance(weights_dot, SymbolicZero):
        dots[1] += _take(u, Points(points[0], weights_dot))
    return _see(*primals), tuple(dots)


def _put_back(like, points, bars):
    (start, _, felt), (u_bar, seen_bar) = points, bars
    if u_bar is None:  # what XLA itself puts into zeros it adds to what else there is
        return [_put(jnp.zeros_like(like), Points(start, felt), seen_bar)]
    return [u_bar if seen_bar is None else put(u_bar, Points(start, felt), seen_bar)]


def points(
    nodes,
    shape: tuple[int, ...],
    radius: int,
    signs: Sequence[Sequence[int]],
    along: int | None = None,
) -> Points:
    """Kaiser-sinc windows around fractional node numbers, ``[count]`` for each axis.

    Differentiable in ``nodes``. On an axis whose first or last node carries a mirror, odd (sign -1,
    a pressure-free surface) or even (sign 1, a rigid wall), what the window would hold beyond is
    folded back with that sign, so that a point near the mirror feels its image. With ``along`` the
    weights are differentiated by the node number of that axis.
    """
    if min(shape) < 2 * radius:
        raise ValueError(f"{shape} nodes are too few for a window of {2 * radius} nodes an axis")
    starts, weights = [], jnp.ones_like(nodes[0])
    for axis, (node, count, ends) in enumerate(zip(nodes, shape, signs, strict=True)):
        start = jnp.floor(lax.stop_gradient(node)).astype(int) - radius + 1
        start = jnp.clip(start, 0, count - 2 * radius)
        window = partial(_window, start=start, count=count, radius=radius, signs=ends)
        if axis == along:
            weight = jax.jvp(window, (node,), (jnp.ones_like(node),))[1]
        else:
            weight = window(node)
        starts.append(start)
        weights = weights[..., None] * weight.reshape(-1, *(1,) * (weights.ndim - 1), 2 * radius)
    return Points(jnp.stack(starts, -1), weights)


def _window(node, start, count, radius, signs):
    """Weights of one axis ``[count, window]``."""
    k = start[:, None] + jnp.arange(2 * radius)[None]
    weight = kaiser_sinc(k - node[:, None], radius)
    for sign, end in zip(signs, (0, count - 1), strict=True):
        if sign:
            image = kaiser_sinc(2 * end - k - node[:, None], radius)
            # an even mirror shows the node on it once
            weight = weight + jnp.where(k == end, 0, image) if sign > 0 else weight - image
    return weight


def linear_points(nodes, shape: tuple[int, ...]) -> Points:
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


def second_difference(u, order: int, axis: int) -> Any:
    """``h² ∂²u`` along an axis, ``order`` values fewer than ``u`` has."""
    first, *others = SECOND_DIFFERENCE[order]
    return weighted(u, (*others[::-1], first, *others), axis)


def weighted(u, weights: Sequence[float], axis: int) -> Any:
    """Sums of as many neighbours along an axis as there are weights, in their order."""
    size = u.shape[axis] - len(weights) + 1
    parts = (u[along(axis, u.ndim, slice(i, i + size))] for i in range(len(weights)))
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


@frozen
class Minmod:
    """The smaller of two differences: the most diffusive limiter, flat at extrema."""

    def slope(self, a, b):
        """The limited difference across a cell, from those before it and after it."""
        smaller = jnp.where(jnp.abs(a) < jnp.abs(b), a, b)
        return jnp.where(a * b > 0, smaller, 0)


@frozen
class VanLeer:
    """The harmonic mean of two differences (van Leer 1974): smooth wherever a flow is monotone."""

    def slope(self, a, b):
        """The limited difference across a cell, from those before it and after it."""
        return _harmonic_mean(a, b)


def _shares(a, b):
    """``a / (a + b)`` and ``b / (a + b)``; zeros unless both have one sign."""
    monotone = a * b > 1e-30  # whose reciprocal a derivative in float32 can hold
    part = 1 / jnp.where(monotone, a + b, 1)
    return jnp.where(monotone, a * part, 0), jnp.where(monotone, b * part, 0)


@jax.custom_jvp
def _harmonic_mean(a, b):
    """JAX's derivative takes two divisions more."""
    return 2 * _shares(a, b)[0] * b


@_harmonic_mean.defjvp
def _harmonic_mean_jvp(primals, tangents):
    of_a, of_b = _shares(*primals)
    dot = 2 * (of_b**2 * tangents[0] + of_a**2 * tangents[1])
    return _harmonic_mean(*primals), dot


@frozen
class MonotonizedCentral:
    """The mean of two differences, at most twice the smaller (van Leer 1977): the sharpest here."""

    def slope(self, a, b):
        """The limited difference across a cell, from those before it and after it."""
        steepest = 2 * jnp.minimum(jnp.abs(a), jnp.abs(b))
        return jnp.where(a * b > 0, jnp.clip((a + b) / 2, -steepest, steepest), 0)


Limiter = Minmod | VanLeer | MonotonizedCentral


def strong_stability_preserving(advance, state):
    """One step of SSP-RK2 (Heun's method): ``½ u + ½ E(E(u))`` for an Euler step E.

    Whatever a convex mean of Euler steps keeps, it keeps too (Gottlieb, Shu & Tadmor 2001). The
    stages are a scan, so that XLA sees one; unrolled they fuse into kernels that compute the
    first stage again for every neighbour of the second. The transpose recomputes each stage.
    """

    @jax.checkpoint
    def stage(now, kept):
        new = advance(now)
        return jax.tree.map(lambda u0, u: kept * u0 + (1 - kept) * u, state, new), None

    return lax.scan(stage, state, jnp.asarray([0.0, 0.5], jax.tree.leaves(state)[0].dtype))[0]


def barrier(values):
    """`materialise` for ``values`` and, in reverse mode, for their cotangents too.

    The transpose of a slice is a pad, and XLA's CPU back end would merge all that leads to it into
    a branch of the padding loop, computed number by number.
    """
    return cotangent_barrier(materialise(values))


@jax.custom_jvp
def cotangent_barrier(values):
    """``values`` themselves; in reverse mode their cotangents are written to memory."""
    return values


@cotangent_barrier.defjvp
def _cotangent_barrier_jvp(primals, tangents):
    # JAX can transpose a branch, unlike a loop of no trips
    tangent = lax.platform_dependent(tangents[0], cpu=_branch_not_taken, default=lambda t: t)
    return cotangent_barrier(*primals), tangent


def _branch_not_taken(values):
    never = lax.optimization_barrier(jnp.bool_(False))
    return lax.cond(never, lambda t: jax.tree.map(jnp.negative, t), lambda t: t, values)
