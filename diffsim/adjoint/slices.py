"""Slices of arrays that keep something of each step, and what of a step comes before what."""

import jax
import jax.numpy as jnp
from jax import lax


def take(leaves, index):
    """Slice ``index`` of each."""
    return [lax.dynamic_index_in_dim(leaf, index, keepdims=False) for leaf in leaves]


def put(leaves, values, index):
    """The leaves with slice ``index`` replaced."""
    pairs = zip(leaves, values, strict=True)
    return [lax.dynamic_update_index_in_dim(leaf, value, index, 0) for leaf, value in pairs]


def take_block(leaves, start, size):
    """Slices ``start … start + size`` of each."""
    return [lax.dynamic_slice_in_dim(leaf, start, size) for leaf in leaves]


def put_block(leaves, values, start):
    """The leaves with slices from ``start`` on replaced."""
    pairs = zip(leaves, values, strict=True)
    return [lax.dynamic_update_slice_in_dim(leaf, value, start, 0) for leaf, value in pairs]


def stacked(lists):
    """Lists of arrays, of one step each, as one."""
    return [jnp.stack(leaves) for leaves in zip(*lists, strict=True)]


@jax.custom_jvp
def in_turn(seen, carry):
    """Both: what is made of a carry first, and then the carry that the loop goes on with.

    The next step writes over this one's fields, and XLA copies what might be read after that. On a
    CPU a loop of no trips, which it can't see through, puts the two in turn.
    """

    def loop(values):
        none = lax.optimization_barrier(jnp.int32(0))
        return lax.fori_loop(0, none, lambda _, v: jax.tree.map(_other, v), values)

    return lax.platform_dependent((seen, carry), cpu=loop, default=lambda values: values)


@in_turn.defjvp
def _in_turn_jvp(primals, tangents):
    return in_turn(*primals), tangents


def _other(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):  # a random key has no other
        return leaf
    return ~leaf if leaf.dtype == bool else -leaf
