"""The compiled pieces of a gradient that Python drives.

A piece takes the number of a block as an argument, so it is compiled once for any number of blocks,
and once for all gradients of a process that have the same program.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffsim.adjoint.schedule.plan import Plan
from diffsim.adjoint.slices import put, put_block, take_block
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Leaves
from diffsim.adjoint.trail import advance, reverse_trail

KNOWN = 32  # programs that a process remembers
_known: dict[str, Callable] = {}


class Forward(NamedTuple):
    """The pieces of a forward sweep; ``ys`` is written over."""

    sweep: Callable  # carry, ys, start, count -> carry, ys; so many blocks
    tail: Callable  # carry, ys -> carry, ys, states; the last block and all its states
    programs: str  # a digest of both

    @classmethod
    def of(cls, step, plan: Plan, consts, xs, carry, ys) -> "Forward":
        """The pieces for one problem."""

        def sweep(consts, xs, carry, ys, start, count):
            def block(i, loop):
                carry, ys = loop
                at = (start + i) * plan.block
                block_xs = take_block(xs, at, plan.block)
                carry, (_, y) = advance(step, consts, carry, block_xs, plan.block)
                return carry, put_block(ys, y, at)

            return lax.fori_loop(0, count, block, (carry, ys))

        def tail(consts, xs, carry, ys):
            at = (plan.blocks - 1) * plan.block
            tail_xs = take_block(xs, at, plan.tail)
            carry, (states, y) = advance(step, consts, carry, tail_xs, plan.tail, keep_states=True)
            return carry, put_block(ys, y, at), states

        sweep_program, sweep = _compiled(sweep, consts, xs, carry, ys, 0, 1, donate=3)
        tail_program, tail = _compiled(tail, consts, xs, carry, ys, donate=3)
        bound = partial(sweep, consts, xs), partial(tail, consts, xs)
        return cls(*bound, sweep_program + tail_program)


class Backward(NamedTuple):
    """The pieces of a reversal; ``bars`` (of consts, carry and xs) are written over.

    ``fill`` writes over the states of another block: page faults of fresh memory for them would
    take a fifth of the time of a gradient.
    """

    replay: Callable  # carry, start, count -> carry; so many blocks
    fill: Callable  # states, carry, index -> states; those of a block, from its first one
    reverse: Callable  # bars, states, index -> bars; one block
    reverse_tail: Callable  # the same for the last block
    programs: str  # a digest of all

    @classmethod
    def of(cls, smooth: SmoothStep, plan: Plan, consts, xs, ys_bar, bars, carry) -> "Backward":
        """The pieces for one problem."""

        def replay(consts, xs, carry, start, count):
            def block(i, carry):
                block_xs = take_block(xs, (start + i) * plan.block, plan.block)
                return advance(smooth.step, consts, carry, block_xs, plan.block)[0]

            return lax.fori_loop(0, count, block, carry)

        def fill(consts, xs, states, carry, index):
            def one(loop, inputs):
                states, carry = loop
                i, x = inputs
                return (put(states, carry, i), smooth.step(consts, carry, x)[0]), None

            block_xs = take_block(xs, index * plan.block, plan.block)
            inputs = jnp.arange(plan.block), block_xs
            return lax.scan(one, (states, carry), inputs, unroll=smooth.step.unroll)[0][0]

        def reverse(size, consts, xs, ys_bar, bars, states, index):
            start = index * plan.block
            return reverse_trail(smooth, consts, xs, ys_bar, bars, states, start, size)

        def states(size):
            return [jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype) for leaf in carry]

        given = consts, xs, ys_bar
        replays, replay = _compiled(replay, consts, xs, carry, 0, 1)
        fills, fill = _compiled(fill, consts, xs, states(plan.block), carry, 0, donate=2)
        (whole, reverse), (short, reverse_tail) = (
            _compiled(partial(reverse, size), *given, bars, states(size), 0, donate=3)
            for size in (plan.block, plan.tail)
        )
        return cls(
            partial(replay, consts, xs),
            partial(fill, consts, xs),
            partial(reverse, *given),
            partial(reverse_tail, *given),
            replays + fills + whole + short,
        )


def _compiled(function, *args, donate=()) -> tuple[str, Callable]:
    """A digest of the program for such arguments, and what runs it."""
    compiled = jax.jit(function, donate_argnums=donate)
    lowered = compiled.lower(*args)
    text = f"{lowered.in_tree} {lowered.as_text()}"
    program = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if "callback" in text:  # does not say what is called
        return program, compiled
    if program not in _known and len(_known) == KNOWN:
        del _known[next(iter(_known))]
    return program, _known.setdefault(program, compiled)


def no_results(step, plan: Plan, consts, carry, xs) -> Leaves:
    """Where what is seen at each step goes."""
    _, ys = jax.eval_shape(lambda c, x: step(consts, c, x), carry, [x[0] for x in xs])
    shapes = [jax.ShapeDtypeStruct((plan.length, *y.shape), y.dtype) for y in ys]
    return [jnp.zeros_like(y) for y in shapes]


def digest(text: str, *values: Any) -> str:
    """A fingerprint of a text, of arrays, and of the versions that work on them."""
    total = hashlib.blake2b(digest_size=16)
    total.update(f"{text} {jax.__version__} {version('jaxlib')}".encode())
    for leaf in jax.tree.leaves(values):
        array = np.asarray(plain(leaf))
        total.update(f"{array.dtype} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def plain(leaf: Any) -> Any:
    """A leaf without JAX's own types: the bits of a random key."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def like(array: np.ndarray | jax.Array, leaf: jax.Array) -> jax.Array:
    """A plain array as the leaf that it once was: of its type, on its devices."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jax.device_put(array, leaf.sharding if leaf.committed else None)


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
