"""Walk the run back instead of remembering it.

A leapfrog step can be undone: with both time levels at hand the scheme gives the earlier one. Only
what a step destroys is kept for each. An absorbing layer can be undone for some steps, too, until
what lies on it is put right from what was kept there (`Restarts`): that also absorbs what rounding
the walk back sends into it. Elsewhere rounding grows slowly; a few full states start the walk
afresh, and show how far it had drifted (Gauthier, Virieux & Tarantola 1986, Geophysics 51; Clapp
2008, SEP-138).
"""

import warnings
from functools import partial
from math import inf
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Gt
from jax import lax
from pydantic import AllowInfNan

from diffsim.adjoint import growth
from diffsim.adjoint.loop import DifferentiableLoop
from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.slices import in_turn, put, take
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.stretches import piling, stretches
from diffsim.adjoint.trail import run
from diffsim.host import call, named
from diffsim.solver import frozen

LEAST, MOST = 250, 4  # steps in a stretch and stretches, if nobody says how many


class Drifted(UserWarning):
    """The walk back left the path of the run."""


@frozen
class Reversible(Adjoint):
    """Undo the steps one by one, in stretches that start from full states.

    Memory: ``stretches`` states, ``length`` times what a step destroys, and what lies on absorbing
    layers (of a `Wave` 4 values a node of theirs) every `RetracingSolver.steps_back` steps: about
    21, 31 and 79 for layers of 10, 20 and 50 cells. Two step evaluations a step, one of them
    backwards, which a `RetracingSolver` does in one sweep with the transpose. The drift of a
    stretch is the largest difference between the state that the walk arrives at and the one that
    was kept there, over the largest value of that array in the states that were kept and, in the
    course of the run, on absorbing layers; more than ``drift`` raises the
    warning `Drifted` with the measured figure. For a leapfrog it grows with the square of the steps
    in a stretch at worst: 1e-12 after 10³ steps of a wave in float64, 1e-4 in float32.

    Args:
        stretches: parts of the run; best if they divide its length (else one more is compiled). If
            absent one for each 250 steps, and no more than 4
        drift: relative, largest allowed; 1e-8 in float64 and 1e-3 in float32 if absent; it is not
            measured if infinite
    """

    stretches: Annotated[int, Gt(0)] | None = None
    drift: Annotated[float, Gt(0), AllowInfNan(True)] | None = None

    def loop(self, step, consts, carry, xs, length):
        if not (step.undo or step.retrace):
            raise TypeError(
                f"{self!r} cannot run this step: nothing says how to undo it. Give scan an "
                "Invertible step, simulate a ReversibleSolver or a RetracingSolver, or use "
                "Revolve(checkpoints=…)"
            )
        forward, backward = partial(_forward, self, length), partial(_backward, self, length)
        loop = DifferentiableLoop(step, partial(run, length), forward, backward, length)
        return loop(consts, carry, xs)

    def states(self, length):
        return -(-length // self.size(length)) + 1

    def evaluations(self, length):
        return 2 * length

    def size(self, length):
        """Steps in a stretch."""
        return -(-length // min(self.parts(length), length))

    def parts(self, length):
        """Stretches of a run. A state costs as much time as several steps: drift grows slowly, so
        short runs are one stretch."""
        return self.stretches or max(1, min(MOST, length // LEAST))


class _Kept(NamedTuple):
    """What the walk back needs."""

    starts: list  # [stretch, ...], the states before the stretches, by parts
    destroyed: list  # [step, ...]
    fresh: list  # [restart, ...]
    end: list  # the state after the last step


def _forward(adjoint, length, step, consts, carry, xs):
    """All steps once."""
    if not (step.undo or step.retrace):
        raise NotImplementedError(
            f"{adjoint!r} has no reverse over forward mode: take forward over reverse, "
            "jax.jvp(jax.grad(f), …), or Revolve(checkpoints=…)"
        )

    def keeping(carry, x):
        new, *found = step.keeping(consts, carry, x)
        return new, found

    def stretch(size, loop, first):
        return lax.scan(one, loop, first + jnp.arange(size), unroll=step.unroll)[0], loop[0]

    one, loop = piling(keeping, carry, xs, length, step.restarts(consts))
    starts = []
    for size, firsts in stretches(length, adjoint.size(length)):
        loop, start = lax.scan(partial(stretch, size), loop, jnp.array(firsts))
        starts.append(start)
    carry, (ys, destroyed), fresh = loop
    return (carry, ys), _Kept(starts, destroyed, fresh, carry)


def _backward(adjoint, length, smooth: SmoothStep, consts, xs, kept, carry_bar, ys_bar):
    """Undo and transpose step by step."""

    scale, carry_bar = smooth.scaled(consts, carry_bar)
    back = partial(smooth.back, scale=scale) if smooth.step.retrace else partial(_undone, smooth)
    restarts, walked = smooth.step.restarts(consts), smooth.carry.of
    count = sum(smooth.xs.smooth)

    def one(walk, i):
        after, consts_bar, carry_bar, xs_bar = walk
        x, y_bar, destroyed = take(xs, i), take(ys_bar, i), take(kept.destroyed, i)
        bars = consts_bar, carry_bar, y_bar
        before, *bars, x_bar = back(consts, after, x, destroyed, *bars)
        (bars, xs_bar), before = in_turn((bars, put(xs_bar, x_bar, i)), before)
        before = restarts.restored(before, kept.fresh, i)
        return (before, *bars, xs_bar), None

    def stretch(size, walk, inputs):
        first, start = inputs
        *walk, noted = walk
        places = first + jnp.arange(size)
        (arrived, *bars), _ = lax.scan(
            one, tuple(walk), places, reverse=True, unroll=smooth.step.unroll
        )
        # what lies on layers is put right where it matters, and is no drift
        mended = restarts.restore(arrived, restarts.keep(start))
        gap = [_largest(a - b) for a, b in zip(walked(mended), walked(start), strict=True)]
        noted = [growth.note(n, bars[1], first, size, length) for n in noted]
        return (start, *bars, noted), gap

    consts_bar, xs_bar = smooth.zeros(consts, xs)
    walk = kept.end, consts_bar, carry_bar, xs_bar[:count], xs_bar[count:]
    gaps = []
    parts = zip(stretches(length, adjoint.size(length)), kept.starts, strict=True)
    for (size, firsts), starts in reversed(list(parts)):
        inputs = jnp.array(firsts), starts
        walk, gap = lax.scan(partial(stretch, size), walk, inputs, reverse=True)
        gaps.append(gap)
    _report(adjoint, smooth, restarts, kept, gaps)
    _, *bars, xs_bar, noted = walk
    return *smooth.unscaled(consts, scale, *bars), [*xs_bar, *noted]


def _undone(smooth, consts, after, x, destroyed, consts_bar, carry_bar, y_bar):
    """The carry before a step, and the step's transpose there, as `SmoothStep.back` gives it."""
    before = smooth.step.undo(consts, after, x, destroyed)
    more, carry_bar, x_bar = smooth.pull(consts, before, x, carry_bar, y_bar)
    return before, [a + b for a, b in zip(consts_bar, more, strict=True)], carry_bar, x_bar


def _largest(leaf):
    return jnp.max(jnp.abs(leaf), initial=0)


def _report(adjoint, smooth, restarts, kept, gaps):
    """Say how far the walk drifted, if that is too far."""
    if adjoint.drift == inf:
        return
    worst = [jnp.max(jnp.stack([_largest(g) for g in leaf])) for leaf in zip(*gaps, strict=True)]
    limits = [adjoint.drift or (1e-8 if g.dtype.itemsize >= 8 else 1e-3) for g in worst]

    def largest(states):
        sizes = [[_largest(leaf) for leaf in smooth.carry.of(state)] for state in states]
        return [jnp.max(jnp.stack(leaf)) for leaf in zip(*sizes, strict=True)]

    def louder(i, most):
        return jax.tree.map(
            lambda m, leaf: jnp.maximum(m, jnp.abs(leaf)), most, take(kept.fresh, i)
        )

    sizes = largest([*kept.starts, kept.end])
    if leaves := jax.tree.leaves(kept.fresh):
        # what has left by the end of a run from rest was seen there: looked up only if it matters
        within = [g <= limit * m for g, limit, m in zip(worst, limits, sizes, strict=True)]
        count = jnp.where(jnp.all(jnp.stack(within)), 0, len(leaves[0]))
        silent = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), kept.fresh)
        fresh = lax.fori_loop(0, count, louder, silent)
        seen = largest([restarts.restore([jnp.zeros_like(leaf) for leaf in kept.end], fresh)])
        sizes = [jnp.maximum(m, n) for m, n in zip(sizes, seen, strict=True)]
    for limit, gap, size in zip(limits, worst, sizes, strict=True):
        call(_warn, limit, gap / jnp.where(size > 0, size, 1))


@named
def _warn(limit, drift):
    if not drift <= limit:
        warnings.warn(
            f"the walk back drifted by {drift:.1e} of the field, more than {limit:.1e}: "
            "the gradient is that much wrong; take more stretches, float64 or "
            "Revolve(checkpoints=…)",
            Drifted,
            stacklevel=2,
        )
