"""How shallow water moves, of which there may be next to nothing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# m; the reciprocals that derivatives of thinner films hold would overflow in float32
NOTHING = 1e-18


class Law(NamedTuple):
    """What depends on the depth alone."""

    gravity: float  # m/s²
    thin: float  # m, water shallower than this slows down to rest

    def slowness(self, depth):
        """1/m, velocity over discharge: one over the depth, but 0 where that is 0."""
        deep = depth > self.thin
        return jnp.where(deep, reciprocal(jnp.where(deep, depth, 1)), depth * self.thin**-2)

    def celerity(self, depth):
        """Of waves, m/s."""
        return root(self.gravity * depth)


def positive(x):
    """``max(x, 0)`` with derivative 0 at 0, and 0 for what no sum of depths would notice."""
    return jnp.where(x > NOTHING, x, 0)


def root(x):
    """``√x`` with derivative 0 at 0."""
    is_positive = x > NOTHING**2
    return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, x, 1)), 0)


@jax.custom_jvp
def reciprocal(x):
    """``1/x``, whose derivative takes no further division."""
    return 1 / x


@reciprocal.defjvp
def _reciprocal_jvp(primals, tangents):
    y = reciprocal(*primals)
    return y, -(y**2) * tangents[0]
