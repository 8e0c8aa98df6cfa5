"""Where a walk back through a run starts afresh.

A step that damps can be undone, but rounding grows as fast as the step damps. So a part of the
carry is kept every so many steps, and put in place when the walk comes there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Restarts(NamedTuple):
    """Before each step whose number can be divided by ``every``, but the first one."""

    every: int
    keep: Callable[[Any], Any]  # carry -> what is kept, any pytree
    restore: Callable[[Any, Any], Any]  # carry, kept -> carry

    def room(self, carry, length):
        """For what is kept of ``length`` steps: ``[restart, ...]``."""
        count = (length - 1) // self.every
        types = jax.eval_shape(self.keep, carry) if count else ()
        return jax.tree.map(lambda t: jnp.zeros((count, *t.shape), t.dtype), types)

    def note(self, room, carry, i):
        """With the carry before step ``i``, if that is a restart; and the carry, which the step may
        write over after that."""
        if not jax.tree.leaves(room):
            return room, carry

        def put(_, loop):
            room, carry = loop
            place = i // self.every - 1
            room = jax.tree.map(
                lambda r, k: lax.dynamic_update_index_in_dim(r, k, place, 0), room, self.keep(carry)
            )
            # handed through as it is, it would count as read behind the loop, and be copied
            return room, lax.optimization_barrier(carry)

        return lax.fori_loop(0, self._due(i), put, (room, carry))

    def restored(self, carry, room, i):
        """The carry before step ``i``, with what was kept if that is a restart."""
        if not jax.tree.leaves(room):
            return carry

        def put(none, carry):
            place = i // self.every - 1 + none  # which XLA must not take ahead of the loop
            take = lambda r: lax.dynamic_index_in_dim(r, place, keepdims=False)  # noqa: E731
            return self.restore(carry, jax.tree.map(take, room))

        return lax.fori_loop(0, self._due(i), put, carry)

    def _due(self, i):
        return jnp.asarray((i > 0) & (i % self.every == 0), jnp.int32)


NO_RESTARTS = Restarts(2**30, lambda carry: (), lambda carry, kept: carry)
