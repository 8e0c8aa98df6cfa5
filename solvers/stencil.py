"""What grid-based solvers share: differences, limiters, stages in time."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from diffsim.solver import frozen

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
