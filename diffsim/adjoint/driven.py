"""Checkpointing driven from Python: the same plans, with states outside the device's program.

Python walks the plan's rows, calls a few compiled pieces on concrete arrays and keeps states in a
`diffsim.adjoint.store`. While a block is reversed, the state that is needed next is read; what is
to be written is written behind.

A store on disk lets an interrupted gradient go on: a note every few seconds says how far it is.
"""

import itertools
import logging
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from diffsim.adjoint.loop import DifferentiableLoop
from diffsim.adjoint.pieces import Backward, Forward, digest, like, no_results, plain
from diffsim.adjoint.schedule.plan import Plan
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Leaves
from diffsim.adjoint.store.states import Disk, Host, States, Tiered
from diffsim.adjoint.trail import run

log = logging.getLogger(__name__)
STRETCH = 16  # blocks that the forward sweep advances between two looks at the clock


def loop(step, plan: Plan, store: Host | Disk | Tiered, consts, carry, xs):
    """The loop over ``step``; its gradient keeps states in ``store``, when ``plan`` says."""
    gradient, only_run = _Gradient(plan, store), partial(run, plan.length)
    sweeps = gradient.forward, gradient.backward
    alone = replace(step, in_turn=False)  # with values, not with what traces a batch
    looped = DifferentiableLoop(alone, only_run, *sweeps, plan.length)
    return looped(consts, carry, xs)


class _Left(NamedTuple):
    """What the forward sweep leaves for the reversal."""

    opened: ExitStack  # closes the states
    states: States
    where: dict[str, Any]  # how far an interrupted gradient was; {} if none was
    bars: list[np.ndarray]  # its cotangents
    results: Leaves  # of the loop, as they go into notes
    tail: Leaves  # the states of the last block


class _Gradient:
    """The two halves of a gradient: the first opens the store, the second closes it."""

    def __init__(self, plan: Plan, store: Host | Disk | Tiered):
        self.plan, self.store = plan, store
        self.left: _Left | None = None

    def forward(self, step, consts, carry, xs):
        """The loop, keeping states; goes on where an interrupted one has stopped."""
        self._refuse_traced((consts, carry, xs))
        init, ys = carry, no_results(step, self.plan, consts, carry, xs)
        pieces = Forward.of(step, self.plan, consts, xs, carry, ys)
        times = np.concatenate([self.plan[:3], list(self.plan.keep), *self.plan.columns])
        with ExitStack() as opened:
            problem = digest(pieces.programs, times, consts, carry, xs)
            states = opened.enter_context(self.store.open(problem))
            where, arrays = states.recall()
            first, tail = where.get("block", 0), []
            if where:
                log.info("%r: an interrupted gradient goes on from %s", self.store, where)
                noted = [*carry, *ys]
                restored, arrays = _restored(arrays[: len(noted)], noted), arrays[len(noted) :]
                carry, ys = restored[: len(carry)], restored[len(carry) :]
            if first < self.plan.blocks:
                carry, ys = _sweep(self.plan, pieces, states, first, carry, ys)
                carry, ys, tail = pieces.tail(carry, ys)
            results = [*carry, *ys] if states.durable else []
            self.left = _Left(opened.pop_all(), states, where, arrays, results, tail)
        weakref.finalize(self, self.left.opened.close)  # should there be no reversal
        return (carry, ys), init

    def backward(self, smooth: SmoothStep, consts, xs, carry, carry_bar, ys_bar):
        """The reversal; goes on where an interrupted one has stopped."""
        self._refuse_traced((consts, xs, carry_bar, ys_bar))
        if self.left is None:  # not the first reversal after one forward sweep
            self.forward(smooth.step, consts, carry, xs)
        left, self.left = self.left, None
        assert left is not None
        with left.opened:
            consts_bar, xs_bar = smooth.zeros(consts, xs)
            bars = consts_bar, [jnp.array(bar) for bar in carry_bar], xs_bar  # to be written over
            pieces = Backward.of(smooth, self.plan, consts, xs, ys_bar, bars, carry)
            where = {"block": self.plan.blocks, "what": digest(pieces.programs, carry_bar, ys_bar)}
            moves, done = _moves(self.plan), left.where.get("reversed")
            if done is not None:
                self._refuse_another(left.where["what"], where["what"])
                leaves, tree = jax.tree.flatten(bars)
                bars = jax.tree.unflatten(tree, _restored(left.bars, leaves))
                moves = itertools.dropwhile(_Move("reverse", done).__ne__, moves)
                next(moves)
            else:
                left.states.prefetch_highest()
                bars = pieces.reverse_tail(bars, left.tail, self.plan.blocks - 1)
                left.tail.clear()
            filled = [jnp.broadcast_to(leaf, (self.plan.block, *leaf.shape)) for leaf in carry]
            return _reverse(moves, pieces, left, where, bars, filled, carry)

    def _refuse_traced(self, values):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values)):
            raise TypeError(
                f"{self.store!r} got traced values, but a store other than Device() is driven "
                "from Python and needs concrete arrays: call jax.value_and_grad outside jax.jit, "
                "jax.vmap and other derivatives, or use the strategy without a store"
            )

    def _refuse_another(self, noted, what):
        if noted != what:
            raise FileExistsError(
                f"{self.store!r} holds an interrupted gradient of another function of the same "
                "run: run that to its end, remove the folder, or choose another one"
            )


def _sweep(plan: Plan, pieces: Forward, states: States, first: int, carry, ys):
    """From block ``first`` to the last one, exclusive; keeps what the plan says."""
    last = plan.blocks - 1
    keep = {block for block in plan.keep if block >= first}
    at = first
    for stop in sorted({*range(first, last, STRETCH), *keep, last}):
        if stop > at:
            before = carry
            carry, ys = pieces.sweep(carry, ys, at, stop - at)
            jax.block_until_ready(before)  # no more than one call ahead
            at = stop
        if at in keep and at not in states.blocks:
            states.save(at, [plain(leaf) for leaf in carry])
        if states.durable and (at == last or states.note_is_due):
            states.note({"block": at}, [plain(leaf) for leaf in (*carry, *ys)])
    return carry, ys


class _Move(NamedTuple):
    """One thing to do in a reversal."""

    verb: Literal["load", "advance", "save", "reverse"]
    block: int
    count: int = 1  # blocks


def _moves(plan: Plan) -> Iterator[_Move]:
    """The reversal of all blocks but the last."""
    for row in plan.rows:
        top = row.start + row.advance
        yield _Move("load", row.start)
        if row.advance:
            yield _Move("advance", row.start, row.advance)
        if not row.reverse:
            yield _Move("save", top)
        for block in range(top, top + row.fill):
            yield _Move("save", block)
            yield _Move("advance", block)
        for block in range(top + row.fill, top + row.fill - row.reverse, -1):
            yield _Move("load", block)
            yield _Move("reverse", block)


def _reverse(moves, pieces: Backward, left: _Left, where, bars, filled, init):
    """The moves carried out; the cotangents in the end."""
    states, live, carry = left.states, None, []
    for verb, block, count in moves:
        if verb == "load" and live != block:
            loaded = zip(states.load(block), init, strict=True)
            live, carry = block, [like(array, leaf) for array, leaf in loaded]
        elif verb == "advance":
            live, carry = block + count, pieces.replay(carry, block, count)
        elif verb == "save" and block not in states.blocks:
            states.save(block, [plain(leaf) for leaf in carry])
        elif verb == "reverse":
            states.drop(block)
            states.prefetch_highest()
            jax.block_until_ready(bars)  # no more than one block ahead
            filled = pieces.fill(filled, carry, block)
            bars = pieces.reverse(bars, filled, block)
            live, carry = None, []
            if states.note_is_due:
                noted = [*left.results, *jax.tree.leaves(bars)]
                states.note(where | {"reversed": block}, [plain(leaf) for leaf in noted])
    return bars


def _restored(arrays: list[np.ndarray], leaves: Leaves) -> Leaves:
    """Noted arrays as the leaves that they were, copied: some are written over."""
    return [like(jnp.array(array), leaf) for array, leaf in zip(arrays, leaves, strict=True)]
