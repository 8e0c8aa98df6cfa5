"""Walk the run back instead of remembering it.

A leapfrog step can be undone: with both time levels at hand the scheme gives the earlier one. Only
what a step destroys (the memory of an absorbing layer, or what that adds to the field) is kept for
each step. Rounding grows slowly on the way back; a few full states start the walk afresh, and show
how far it had drifted (Gauthier, Virieux & Tarantola 1986, Geophysics 51; Clapp 2008, SEP-138).
"""

import warnings
from functools import partial
from math import inf
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt
from jax import lax
from pydantic import AllowInfNan

from diffsim.adjoint import growth
from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.steps import (
    UNROLL,
    SmoothStep,
    differentiable_loop,
    in_parts,
    in_turn,
    joined,
    run,
)
from diffsim.solver import frozen


class Drifted(UserWarning):
    """The walk back left the path of the run."""


@frozen
class Reversible(Adjoint):
    """Undo the steps one by one, in stretches that start from full states.

    Memory: ``stretches`` states and ``length`` times what a step destroys. Two step evaluations a
    step, one of them backwards, which a `RetracingSolver` does in one sweep with the transpose. The
    drift of a stretch is the largest difference between the state that the walk arrives at and the
    one that was kept there, over the largest value of that array in the run; more than ``drift``
    raises the warning `Drifted` with the measured figure. For a leapfrog it grows with the square
    of the steps in a stretch at worst: 1e-12 after 10³ steps of a wave in float64, 1e-4 in float32.

    Args:
        stretches: parts of the run; best if they divide its length (else one more is compiled)
        drift: relative, largest allowed; 1e-8 in float64 and 1e-3 in float32 if absent; it is not
            measured if infinite
    """

    stretches: Annotated[int, Gt(0)] = 4
    drift: Annotated[float, Gt(0), AllowInfNan(True)] | None = None

    def loop(self, step, consts, carry, xs, length):
        if not (step.undo or step.retrace):
            raise TypeError(
                f"{self!r} cannot run this step: nothing says how to undo it. Give scan an "
                "Invertible step, simulate a ReversibleSolver or a RetracingSolver, or use "
                "Revolve(checkpoints=…)"
            )
        forward, backward = partial(_forward, self, length), partial(_backward, self, length)
        loop = differentiable_loop(step, partial(run, length), forward, backward, length)
        return loop(consts, carry, xs)

    def states(self, length):
        return self.cuts(length)[2] + 1

    def evaluations(self, length):
        return 2 * length

    def cuts(self, length):
        """Steps before the first full stretch, steps in a stretch, and their number."""
        steps = -(-length // min(self.stretches, length))
        return length % steps, steps, length // steps


class _Kept(NamedTuple):
    """What the walk back over some stretches needs."""

    starts: list  # the state before each stretch
    destroyed: list  # [stretch, step, ...]
    end: list  # the state after the last one


def _forward(adjoint, length, step, consts, carry, xs):
    """All steps once."""
    if not (step.undo or step.retrace):
        raise NotImplementedError(
            f"{adjoint!r} has no reverse over forward mode: take forward over reverse, "
            "jax.jvp(jax.grad(f), …), or Revolve(checkpoints=…)"
        )

    def one(carry, x):
        new, y, destroyed = step.keeping(consts, carry, x)
        destroyed, new = in_turn(destroyed, new)
        return new, (y, destroyed)

    def stretch(steps, carry, xs):
        new, (ys, destroyed) = lax.scan(one, carry, xs, steps, unroll=UNROLL)
        return new, (carry, ys, destroyed)

    odd, steps, count = cuts = adjoint.cuts(length)
    seen, kept = [], []
    for part in in_parts(xs, cuts):
        size = (odd, 1) if len(seen) == 0 and odd else (steps, count)
        carry, (starts, ys, destroyed) = lax.scan(partial(stretch, size[0]), carry, part, size[1])
        seen.append(ys)
        kept.append(_Kept(starts, destroyed, carry))
    return (carry, joined(seen)), kept


def _backward(adjoint, length, smooth: SmoothStep, consts, xs, kept, carry_bar, ys_bar):
    """Undo and transpose step by step."""

    back = SmoothStep.back if smooth.step.retrace else _undone

    def one(walk, inputs):
        after, consts_bar, carry_bar = walk
        x, y_bar, destroyed = inputs
        before, *bars, x_bar = back(smooth, consts, after, x, destroyed, carry_bar, y_bar)
        (more, carry_bar), before = in_turn(bars, before)
        return (before, [a + b for a, b in zip(consts_bar, more, strict=True)], carry_bar), x_bar

    def stretch(walk, inputs):
        first, start, *inputs = inputs
        *walk, noted = walk
        (arrived, *bars), xs_bar = lax.scan(one, tuple(walk), inputs, reverse=True, unroll=UNROLL)
        gap = [_largest(a - b) for a, b in zip(walked(arrived), walked(start), strict=True)]
        noted = [growth.note(n, bars[1], first, length) for n in noted]
        return (start, *bars, noted), (xs_bar, gap)

    walked = partial(_walked, smooth)
    cuts = adjoint.cuts(length)
    parts = list(zip(in_parts(xs, cuts), in_parts(ys_bar, cuts), kept, strict=True))
    odd, steps, count = cuts
    firsts = [odd + steps * jnp.arange(count), jnp.zeros(1, int)]
    consts_bar, xs_bar = smooth.zeros(consts, xs)
    xs_bars, gaps = [], []
    bars = consts_bar, carry_bar, xs_bar[sum(smooth.xs.smooth) :]
    for first, (x, y_bar, part) in zip(firsts, reversed(parts), strict=False):
        walk = part.end, *bars
        inputs = first, part.starts, x, y_bar, part.destroyed
        (_, *bars), (xs_bar, gap) = lax.scan(stretch, walk, inputs, reverse=True)
        xs_bars.insert(0, xs_bar)
        gaps.append(gap)
    _report(adjoint, smooth, kept, gaps)
    return bars[0], bars[1], [*joined(xs_bars), *bars[2]]


def _undone(smooth, consts, after, x, destroyed, carry_bar, y_bar):
    """The carry before a step, and the step's transpose there."""
    before = smooth.step.undo(consts, after, x, destroyed)
    return before, *smooth.pull(consts, before, x, carry_bar, y_bar)


def _walked(smooth, carry):
    """The differentiable leaves of a carry that are undone, not handed through."""
    through = smooth.step.through
    yes = [s and i not in through for i, s in enumerate(smooth.carry.smooth)]
    return [leaf for leaf, walked in zip(carry, yes, strict=True) if walked]


def _largest(leaf):
    return jnp.max(jnp.abs(leaf), initial=0)


def _report(adjoint, smooth, kept, gaps):
    """Say how far the walk drifted, if that is too far."""
    if adjoint.drift == inf:
        return
    sizes = [[_largest(leaf) for leaf in _walked(smooth, p.starts)] for p in kept]
    sizes.append([_largest(leaf) for leaf in _walked(smooth, kept[-1].end)])
    largest = [jnp.max(jnp.stack(leaf)) for leaf in zip(*sizes, strict=True)]
    worst = [jnp.max(jnp.stack([_largest(g) for g in leaf])) for leaf in zip(*gaps, strict=True)]
    for gap, size in zip(worst, largest, strict=True):
        limit = adjoint.drift or (1e-8 if gap.dtype.itemsize >= 8 else 1e-3)
        jax.debug.callback(partial(_warn, limit), gap / jnp.where(size > 0, size, 1))


def _warn(limit, drift):
    if not np.all(np.asarray(drift) <= limit):
        warnings.warn(
            f"the walk back drifted by {np.max(drift):.1e} of the field, more than {limit:.1e}: "
            "the gradient is that much wrong; take more stretches, float64 or "
            "Revolve(checkpoints=…)",
            Drifted,
            stacklevel=2,
        )
