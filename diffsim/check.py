"""Is this gradient right? Tests for users' own models and for ours."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.solver import Solver, frozen


def taylor_test(
    f: Callable[[Any], Any],
    x: Any,
    *,
    gradient: Any = None,
    hessian: Callable[[Any], Any] | None = None,
    directions: int = 3,
    seed: int = 0,
    step: float = 1e-2,
    halvings: int = 4,
) -> np.ndarray:
    """Orders at which the Taylor remainder of ``f`` falls: 2 if the gradient is right, 1 if not.

    ``R(h) = |f(x + h d) - f(x) - h ⟨∇f, d⟩|`` for random directions ``d`` and ``h`` halved again
    and again; the order between two of them is ``log2 R(h) / R(h/2)``. Use float64. With a Hessian
    ``R(h) = |f(x + h d) - f(x) - h ⟨∇f, d⟩ - h²/2 ⟨d, H d⟩|``, and 3 if both are right.

    Args:
        f: scalar function of one pytree of floating arrays
        x: where
        gradient: of ``f`` at ``x``; ``jax.grad(f)(x)`` if absent
        hessian: ``d -> H d`` at ``x``, for example ``functools.partial(diffsim.hvp, f, x)``
        directions: how many; seeded, so that a failure comes back
        seed: of the random directions
        step: the largest ``h``, relative to each leaf's largest magnitude
        halvings: orders for each direction

    Returns:
        orders ``[direction, halving]``; ``inf`` where the remainder is round-off, as it is for all
        ``h`` if ``f`` is linear. Where the next derivative along a direction happens to vanish
        the orders scatter or tend to one more: look at another seed.
    """
    f = jax.jit(f)
    gradient = jax.grad(f)(x) if gradient is None else gradient
    value = float(f(x))
    noise = 1e3 * np.finfo(float).eps * abs(value)
    orders = []
    for d in random_directions(x, directions, seed):
        slope = _dot(gradient, d)
        bend = 0.0 if hessian is None else _dot(d, hessian(d))
        h = step * 0.5 ** np.arange(halvings + 1)
        moved = [float(f(jax.tree.map(lambda a, b, h=h_i: a + h * b, x, d))) for h_i in h]
        remainder = np.abs(np.array(moved) - value - h * slope - h**2 / 2 * bend)
        order = np.log2(np.maximum(remainder[:-1], noise) / np.maximum(remainder[1:], noise))
        orders.append(np.where(remainder[1:] <= noise, np.inf, order))
    return np.array(orders)


def dot_test(
    f: Callable[[Any], Any], x: Any, *, tangent: Callable | None = None, seed: int = 0
) -> float:
    """Relative mismatch of ``⟨J v, w⟩`` and ``⟨v, Jᵀ w⟩``: round-off if the transpose is exact.

    Args:
        f: function of one pytree, differentiated in reverse mode
        x: where
        tangent: a function of the same values that JAX differentiates in forward mode, for an
            ``f`` that has reverse mode only (checkpointed scans, `AdjointSolver` steps); ``f`` if
            absent
        seed: of the random ``v`` and ``w``
    """
    (v,) = random_directions(x, 1, seed)
    y, transpose = jax.vjp(f, x)
    (w,) = random_directions(y, 1, seed + 1)
    _, jv = jax.jvp(tangent or f, (x,), (v,))
    (jtw,) = transpose(w)
    forward, backward = _dot(jv, w), _dot(v, jtw)
    # of the size of the products that cancel, not of what is left of them
    size = np.sqrt(_dot(jv, jv) * _dot(w, w)) + np.finfo(float).tiny
    return abs(forward - backward) / size


def difference_test(
    f: Callable[[Any], Any],
    x: Any,
    *,
    gradient: Any = None,
    directions: int = 3,
    seed: int = 0,
    step: float = 1e-4,
) -> float:
    """Worst relative mismatch of the gradient and a fourth-order central difference of ``f``.

    ``(8 (f(x+hd) - f(x-hd)) - (f(x+2hd) - f(x-2hd))) / 12h`` along random directions ``d``.
    """
    f = jax.jit(f)
    gradient = jax.grad(f)(x) if gradient is None else gradient
    worst = 0.0
    for d in random_directions(x, directions, seed):

        def moved(h, d=d):
            return float(f(jax.tree.map(lambda a, b: a + h * b, x, d)))

        near, far = moved(step) - moved(-step), moved(2 * step) - moved(-2 * step)
        difference = (8 * near - far) / (12 * step)
        size = np.sqrt(_dot(gradient, gradient) * _dot(d, d)) + np.finfo(float).tiny
        worst = np.maximum(worst, abs(_dot(gradient, d) - difference) / size)  # NaN stays
    return float(worst)


def random_directions(x: Any, count: int, seed: int) -> list[Any]:
    """Seeded normal directions, each leaf scaled to the largest magnitude of ``x``'s leaf."""
    random = np.random.default_rng(seed)

    def leaf(a):
        a = jnp.asarray(a)
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"a leaf of type {a.dtype} cannot be moved: give floating arrays only")
        scale = float(jnp.max(jnp.abs(a), initial=0)) or 1.0
        return jnp.asarray(scale * random.standard_normal(np.shape(a)), a.dtype)

    return [jax.tree.map(leaf, x) for _ in range(count)]


def _dot(a, b) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(np.vdot(np.asarray(u), np.asarray(v)) for u, v in pairs))


@frozen
class Derived(Solver):
    """A solver stripped of its own pullback: JAX derives the transpose, and forward mode works.

    Args:
        of: the solver to wrap
    """

    of: Any

    @property
    def grid(self):
        """The wrapped solver's."""
        return self.of.grid

    @property
    def dt(self):
        """The wrapped solver's."""
        return self.of.dt

    def coefficients(self, params):  # noqa: D102
        return self.of.coefficients(params)

    def init(self, params):  # noqa: D102
        return self.of.init(params)

    def step(self, coefficients, state, forcing_n):  # noqa: D102
        return self.of.step(coefficients, state, forcing_n)

    def stable_dt(self, params):  # noqa: D102
        return self.of.stable_dt(params)

    def sampler(self, positions):  # noqa: D102
        return self.of.sampler(positions)

    @classmethod
    def example(cls):  # noqa: D102
        raise TypeError("Derived has no example of its own: take one of the solver that it wraps")
