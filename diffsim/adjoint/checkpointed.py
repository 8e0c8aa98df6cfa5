"""Binomial and periodic checkpointing inside one XLA program.

A plan of integer rows (`diffsim.adjoint.schedule.plan`) drives one ``lax.scan`` whose body loads a
state, advances it, keeps states and reverses blocks. A zero-trip loop is its only "if": a
``cond`` around the slot buffer would copy the whole buffer. The step is traced once and stands a
fixed number of times in the program, so compile time does not depend on the number of steps.

Kept between the forward and the backward pass: the slots, the states of the last block, the
parameters and the inputs. Recomputation drops what was observed (dead code).
"""

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from annotated_types import Gt
from jax import lax

from diffsim.adjoint import driven
from diffsim.adjoint.loop import DifferentiableLoop
from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.schedule.plan import Plan, binomial, periodic
from diffsim.adjoint.slices import in_turn, put, put_block, take, take_block
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.store.states import Device, Store
from diffsim.adjoint.trail import advance, keep_trail, reverse_trail, run
from diffsim.solver import frozen

Count = Annotated[int, Gt(0)]
BLOCK, WALKED = 8, 128  # steps in a block that keeps its states, and in one that is walked back


class Checkpointed(Adjoint):
    """A strategy that keeps whole states, as a plan says, and recomputes the rest."""

    store: Store
    walk: bool | None

    @property
    def compiles(self):
        return isinstance(self.store, Device)

    @abstractmethod
    def plan(self, length: int) -> Plan:
        """When to keep what, for a run of ``length`` steps."""

    def suited(self, walks, every=1):
        if self.walk and not (walks and self.compiles):
            raise TypeError(
                f"{self!r} cannot walk this step back: give simulate a RetracingSolver and keep "
                "states on the device, or leave walk out"
            )
        walk = walks and self.compiles if self.walk is None else self.walk
        return replace(self, walk=walk)  # pyright: ignore[reportArgumentType]

    def loop(self, step, consts, carry, xs, length):
        suited = self.suited(step.retrace is not None)
        plan = suited.plan(length)
        if not isinstance(self.store, Device):
            return driven.loop(step, plan, self.store, consts, carry, xs)
        step = step if suited.walk else step.replayed()
        forward, backward = partial(_forward, plan), partial(_backward, plan)
        loop = DifferentiableLoop(step, partial(run, length), forward, backward, length)
        return loop(consts, carry, xs)

    def states(self, length):
        plan = self.plan(length)
        return plan.slots + (2 if self.walk else plan.block + plan.tail)

    def evaluations(self, length):
        plan = self.plan(length)
        return plan.evaluations * plan.block - (plan.block - plan.tail)


@frozen
class Revolve(Checkpointed):
    """Binomial checkpointing: the fewest evaluations that so many checkpoints allow.

    Memory: ``checkpoints + 2 block`` states, or ``checkpoints + 2`` and what lies on absorbing
    layers now and then (`Reversible`) where steps are walked back. Evaluations in blocks:
    ``t(l, s) + l`` with ``t(l, s) = r l - C(s + r, s + 1)``, ``C(s + r, s) >= l`` (Griewank &
    Walther 2000).

    Args:
        checkpoints: states kept over the run; about √(2 n / block) recompute each step once
            more than ``Periodic`` would, with far less memory; more never hurts but for memory
        block: steps between two places where a state may be kept. Even, so that two time levels
            swap in place. If absent 8, or 128 where steps are walked back, and as many
            times fewer as `simulate` takes at once, from one observation to the next
        store: where; any other than `Device` is driven from Python, outside ``jax.jit``
        walk: whether the steps of a block are walked back while it is reversed, as a `Wave`'s can
            be, or replayed with all of their states kept. Walked if absent and possible: a block
            then keeps little of each step, so it may be longer and fewer are evaluated twice. Not,
            if a gradient in float32 is to be rounded no more than by ``StoreAll()``

    Raises:
        TypeError: if steps shall be walked back that cannot be
    """

    checkpoints: Count  # states
    block: Count | None = None  # steps
    store: Store = Device()
    walk: bool | None = None

    def suited(self, walks, every=1):
        suited = super().suited(walks)
        longest = WALKED if suited.walk else BLOCK
        return replace(suited, block=self.block or max(1, longest // every))

    def plan(self, length):
        return binomial(length, self.block or BLOCK, self.checkpoints)


@frozen
class Periodic(Checkpointed):
    """Keep every ``every``-th state and replay each stretch between two of them once.

    Memory: ``n / every + 2 every`` states, least at ``every = √(n/2)``; two evaluations a step.

    Args:
        every: steps in a stretch
        store: where; any other than `Device` is driven from Python, outside ``jax.jit``
        walk: whether the steps of a stretch are walked back, as by `Revolve`

    Raises:
        TypeError: if steps shall be walked back that cannot be
    """

    every: Count  # steps
    store: Store = Device()
    walk: bool | None = None

    def plan(self, length):
        return periodic(length, self.every)


def _forward(plan: Plan, step, consts, carry, xs):
    """All steps once; keeps the slots and the states of the last block."""
    last = plan.blocks - 1
    slots = [jnp.broadcast_to(leaf, (plan.slots, *leaf.shape)) for leaf in carry]
    _, ys_type = jax.eval_shape(partial(run, plan.length, step), consts, carry, xs)
    ys = [jnp.zeros_like(y) for y in ys_type]  # sharded as lax.scan would

    def block(loop, row):
        carry, slots, ys = loop
        index, keep, slot = row
        slots, carry = _keep(slots, carry, slot, keep)
        start = index * plan.block
        carry, (_, y) = advance(step, consts, carry, take_block(xs, start, plan.block), plan.block)
        return (carry, slots, put_block(ys, y, start)), None

    indices = jnp.arange(last)
    keep = jnp.array([i in plan.keep for i in range(last)], int)
    slot = jnp.array([plan.keep.get(i, 0) for i in range(last)], int)
    (carry, slots, ys), _ = lax.scan(block, (carry, slots, ys), (indices, keep, slot))
    start = last * plan.block
    tail_xs = take_block(xs, start, plan.tail)
    carry, (trail, y) = keep_trail(step, consts, carry, tail_xs, plan.tail)
    return (carry, put_block(ys, y, start)), (slots, trail)


def _backward(plan: Plan, smooth: SmoothStep, consts, xs, kept, carry_bar, ys_bar):
    """The reversal, row by row."""
    slots, tail = kept

    def reverse(bars, trail, index, size):
        start = index * plan.block
        return reverse_trail(smooth, consts, xs, ys_bar, bars, trail, start, size, scale)

    def replay(index, carry, advance=advance):
        block_xs = take_block(xs, index * plan.block, plan.block)
        return advance(smooth.step, consts, carry, block_xs, plan.block)

    def one(index, carry, bars):
        _, (trail, _) = replay(index, carry, keep_trail)
        return reverse(bars, trail, index, plan.block)

    def row(loop, row):
        slots, bars = loop
        return play(slots, bars, row, lambda slot: slot, lambda i, c: replay(i, c)[0], one), None

    scale, carry_bar = smooth.scaled(consts, carry_bar)
    consts_bar, xs_bar = smooth.zeros(consts, xs)
    bars = reverse((consts_bar, carry_bar, xs_bar), tail, plan.blocks - 1, plan.tail)
    if plan.columns.start:
        rows = tuple(jnp.array(column, int) for column in plan.columns)
        (_, bars), _ = lax.scan(row, (slots, bars), rows)
    *bars, xs_bar = bars
    return *smooth.unscaled(consts, scale, *bars), xs_bar


def play(slots, bars, row, place, advance, reverse):
    """One macro-action of a reversal, as `diffsim.adjoint.schedule.plan.Row` describes it.

    Args:
        slots: the kept states
        bars: the cotangents so far
        row: start, slot, advance, fill, reverse; integers that may be traced
        place: where in ``slots`` the row's n-th slot is
        advance: ``(block, carry) -> carry``, one block
        reverse: ``(block, carry, bars) -> bars``, its transpose, given the carry before it

    Returns:
        ``(slots, bars)``.
    """
    start, slot, steps, fill, reversals = row
    base, keep = slot + (steps > 0), jnp.asarray(reversals == 0, int)
    carry = _load(slots, place(slot))
    carry = lax.fori_loop(0, steps, lambda i, c: advance(start + i, c), carry)
    slots, carry = _keep(slots, carry, place(base), keep)
    start = start + steps

    def fill_one(i, loop):
        slots, carry = loop
        slots, carry = _keep(slots, carry, place(base + i))
        return slots, advance(start + i, carry)

    def reverse_one(i, loop):
        carry, bars = loop
        bars = reverse(start + fill - i, carry, bars)
        # or the state loaded would be put aside until nobody reads that before, and copied twice
        bars, at = in_turn(bars, place(base + fill - 1 - i))
        return _load(slots, at), bars

    slots, carry = lax.fori_loop(0, fill, fill_one, (slots, carry))
    _, bars = lax.fori_loop(0, reversals, reverse_one, (carry, bars))
    return slots, bars


def _keep(slots, carry, place, times: Any = 1):
    """The slots with a carry, ``times`` 0 or 1, and the carry that steps go on with: they write
    over it, after it is read here."""
    slots = lax.fori_loop(0, times, lambda _, slots: put(slots, carry, place), slots)
    return in_turn(slots, carry)


def _load(slots, place):
    """A kept state, read once: what steps hand through XLA (jaxlib to 0.10.0) would read a second
    time after its slots are written over, and copy them all for it."""
    return lax.optimization_barrier(take(slots, place))
