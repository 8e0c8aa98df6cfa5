"""A loop's gradient on trial: few steps of it, compiled and timed, to foretell many.

A strategy's program has the same parts for any number of steps, so what XLA plans to allocate for a
short one and how long it takes say what a long one will: all that is missing are more kept states,
inputs and results, whose sizes are known.
"""

import hashlib
import time
import warnings
from collections.abc import Callable
from math import inf, nan
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.interpreters import partial_eval

from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Leaves, Split, Step
from diffsim.adjoint.trail import advance, run
from diffsim.linear import inexact

ROUNDS, PATIENCE = 5, 0.5  # a program is timed so often, or until so many seconds have passed
KNOWN = 256  # results that a process remembers


class Loop(NamedTuple):
    """A loop to be differentiated: what `Adjoint.loop` takes, and which arrays are moved."""

    step: Step
    consts: Leaves
    carry: Leaves
    xs: Leaves  # [length, ...]
    length: int
    moves: tuple[bool, ...]  # of consts, carry and xs, one after the other

    def shortened(self, length: int) -> "Loop":
        """The same loop over fewer steps, as shapes alone."""
        shapes = jax.ShapeDtypeStruct
        xs = [shapes((length, *x.shape[1:]), x.dtype) for x in self.xs]
        consts, carry = ([shapes(v.shape, v.dtype) for v in part] for part in self[1:3])
        return self._replace(consts=consts, carry=carry, xs=xs, length=length)

    @property
    def results(self) -> tuple[Leaves, Leaves]:
        """Shapes of the last carry and of what each step gave, ``[length, ...]``."""
        return jax.eval_shape(lambda *args: run(self.length, self.step, *args), *self[1:4])

    @property
    def calls_host(self) -> bool:
        """Whether a step does: it would be heard on trial, and may not bear made-up values."""
        short = self.shortened(1)
        program = jax.jit(lambda *args: run(1, self.step, *args))
        return "callback" in program.lower(*short[1:4]).as_text()

    def kept(self, block: int) -> int:
        """bytes, what is kept while a block of steps is reversed: of such as can be retraced what
        the way back needs."""
        return block * size(self.replayed) if self.step.retrace is None else self.walked(block)

    def walked(self, length: int) -> int:
        """bytes, what a walk back over so many steps needs besides whole states."""
        step: Any = self.step
        slices = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in self.xs]
        each = jax.eval_shape(step.keeping, self.consts, self.carry, slices)[2]
        room = lambda consts, carry: step.restarts(consts).room(carry, length)  # noqa: E731
        return length * size(each) + size(jax.eval_shape(room, self.consts, self.carry))

    @property
    def exposure(self) -> Leaves:
        """What one step shows to its images."""
        blind: Any = self.step.blind
        room = lambda consts, carry: jax.tree.leaves(blind(consts).exposures(carry, 1))  # noqa: E731
        return jax.eval_shape(room, self.consts, self.carry)

    @property
    def replayed(self) -> Leaves:
        """The leaves of the carry that the transpose of a step needs: XLA keeps no others of them
        while a block is reversed."""
        consts, carry, xs = (Split.by_type(part) for part in self[1:4])
        ys = self.results[1]
        smooth = SmoothStep(self.step, consts, carry, xs, Split.by_type(ys))
        slices = [
            [jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in part] for part in (self.xs, ys)
        ]
        bars = carry.of(self.carry), smooth.ys.of(slices[1])
        jaxpr = jax.make_jaxpr(lambda carry, *others: smooth.pull(others[0], carry, *others[1:]))(
            self.carry, self.consts, slices[0], *bars
        ).jaxpr
        _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return [leaf for leaf, yes in zip(self.carry, used, strict=False) if yes]


class Trial(NamedTuple):
    """What a program takes."""

    bytes: int  # arguments, results and temporaries
    seconds: float  # nan if it must not be run


_known: dict[str, Trial] = {}


def size(leaves: Leaves) -> int:
    """bytes"""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def forward(loop: Loop, length: int, block: int) -> Trial:
    """The run alone, keeping the state before each block of steps."""
    count, short = length // block, loop.shortened(length)

    def program(consts, carry, xs):
        def one(carry, xs):
            new, (_, y) = advance(loop.step, consts, carry, xs, block)
            return new, (carry, y)

        return lax.scan(one, carry, [x.reshape(count, block, *x.shape[1:]) for x in xs], count)

    return _tried(program, short[1:4], loop)


def gradient(loop: Loop, adjoint: Adjoint, length: int) -> Trial:
    """The run and its transpose by a strategy.

    What was seen of each step is a result, and its cotangent an argument; of the last carry a loss
    takes a number here.
    """
    short, moving = loop.shortened(length), Split(loop.moves)
    cuts = len(loop.consts), len(loop.consts) + len(loop.carry)

    def program(consts, carry, xs, ys_bar):
        def loss(*moved):
            args = moving.join(moved, rest)
            parts = args[: cuts[0]], args[cuts[0] : cuts[1]], args[cuts[1] :]
            new, ys = adjoint.loop(loop.step, *parts, length)
            return sum(jnp.sum(leaf) for leaf in new if inexact(leaf)), list(filter(inexact, ys))

        args = [*consts, *carry, *xs]
        rest = moving.rest(args)
        (value, ys), transpose = jax.vjp(loss, *moving.of(args))
        return value, ys, transpose((jnp.ones_like(value), ys_bar))

    ys_bar = list(filter(inexact, short.results[1]))
    return _tried(program, (*short[1:4], ys_bar), loop)


def planned_bytes(compiled: jax.stages.Compiled) -> int:
    """What XLA plans for a program's arguments, results and temporaries; 0 if it does not say."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return arguments + results + memory.temp_size_in_bytes


def _tried(program: Callable, shapes: tuple, loop: Loop) -> Trial:
    lowered = jax.jit(program).lower(*shapes)
    text = lowered.as_text()
    key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if key not in _known:
        if len(_known) == KNOWN:
            del _known[next(iter(_known))]
        compiled = lowered.compile()
        seconds = nan if loop.calls_host else _seconds(compiled, _values(shapes, loop))
        _known[key] = Trial(planned_bytes(compiled), seconds)
    return _known[key]


def _values(shapes: tuple, loop: Loop) -> tuple:
    """The loop's own first values if they are known by now, ones (or zeros of integers) if not."""
    leaves, tree = jax.tree.flatten(shapes)
    made = jax.jit(lambda: [_filled(leaf) for leaf in leaves]).lower().compile()()
    own = [*loop.consts, *loop.carry, *loop.xs]
    if not any(isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct) for leaf in own):
        with jax.ensure_compile_time_eval():
            steps = len(loop.consts) + len(loop.carry)
            cut = [
                leaf[: like.shape[0]] for leaf, like in zip(loop.xs, leaves[steps:], strict=False)
            ]
            made[: len(own)] = [*own[:steps], *cut]
    return jax.tree.unflatten(tree, made)


def _filled(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return lax.full(leaf.shape, 0, leaf.dtype)
    return jnp.full(leaf.shape, inexact(leaf), leaf.dtype)


def _seconds(program: Callable, args: tuple) -> float:
    """The least of a few runs; the first one does not count. Made-up values are no one's worry."""
    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.simplefilter("ignore")
        best = _least_seconds(program, args)
        jax.effects_barrier()
    return best


def _least_seconds(program: Callable, args: tuple) -> float:
    jax.block_until_ready(program(*args))
    best, start = inf, time.perf_counter()
    for _ in range(ROUNDS):
        before = time.perf_counter()
        jax.block_until_ready(program(*args))
        after = time.perf_counter()
        best = min(best, after - before)
        if after - start > PATIENCE:
            break
    return best
