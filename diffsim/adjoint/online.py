"""A loop whose number of steps shows only while it runs, with a gradient in bounded memory.

The states to keep are chosen as the loop goes on, by the rule of `diffsim.adjoint.schedule.online`,
here on traced integers; when the loop has ended the reversal is binomial between them.
"""

import operator
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt
from jax import lax

from diffsim.adjoint.checkpointed import play
from diffsim.adjoint.flat import lifted
from diffsim.adjoint.loop import DifferentiableLoop
from diffsim.adjoint.schedule.online import binomials
from diffsim.adjoint.slices import put, take
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Step
from diffsim.host import call, named
from diffsim.solver import frozen

Count = Annotated[int, Gt(0)]


@frozen
class Online:
    """Binomial checkpointing of a run of unknown length.

    Memory: ``checkpoints + block`` states, whatever ``max_steps``. Evaluations are the optimum of a
    known length up to ``(c + 1)(c + 2)/2 + 1`` blocks, and a few per cent more beyond.

    Args:
        checkpoints: states kept over the run
        block: steps between two places where a state may be kept
    """

    checkpoints: Count  # states
    block: Count = 8  # steps


class Stopped(UserWarning):
    """A loop that was cut off while its condition still held."""


def while_loop(
    cond: Callable[[Any], Any],
    body: Callable[[Any], Any],
    init: Any,
    *,
    max_steps: int,
    adjoint: Online,
) -> Any:
    """``while cond(carry): carry = body(carry)``, differentiable in every mode.

    For adaptive time steps and runs that end on a condition. ``cond`` and ``body`` may close over
    arrays; what ``body`` closes over gets gradients. Where ``cond`` switches, the derivative is
    that of the steps that were taken.

    Args:
        cond: ``carry -> bool``
        body: ``carry -> carry``, of the same types
        init: the carry before the first step, any pytree
        max_steps: no more steps than these; a loop that is cut off there raises the warning
            `Stopped`. Costs no memory
        adjoint: how the past is remembered

    Returns:
        the carry for which ``cond`` is false.
    """
    max_steps = operator.index(max_steps)
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps}: give a positive number of steps")
    if not isinstance(adjoint, Online):
        raise TypeError(f"adjoint={adjoint!r} cannot run a while_loop: give Online(checkpoints=…)")
    # lax.while_loop itself checks the arguments and settles the carry's types
    types = jax.eval_shape(lambda init: lax.while_loop(cond, body, init), init)
    carry, tree = jax.tree.flatten(
        jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), init, types)
    )
    consts: list = []
    goes_on = lifted(lambda c: [cond(jax.tree.unflatten(tree, c))], (carry,), consts)
    advance = lifted(lambda c: jax.tree.leaves(body(jax.tree.unflatten(tree, c))), (carry,), consts)
    step = Step(lambda consts, carry, x: (advance(consts, carry), []))
    sizes = len(consts), len(carry)

    def more(consts, carry):  # in forward mode tangents follow
        return goes_on(consts[: sizes[0]], carry[: sizes[1]])[0]

    loop = _Loop(more, max_steps, adjoint)
    looped = DifferentiableLoop(step, loop.run, loop.forward, loop.backward)
    return jax.tree.unflatten(tree, looped([jnp.asarray(c) for c in consts], carry, [])[0])


class _Kept(NamedTuple):
    """As `diffsim.adjoint.schedule.online.Kept`, traced."""

    blocks: Any  # [slot]
    slots: Any  # [slot]
    count: Any


class _Loop(NamedTuple):
    """One loop's forward and backward sweep."""

    more: Callable
    max_steps: int
    adjoint: Online

    def run(self, step, consts, carry, xs):
        """The loop itself."""
        carry, _ = self._steps(step, consts, carry, 0, self.max_steps)
        self._tell(consts, carry)
        return carry, []

    def _steps(self, step, consts, carry, first, count):
        """Steps from the ``first`` on, ``count`` at most; gives the carry and the next step."""

        def goes_on(loop):
            carry, n = loop
            return (n < jnp.minimum(first + count, self.max_steps)) & self.more(consts, carry)

        return lax.while_loop(
            goes_on, lambda loop: (step(consts, loop[0], [])[0], loop[1] + 1), (carry, first)
        )

    def _tell(self, consts, carry):
        call(_warn, self.max_steps, self.more(consts, carry))

    @property
    def _table(self):
        blocks = -(-self.max_steps // self.adjoint.block)
        return np.array(binomials(blocks, self.adjoint.checkpoints), np.int32)

    def forward(self, step, consts, carry, xs):
        """The loop, choosing states to keep; the state before the last block is kept apart."""
        slots, block = self.adjoint.checkpoints, self.adjoint.block
        table = jnp.asarray(self._table)
        buffer = [jnp.broadcast_to(leaf, (slots, *leaf.shape)) for leaf in carry]
        kept = _Kept(jnp.zeros(slots, jnp.int32), jnp.arange(slots, dtype=jnp.int32), jnp.int32(0))

        def one(loop):
            carry, before, buffer, kept, n = loop
            index = n // block - 1  # the block that has ended
            place = _given_up(kept, index, table)
            keeps = jnp.asarray((index >= 0) & (place < slots), jnp.int32)
            kept = jax.tree.map(
                partial(jnp.where, keeps == 1), _exchanged(kept, index, place), kept
            )
            slot = kept.slots[jnp.maximum(kept.count - 1, 0)]
            buffer = lax.fori_loop(0, keeps, lambda _, b: put(b, before, slot), buffer)
            new, n = self._steps(step, consts, carry, n, block)
            return new, carry, buffer, kept, n

        def goes_on(loop):
            carry, *_, n = loop
            return (n < self.max_steps) & self.more(consts, carry)

        start = carry, carry, buffer, kept, jnp.int32(0)
        carry, before, buffer, kept, n = lax.while_loop(goes_on, one, start)
        self._tell(consts, carry)
        return (carry, []), (before, buffer, kept, n)

    def backward(self, smooth: SmoothStep, consts, xs, kept, carry_bar, ys_bar):
        """The last block, then row by row what lies before it."""
        before, buffer, kept, n = kept
        block, table = self.adjoint.block, jnp.asarray(self._table)
        last = jnp.maximum(n - 1, 0) // block
        consts_bar = smooth.zeros(consts, [])[0]
        bars = self._reverse(smooth, consts, before, (consts_bar, carry_bar), n - last * block)

        def advance(_, carry):
            return lax.fori_loop(0, block, lambda _, c: smooth.step(consts, c, [])[0], carry)

        def reverse(_, carry, bars):
            return self._reverse(smooth, consts, carry, bars, block)

        def one(loop):
            end, buffer, kept, bars = loop
            rank = kept.count - 1
            row = _next_row(kept.blocks[rank], rank, end, self.adjoint.checkpoints, table)
            buffer, bars = play(buffer, bars, row, lambda i: kept.slots[i], advance, reverse)
            start, _, steps, _, reversals = row
            used_up = (reversals > 0) & (steps == 0)
            keeps = reversals == 0
            blocks = kept.blocks.at[jnp.where(keeps, rank + 1, rank)].set(
                jnp.where(keeps, start + steps, start)
            )
            kept = _Kept(blocks, kept.slots, kept.count + keeps - used_up)
            return jnp.where(keeps, end, start + steps), buffer, kept, bars

        *_, bars = lax.while_loop(lambda loop: loop[0] > 0, one, (last, buffer, kept, bars))
        return *bars, []

    def _reverse(self, smooth, consts, carry, bars, count):
        """Replay ``count`` steps of a block, keep their states, and transpose them."""
        states = [jnp.broadcast_to(leaf, (self.adjoint.block, *leaf.shape)) for leaf in carry]

        def replay(i, loop):
            states, carry = loop
            return put(states, carry, i), smooth.step(consts, carry, [])[0]

        states, carry = lax.fori_loop(0, count - 1, replay, (states, carry))
        states = put(states, carry, jnp.maximum(count - 1, 0))

        def pull(i, bars):
            consts_bar, carry_bar = bars
            state = take(states, count - 1 - i)
            more, carry_bar, _ = smooth.pull(consts, state, [], carry_bar, [])
            return [a + b for a, b in zip(consts_bar, more, strict=True)], carry_bar

        return lax.fori_loop(0, count, pull, bars)


@named
def _warn(max_steps, goes_on):
    if goes_on:
        warnings.warn(
            f"the loop was stopped after max_steps={max_steps} while its condition still held: "
            "the result is not what the condition asks for; allow more steps",
            Stopped,
            stacklevel=2,
        )


def _repeats_of(length, slots, table):
    return jnp.sum(table[slots] < length[..., None], axis=-1, dtype=jnp.int32) - 1


def _advances(length, slots, table):
    r = _repeats_of(length, slots, table)
    return r * length - table[slots + 1, r]


def _given_up(kept, block, table):
    slots = len(kept.blocks)
    ends = jnp.concatenate([kept.blocks, jnp.stack([block, block + 1]).astype(jnp.int32)])
    gaps, left = jnp.diff(ends), slots - jnp.arange(slots, dtype=jnp.int32)
    stay = _advances(gaps[:-2], left[:-1], table)
    moved = _advances(gaps[2:], left[1:], table)
    merged = _advances(gaps[:-1] + gaps[1:], left, table)
    none = jnp.zeros(1, jnp.int32)
    before = jnp.concatenate([none, jnp.cumsum(stay, dtype=jnp.int32)])
    after = jnp.concatenate([jnp.cumsum(moved[::-1], dtype=jnp.int32)[::-1], none])
    best = 1 + jnp.argmin(before + merged + after).astype(jnp.int32)
    return jnp.where(kept.count < slots, kept.count, best)


def _exchanged(kept, block, place):
    """Give up the state at ``place`` and keep the one before ``block`` in its slot, as the last."""
    full = len(kept.blocks)
    last = jnp.minimum(kept.count, full - 1)
    rank = jnp.arange(full, dtype=jnp.int32)
    order = jnp.where(rank == last, place, rank + ((rank >= place) & (rank < last)))
    blocks = kept.blocks[order].at[last].set(block)
    return _Kept(blocks, kept.slots[order], last + 1)


def _next_row(start, rank, end, slots, table):
    chain, free = end - start, slots - rank
    r = _repeats_of(chain, free, table)
    left = jnp.minimum(table[free, r], chain - table[free - 1, r])
    left = jnp.where(free == 1, chain - 1, left)
    whole = chain <= free + 1
    left = jnp.where(whole, 0, left)
    right = chain - left
    ends = whole | (right <= free)
    return start, rank, left, jnp.where(ends, right - 1, 0), jnp.where(ends, right, 0)
