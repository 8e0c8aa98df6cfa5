"""What is kept of a few steps, the trail, and their transposes along it."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from diffsim.adjoint import growth
from diffsim.adjoint.slices import in_turn, put_block, stacked, take
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Leaves

WRITTEN_OUT = 4  # bodies of a loop: a block of no more steps than these hold is none


class Walk(NamedTuple):
    """What the way back over some steps needs: the carry after them, what was kept of each, and
    what the walk starts afresh from."""

    end: Leaves
    kept: Leaves  # [step, ...]
    fresh: Leaves  # [restart, ...]


class Apart(NamedTuple):
    """The carry before each of a few steps, where the step before has put it.

    No loop copies them to their places in one array and back.
    """

    states: list[Leaves]


def run(length, step, consts, carry, xs):
    """A loop and nothing else: the last carry, and ``ys``."""
    return lax.scan(lambda c, x: step(consts, c, x), carry, xs, length, unroll=step.unroll)


def advance(step, consts, carry, xs, size, keep_states=False):
    """``size`` steps: the last carry, and ``(states before each step if wished, ys)``."""

    def body(carry, x):
        new, y = step(consts, carry, x)
        return new, (carry if keep_states else None, y)

    return lax.scan(body, carry, xs, size, unroll=step.unroll)


def keep_trail(step, consts, carry, xs, size):
    """`advance`, with the trail that `reverse_trail` follows: a `Walk`, states `Apart`, or those
    before each step in one array."""
    if step.retrace is None:
        if size <= WRITTEN_OUT * step.unroll:
            return _advance_apart(step, consts, carry, xs, size)
        return advance(step, consts, carry, xs, size, keep_states=True)

    def body(loop, inputs):
        (carry, fresh), (i, x) = loop, inputs
        fresh, carry = restarts.note(fresh, carry, i)
        new, y, kept = step.keeping(consts, carry, x)
        seen, new = in_turn((kept, y), new)
        return (new, fresh), seen

    restarts = step.restarts(consts)
    loop, inputs = (carry, restarts.room(carry, size)), (jnp.arange(size), xs)
    (carry, fresh), (kept, ys) = lax.scan(body, loop, inputs, size, unroll=step.unroll)
    return carry, (Walk(carry, kept, fresh), ys)


def _advance_apart(step, consts, carry, xs, size):
    states, seen = [], []
    for i in range(size):
        states.append(carry)
        carry, y = step(consts, carry, take(xs, i))
        seen.append(y)
    return carry, (Apart(states), stacked(seen))


def reverse_trail(smooth: SmoothStep, consts, xs, ys_bar, bars, trail, start, size, scale=None):
    """The transposes of ``size`` steps from ``start`` on, along what `keep_trail` kept."""
    consts_bar, carry_bar, xs_bar = bars
    args, loop, unroll = (smooth, consts, trail), lax.scan, smooth.step.unroll
    match trail:
        case Walk():
            after, pull = trail.end, partial(_walk_back, *args, scale)
        case Apart():
            after, pull, loop = None, partial(_from_apart, *args), _written_out
        case _:
            after, pull = None, partial(_from_array, *args)

    def one(walk, i):
        return pull(*walk, i, take(xs, start + i), take(ys_bar, start + i))

    walk, x_bar = loop(
        one, (after, consts_bar, carry_bar), jnp.arange(size), reverse=True, unroll=unroll
    )
    _, consts_bar, carry_bar = walk
    count = len(x_bar)
    noted = [growth.note(n, carry_bar, start, size, smooth.watched) for n in xs_bar[count:]]
    return consts_bar, carry_bar, [*put_block(xs_bar[:count], x_bar, start), *noted]


def _walk_back(smooth, consts, trail, scale, after, consts_bar, carry_bar, i, x, y_bar):
    bars, kept = (consts_bar, carry_bar, y_bar), take(trail.kept, i)
    before, *bars, x_bar = smooth.back(consts, after, x, kept, *bars, scale)
    bars, before = in_turn(bars, before)
    before = smooth.step.restarts(consts).restored(before, trail.fresh, i)
    return (before, *bars), x_bar


def _from_array(smooth, consts, states, none, consts_bar, carry_bar, i, x, y_bar):
    bars = consts_bar, carry_bar, y_bar
    consts_bar, carry_bar, x_bar = smooth.onto(consts, take(states, i), x, *bars)
    return (none, consts_bar, carry_bar), x_bar


def _from_apart(smooth, consts, trail, none, consts_bar, carry_bar, i, x, y_bar):
    bars = consts_bar, carry_bar, y_bar
    consts_bar, carry_bar, x_bar = smooth.onto(consts, trail.states[i], x, *bars)
    # or what each adds would wait for that of all of them
    carry_bar, consts_bar = in_turn(carry_bar, consts_bar)
    return (none, consts_bar, carry_bar), x_bar


def _written_out(body, walk, places, reverse, unroll):
    """A reversed ``lax.scan`` without a loop, its places known."""
    found = []
    for i in reversed(range(len(places))):
        walk, x_bar = body(walk, i)
        found.append(x_bar)
    return walk, stacked(found[::-1])
