"""The compiled pieces of a gradient that Python drives.

A piece takes the number of a block as an argument, so it is compiled once for any number of blocks,
and once for all gradients of a process that have the same program.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax

from diffsim.adjoint.schedule import Plan
from diffsim.adjoint.steps import Leaves, SmoothStep, advance, put_block, take_block

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
    """The pieces of a reversal; ``bars`` (of consts, carry and xs) are written over."""

    replay: Callable  # carry, start, count -> carry; so many blocks
    reverse: Callable  # bars, carry, index -> bars; one block, from the state before it
    reverse_tail: Callable  # bars, states -> bars; the last block
    programs: str  # a digest of all

    @classmethod
    def of(cls, smooth: SmoothStep, plan: Plan, consts, xs, ys_bar, bars, carry) -> "Backward":
        """The pieces for one problem."""

        def block(consts, xs, carry, index, keep_states=False):
            block_xs = take_block(xs, index * plan.block, plan.block)
            return advance(smooth.step, consts, carry, block_xs, plan.block, keep_states)

        def replay(consts, xs, carry, start, count):
            return lax.fori_loop(0, count, lambda i, c: block(consts, xs, c, start + i)[0], carry)

        def reverse(consts, xs, ys_bar, bars, carry, index):
            _, (states, _) = block(consts, xs, carry, index, keep_states=True)
            at = index * plan.block
            return smooth.reverse(consts, xs, ys_bar, bars, states, at, plan.block)

        def reverse_tail(consts, xs, ys_bar, bars, states):
            at = (plan.blocks - 1) * plan.block
            return smooth.reverse(consts, xs, ys_bar, bars, states, at, plan.tail)

        states = [jax.ShapeDtypeStruct((plan.tail, *leaf.shape), leaf.dtype) for leaf in carry]
        given = consts, xs, ys_bar
        replay_program, replay = _compiled(replay, consts, xs, carry, 0, 1)
        program, reverse = _compiled(reverse, *given, bars, carry, 0, donate=3)
        tail_program, reverse_tail = _compiled(reverse_tail, *given, bars, states, donate=3)
        bound = partial(reverse, *given), partial(reverse_tail, *given)
        programs = replay_program + program + tail_program
        return cls(partial(replay, consts, xs), *bound, programs)


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
    return [jnp.zeros((plan.length, *y.shape), y.dtype) for y in ys]


def digest(text: str, *values: Any) -> str:
    """A fingerprint of a text, of arrays, and of the versions that work on them."""
    total = hashlib.blake2b(digest_size=16)
    total.update(f"{text} {jax.__version__} {jaxlib.__version__}".encode())
    for leaf in jax.tree.leaves(values):
        array = np.asarray(plain(leaf))
        total.update(f"{array.dtype} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return total.hexdigest()


def plain(leaf: Any) -> Any:
    """A leaf without JAX's own types: the bits of a random key."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def like(array: np.ndarray | jax.Array, leaf: jax.Array) -> jax.Array:
    """A plain array as the leaf that it once was: of its type, on its devices."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
    return jax.device_put(array, leaf.sharding if leaf.committed else None)


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
