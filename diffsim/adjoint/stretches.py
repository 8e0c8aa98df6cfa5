"""A run in stretches of equal size, whose steps put what they find where it belongs."""

import jax
import jax.numpy as jnp
from jax import lax

from diffsim.adjoint.restarts import NO_RESTARTS
from diffsim.adjoint.slices import in_turn, put, take


def stretches(length, size):
    """Steps in a stretch and where such begin: the odd ones at the start of a run, the others."""
    odd = length % size
    whole = size, list(range(odd, length, size))
    return [(odd, [0]), whole] if odd else [whole]


def piling(move, carry, xs, length, restarts=NO_RESTARTS):
    """``move(carry, x) -> (carry, lists of arrays)`` as the body of a loop over numbers of steps,
    and what that loop starts with: the carry, the arrays, and what a walk back starts afresh from.

    What a step finds goes straight to its place in one array for the run: loops in loops that pile
    it up would move it twice. A ``move`` of one step alone may return more, which is handed on.
    """

    def one(loop, i, move=move):
        carry, piles, fresh = loop
        fresh, carry = restarts.note(fresh, carry, i)
        new, found, *more = move(carry, take(xs, i))
        found, new = in_turn(found, new)
        piles = [put(*pile, i) for pile in zip(piles, found, strict=True)]
        return (new, piles, fresh), more[0] if more else None

    _, types = jax.eval_shape(lambda: lax.scan(move, carry, xs, length))
    room = restarts.room(carry, length)
    return one, (carry, jax.tree.map(jnp.zeros_like, types), room)
