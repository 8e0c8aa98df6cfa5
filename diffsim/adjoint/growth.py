"""An adjoint that explodes says so.

In a chaotic system a cotangent grows backwards in time as a perturbation grows forwards,
``exp(λ t)`` with λ the leading Lyapunov exponent: the gradient of a long run is then right to the
last digit, and useless (Lea, Allen & Haine 2000, Tellus 52A). The growth is measured where it costs
little: after each block of reversed steps.
"""

import warnings
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from diffsim.host import call, named

LIMIT = 1e8  # of the growth from the last quarter of a run to the first one
QUARTERS = 4
LEAST = 100  # steps; a shorter loop is not watched
NOTED = 8  # blocks of steps, at least, in each quarter of a run that has as many


class Exploded(UserWarning):
    """The cotangents of a loop's carry grow exponentially, backwards in time."""


def quiet():
    """The largest cotangent in each quarter of a run, before any is known."""
    return jnp.zeros(QUARTERS)


def note(noted, carry_bar, start, size, length):
    """What `quiet` began, with the cotangents of the carry before step ``start`` of ``length``,
    which begins a block of ``size``. Of short blocks some are left out: it reads the carry."""
    noted, carry_bar = lax.stop_gradient((noted, carry_bar))

    def quarter(start):  # stretches may begin that much early
        return jnp.minimum(QUARTERS * (start + QUARTERS - 1) // length, QUARTERS - 1)

    def with_this():
        # of all entries: a wave that starts between some would seem to explode when it arrives
        largest = [jnp.max(jnp.abs(leaf), initial=0).astype(noted.dtype) for leaf in carry_bar]
        here = jnp.arange(QUARTERS) == quarter(start)
        return jnp.where(here, jnp.maximum(noted, jnp.max(jnp.stack(largest))), noted)

    every = length // (NOTED * QUARTERS * size)
    if every < 2:
        return with_this()
    due = (start // size % every == 0) | (quarter(start) > quarter(start - size))
    return lax.cond(due, with_this, lambda: noted)


class Feed(NamedTuple):
    """What makes cotangents of the carry grow with no help of the loop's own dynamics."""

    seen: jax.Array  # [leaf, quarter], the largest of it from there to the end of the run
    decay: jax.Array  # of the carry over the run; that of the leaf that decays most

    @classmethod
    def of(cls, carry, new, ys, length):
        """What a run shows: the carry before and after it, and what was seen at each step."""
        # XLA would take seconds to fold the largest of a start that it knows
        carry = lax.optimization_barrier(lax.stop_gradient(carry))
        sizes = [
            [jnp.max(jnp.abs(a), initial=0) for a in pair] for pair in zip(carry, new, strict=True)
        ]
        decays = [jnp.where(first > 0, first / last, 1).astype(float) for first, last in sizes]
        decay = jnp.max(jnp.stack(decays), initial=1.0)
        return cls(*lax.stop_gradient((_tails(ys, length), decay)))

    def times(self, rows, ys_bar, length):
        """The same with the cotangents of what was seen, those of ``rows``.

        The one of ``y = h(u)`` enters times ``h'(u)``. If h is a power, h' decays no faster than y.
        """
        if not rows:
            return self._replace(seen=jnp.ones((1, QUARTERS)))
        seen = self.seen[jnp.array(rows)] * lax.stop_gradient(_tails(ys_bar, length))
        return self._replace(seen=seen)


def _tails(leaves, length):
    """The largest magnitudes, ``[leaf, quarter]``, from the start of each quarter to the end."""
    ends = [length * quarter // QUARTERS for quarter in range(QUARTERS + 1)]
    parts = [[jnp.max(jnp.abs(leaf[a:b]), initial=0) for a, b in pairwise(ends)] for leaf in leaves]
    parts = jnp.array(parts, float).reshape(len(leaves), QUARTERS)
    return lax.cummax(parts, axis=1, reverse=True)


def report(noted, feed, length):
    """Warn if the cotangents exploded.

    Args:
        noted: by `note`
        feed: of the run, times the cotangents of what was seen
        length: of the run, steps
    """
    noted = lax.stop_gradient(noted)

    def tell():
        growth, steps = _growth(noted, feed, length)
        worst = largest_of_batch(growth)
        call(_warn, worst, largest_of_batch(jnp.where(growth == worst, steps, 0)))

    # with NaN among them it is true as well
    suspect = largest_of_batch((~(noted[0] <= LIMIT * noted[-1])).astype(jnp.int32))
    lax.cond(suspect > 0, tell, lambda: None)


def _growth(noted, feed, length):
    """How much faster the cotangents grew than what fed them, and over how many steps.

    Zero if they did not grow in each quarter of the run in turn, as long as they are finite. Where
    the carry decays over the run, what is seen may depend on it in any way: its cube is allowed.
    """
    finite = jnp.cumprod(jnp.isfinite(noted[::-1]).astype(int))[::-1] > 0
    grew = jnp.all((noted[:-1] > noted[1:]) | ~finite[:-1])
    first = jnp.argmax(finite)  # the earliest quarter in time
    early, late = feed.seen[:, first], feed.seen[:, -1]
    fed = jnp.max(early / late, where=early > 0, initial=1.0) * feed.decay**3
    growth = noted[first] / noted[-1] / fed
    steps = (QUARTERS - 1 - first) * length / QUARTERS
    known = finite[-1] & (noted[-1] > 0)
    return jnp.where(grew & known & (growth > LIMIT), noted[first] / noted[-1], 0.0), steps


@named
def _warn(growth, steps):
    if growth > 0:
        rate = np.log(growth) / steps
        warnings.warn(
            f"the adjoint explodes: its cotangents grew by a factor of {growth:.1e} over "
            f"{steps:.0f} steps backwards in time, exp({rate:.3g}) a step, more than what feeds "
            "them. The gradient of a chaotic or unstable run is that of one trajectory and says "
            "nothing of averages: shorten the run (a few times the growth time of "
            f"{1 / rate:.3g} steps), split it into windows, or lower dt if the scheme is unstable",
            Exploded,
            stacklevel=2,
        )


_largest_p = Primitive("largest_of_batch")


def largest_of_batch(value):
    """The value itself; under ``jax.vmap`` the largest in the batch, no longer batched.

    So a batch is told of once, and what follows a ``lax.cond`` on it stays a branch.
    """
    return _largest_p.bind(value)


def _batch(args, dims):
    return _largest_p.bind(jnp.max(args[0], axis=dims[0])), None


_largest_p.def_impl(lambda value: value)
_largest_p.def_abstract_eval(lambda value: value)
batching.primitive_batchers[_largest_p] = _batch
mlir.register_lowering(_largest_p, mlir.lower_fun(lambda value: value, multiple_results=False))
