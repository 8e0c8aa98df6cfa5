"""Multilevel checkpointing inside one XLA program whose loops all have a known length.

A loop whose trip count depends on data makes an accelerator wait for the host at every pass. Here
equal stretches lie within equal stretches (`diffsim.adjoint.schedule`), and plain scans do. The
step is traced once; how often it stands in the program depends on the number of levels alone.

Kept between the forward and the backward pass: the states before the outermost stretches, the
parameters and the inputs. Recomputation drops what was observed (dead code).
"""

from functools import partial
from itertools import accumulate, pairwise
from typing import Annotated

import jax.numpy as jnp
from annotated_types import Gt
from jax import lax

from diffsim.adjoint.loop import DifferentiableLoop
from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.schedule.levels import Levels, multilevel
from diffsim.adjoint.slices import put, take_block
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.trail import advance, reverse_trail, run
from diffsim.solver import frozen


@frozen
class Multilevel(Adjoint):
    """Stretches within stretches: loops of known length only, for accelerators.

    One level is periodic checkpointing at its best stretch: ``2 √n`` states, fewer than two
    evaluations a step. Two levels take ``3 ∛n`` states and fewer than three, and so on. `Revolve`
    takes fewer evaluations from as many states, in loops whose lengths show while they run.

    Args:
        checkpoints: states kept at most at one time; the fewest levels are taken that they allow
    """

    checkpoints: Annotated[int, Gt(0)]  # states

    def plan(self, length: int) -> Levels:
        """How a run of ``length`` steps is cut."""
        return multilevel(length, self.checkpoints)

    def loop(self, step, consts, carry, xs, length):
        plan = self.plan(length)
        forward, backward = partial(_forward, plan), partial(_backward, plan)
        loop = DifferentiableLoop(step, partial(run, length), forward, backward, length)
        return loop(consts, carry, xs)

    def states(self, length):
        return self.plan(length).states

    def evaluations(self, length):
        return self.plan(length).step_evaluations(reversal=0)


def _starts(plan: Levels):
    """The step before which the stretches of each level begin."""
    steps = (count * stride for count, stride in zip(plan.counts, plan.strides, strict=True))
    return list(accumulate(steps, initial=0))


def _forward(plan: Levels, step, consts, carry, xs):
    """All steps once, the longest stretches first; the state before each is kept."""
    seen, kept = [], [[] for _ in plan.strides]
    for level, (start, stop) in enumerate(pairwise(_starts(plan))):
        count, stride = plan.counts[level], plan.strides[level]
        if count == 0:
            continue

        def stretch(carry, xs, stride=stride):
            new, (_, y) = advance(step, consts, carry, xs, stride)
            return new, (carry, y)

        parts = [x[start:stop].reshape(count, stride, *x.shape[1:]) for x in xs]
        unroll = step.unroll if stride == 1 else 1
        carry, (kept[level], ys) = lax.scan(stretch, carry, parts, count, unroll=unroll)
        seen.append([y.reshape(count * stride, *y.shape[2:]) for y in ys])
    return (carry, [jnp.concatenate(pieces) for pieces in zip(*seen, strict=True)]), kept


def _backward(plan: Levels, smooth: SmoothStep, consts, xs, kept, carry_bar, ys_bar):
    """The reversal, the shortest stretches first."""

    def reverse(level, start, states, bars):
        """Consecutive stretches of a level, given the state before each."""
        count, stride = len(states[0]), plan.strides[level]
        if stride == 1:
            return reverse_trail(smooth, consts, xs, ys_bar, bars, states, start, count)

        def one(bars, stretch):
            index, state = stretch
            first = start + index * stride
            return reverse(level + 1, first, cut(level, first, state), bars), None

        return lax.scan(one, bars, (jnp.arange(count), states), reverse=True)[0]

    def cut(level, start, state):
        """The states before each part of one stretch; the last part is not run."""
        trips, stride = plan.trips[level], plan.strides[level + 1]

        def part(loop, index):
            states, state = loop
            part_xs = take_block(xs, start + index * stride, stride)
            states = put(states, state, index)
            return (states, advance(smooth.step, consts, state, part_xs, stride)[0]), None

        states = [jnp.broadcast_to(leaf, (trips, *leaf.shape)) for leaf in state]
        unroll = smooth.step.unroll if stride == 1 else 1
        (states, state), _ = lax.scan(part, (states, state), jnp.arange(trips - 1), unroll=unroll)
        return put(states, state, trips - 1)

    consts_bar, xs_bar = smooth.zeros(consts, xs)
    bars = consts_bar, carry_bar, xs_bar
    for level, start in reversed(list(enumerate(_starts(plan)[:-1]))):
        if plan.counts[level]:
            bars = reverse(level, start, kept[level], bars)
    return bars
