"""Binomial and periodic checkpointing inside one XLA program.

A plan of integer rows (`diffsim.adjoint.schedule`) drives one ``lax.scan`` whose body loads a
state, advances it, keeps states and reverses blocks. A zero-trip loop is its only "if": a
``cond`` around the slot buffer would copy the whole buffer. The step is traced once and stands a
fixed number of times in the program, so compile time does not depend on the number of steps.

Kept between the forward and the backward pass: the slots, the states of the last block, the
parameters and the inputs. Recomputation drops what was observed (dead code).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Gt
from jax import lax
from jax.custom_derivatives import SymbolicZero

from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.schedule import Plan, binomial, periodic
from diffsim.solver import frozen

Count = Annotated[int, Gt(0)]
UNROLL = 2  # an even number of steps a body lets a two-level scheme swap its buffers in place


class Checkpointed(Adjoint):
    """A strategy that keeps whole states, as a plan says, and recomputes the rest."""

    @abstractmethod
    def plan(self, length: int) -> Plan:
        """When to keep what, for a run of ``length`` steps."""

    def loop(self, step, consts, carry, xs, length):
        return _loop(step, self.plan(length), consts, carry, xs)

    def states(self, length):
        plan = self.plan(length)
        return plan.slots + plan.block + plan.tail

    def evaluations(self, length):
        plan = self.plan(length)
        return plan.evaluations * plan.block - (plan.block - plan.tail)


@frozen
class Revolve(Checkpointed):
    """Binomial checkpointing: the fewest evaluations that so many checkpoints allow.

    Memory: ``checkpoints + 2 block`` states. Evaluations in blocks: ``t(l, s) + l`` with
    ``t(l, s) = r l - C(s + r, s + 1)``, ``C(s + r, s) >= l`` (Griewank & Walther 2000).

    Args:
        checkpoints: states kept over the run; about √(2 n / block) recompute each step once
            more than ``Periodic`` would, with far less memory; more never hurts but for memory
        block: steps between two places where a state may be kept; the states inside one block are
            replayed and kept while it is reversed. Even, so that two time levels swap in place
    """

    checkpoints: Count  # states
    block: Count = 8  # steps

    def plan(self, length):
        return binomial(length, self.block, self.checkpoints)


@frozen
class Periodic(Checkpointed):
    """Keep every ``every``-th state and replay each stretch between two of them once.

    Memory: ``n / every + 2 every`` states, least at ``every = √(n/2)``; two evaluations a step.
    """

    every: Count  # steps

    def plan(self, length):
        return periodic(length, self.every)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Split:
    """Leaves that are differentiated apart from the others (integers, keys, plain constants)."""

    smooth: tuple[bool, ...]

    def parts(self, leaves):
        """The differentiated leaves and the others."""
        pairs = list(zip(self.smooth, leaves, strict=True))
        return [leaf for yes, leaf in pairs if yes], [leaf for yes, leaf in pairs if not yes]

    def join(self, smooth, rest):
        smooth, rest = iter(smooth), iter(rest)
        return [next(smooth) if is_smooth else next(rest) for is_smooth in self.smooth]

    def spread(self, smooth):
        """The differentiated leaves in their places among all, None in the others."""
        return self.join(smooth, [None] * (len(self.smooth) - len(smooth)))


def _take(leaves, index):
    return [lax.dynamic_index_in_dim(leaf, index, keepdims=False) for leaf in leaves]


def _put(leaves, values, index):
    pairs = zip(leaves, values, strict=True)
    return [lax.dynamic_update_index_in_dim(leaf, value, index, 0) for leaf, value in pairs]


def _take_block(leaves, start, size):
    return [lax.dynamic_slice_in_dim(leaf, start, size) for leaf in leaves]


def _put_block(leaves, values, start):
    pairs = zip(leaves, values, strict=True)
    return [lax.dynamic_update_slice_in_dim(leaf, value, start, 0) for leaf, value in pairs]


def _loop(step, plan: Plan, consts, carry, xs):
    @jax.custom_vjp
    def run(consts, carry, xs):
        return lax.scan(lambda c, x: step(consts, c, x), carry, xs, plan.length, unroll=UNROLL)

    def forward(*args):
        consts, carry, xs = jax.tree.map(lambda leaf: leaf.value, args, is_leaf=_is_primal)
        out, kept = _forward(step, plan, consts, carry, xs)
        marks = jax.tree.map(lambda leaf: leaf.perturbed, args, is_leaf=_is_primal)
        marks[1][:] = [True] * len(carry)  # a parameter's derivative makes all of the carry's
        splits = tuple(
            _Split(tuple(mark and _has_derivative(leaf) for mark, leaf in zip(*pair, strict=True)))
            for pair in zip(marks, (consts, carry, xs), strict=True)
        )
        return out, (splits, consts, xs, kept)

    def backward(residuals, out_bar):
        splits, consts, xs, kept = residuals
        carry_bar, ys_bar = out_bar
        carry_bar, _ = splits[1].parts([_instantiate(bar) for bar in carry_bar])
        split_ys = _Split(tuple(not isinstance(bar, SymbolicZero) for bar in ys_bar))
        smooth_ys_bar, _ = split_ys.parts(ys_bar)
        bars = _backward(
            step, plan, (*splits, split_ys), consts, xs, kept, carry_bar, smooth_ys_bar
        )
        return tuple(split.spread(bar) for split, bar in zip(splits, bars, strict=True))

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(consts, carry, xs)


def _is_primal(leaf):
    return hasattr(leaf, "perturbed")


def _has_derivative(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _instantiate(bar):
    if isinstance(bar, SymbolicZero):
        return jnp.zeros(bar.shape, bar.dtype)  # pyright: ignore[reportArgumentType]
    return bar


def _advance(step, consts, carry, xs, size, keep_states=False):
    """``size`` steps; gives the last carry and, on wish, the carry before each step."""

    def body(carry, x):
        new, y = step(consts, carry, x)
        return new, (carry if keep_states else None, y)

    return lax.scan(body, carry, xs, size, unroll=UNROLL)


def _forward(step, plan: Plan, consts, carry, xs):
    """All steps once; keeps the slots and the states of the last block."""
    last = plan.blocks - 1
    slots = [jnp.broadcast_to(leaf, (plan.slots, *leaf.shape)) for leaf in carry]
    _, ys_type = jax.eval_shape(lambda c, x: step(consts, c, x), carry, [x[0] for x in xs])
    ys = [jnp.zeros((plan.length, *y.shape), y.dtype) for y in ys_type]

    def block(loop, row):
        carry, slots, ys = loop
        index, keep, slot = row
        slots = lax.fori_loop(0, keep, lambda _, slots: _put(slots, carry, slot), slots)
        start = index * plan.block
        carry, (_, y) = _advance(
            step, consts, carry, _take_block(xs, start, plan.block), plan.block
        )
        return (carry, slots, _put_block(ys, y, start)), None

    indices = jnp.arange(last)
    keep = jnp.array([i in plan.keep for i in range(last)], int)
    slot = jnp.array([plan.keep.get(i, 0) for i in range(last)], int)
    (carry, slots, ys), _ = lax.scan(block, (carry, slots, ys), (indices, keep, slot))
    start = last * plan.block
    tail_xs = _take_block(xs, start, plan.tail)
    carry, (states, y) = _advance(step, consts, carry, tail_xs, plan.tail, keep_states=True)
    return (carry, _put_block(ys, y, start)), (slots, states)


def _backward(step, plan: Plan, splits, consts, xs, kept, carry_bar, ys_bar):
    """The reversal; cotangents of the differentiated parts of consts, carry and xs."""
    *split_inputs, split_ys = splits
    split_consts, split_carry, split_xs = split_inputs
    slots, tail_states = kept

    def pull(bars, inputs):
        """One step's transpose."""
        carry_bar, consts_bar = bars
        carry, x, y_bar = inputs
        parts = [s.parts(v) for s, v in zip(split_inputs, (consts, carry, x), strict=True)]

        def smooth_step(*smooth):
            rests = (rest for _, rest in parts)
            joined = [s.join(*v) for s, *v in zip(split_inputs, smooth, rests, strict=True)]
            carry, y = step(*joined)
            return split_carry.parts(carry)[0], split_ys.parts(y)[0]

        _, transpose = jax.vjp(smooth_step, *(smooth for smooth, _ in parts))
        more, carry_bar, x_bar = transpose((carry_bar, y_bar))
        return (carry_bar, [a + b for a, b in zip(consts_bar, more, strict=True)]), x_bar

    def reverse(bars, states, start, size):
        """The transposes of ``size`` steps, from the states before each."""
        carry_bar, consts_bar, xs_bar = bars
        inputs = states, _take_block(xs, start, size), _take_block(ys_bar, start, size)
        (carry_bar, consts_bar), x_bar = lax.scan(
            pull, (carry_bar, consts_bar), inputs, size, reverse=True, unroll=UNROLL
        )
        return carry_bar, consts_bar, _put_block(xs_bar, x_bar, start)

    def advance(index, carry, keep_states=False):
        block_xs = _take_block(xs, index * plan.block, plan.block)
        return _advance(step, consts, carry, block_xs, plan.block, keep_states)

    def row(loop, row):
        slots, bars = loop
        start, slot, base, steps, keep, fill, reversals = row
        carry = lax.fori_loop(0, steps, lambda i, c: advance(start + i, c)[0], _take(slots, slot))
        slots = lax.fori_loop(0, keep, lambda _, slots: _put(slots, carry, base), slots)
        start = start + steps

        def fill_one(i, loop):
            slots, carry = loop
            return _put(slots, carry, base + i), advance(start + i, carry)[0]

        def reverse_one(i, loop):
            carry, bars = loop
            index = start + fill - i
            _, (states, _) = advance(index, carry, keep_states=True)
            bars = reverse(bars, states, index * plan.block, plan.block)
            return _take(slots, base + fill - 1 - i), bars

        slots, carry = lax.fori_loop(0, fill, fill_one, (slots, carry))
        _, bars = lax.fori_loop(0, reversals, reverse_one, (carry, bars))
        return (slots, bars), None

    zeros = [
        [jnp.zeros_like(leaf) for leaf in split.parts(leaves)[0]]
        for split, leaves in ((split_consts, consts), (split_xs, xs))
    ]
    bars = reverse((carry_bar, *zeros), tail_states, (plan.blocks - 1) * plan.block, plan.tail)
    if plan.rows:
        table = [
            (r.start, r.slot, r.base, r.advance, r.reverse == 0, r.fill, r.reverse)
            for r in plan.rows
        ]
        columns = tuple(jnp.array(column, int) for column in zip(*table, strict=True))
        (_, bars), _ = lax.scan(row, (slots, bars), columns)
    carry_bar, consts_bar, xs_bar = bars
    return consts_bar, carry_bar, xs_bar
