"""What is seen of a run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.fields import Values, array
from diffsim.solver import Observe, Record, Solver, frozen

STILL = 1e-3  # of the greatest range: a node whose values vary by less has seen nothing


@frozen
class Receivers:
    """Instruments at fixed places; each sees what the solver's ``sampler`` gives there.

    Args:
        positions: m, ``[receiver, axis]``: nested lists, or a maker such as ``Line``
        names: of the instruments, one for each, for figures and results
        highest: also find the highest value that each node of the grid sees, by one more run
    """

    positions: Values  # m
    names: tuple[str, ...] = ()
    highest: bool = False

    def places(self, solver: Solver) -> np.ndarray:
        """m, ``[receiver, axis]``; ``ValueError`` if they do not suit the solver's grid."""
        places = array(self.positions, solver, steps=1, units="m")  # instruments do not move
        if places.ndim != 2 or places.shape[1] != solver.grid.ndim:
            raise ValueError(
                f"positions have shape {places.shape}: give rows of {solver.grid.ndim} numbers, "
                f"one for each axis {solver.grid.axes}"
            )
        if self.names and len(self.names) != len(places):
            raise ValueError(
                f"{len(self.names)} names for {len(places)} positions: give one each, or none"
            )
        return places

    def on(self, solver: Solver) -> Observe:
        """The function ``state -> [receiver]``."""
        return solver.sampler(self.places(solver))


@partial(jax.jit, static_argnames=("solver", "steps"))
def highest(solver: Solver, params: Record, forcing: Record, steps: int) -> jax.Array:
    """The highest that an instrument at each node would see, ``[*grid.shape]``, in one run.

    NaN where next to nothing happens: dry land, or places that no wave reaches.
    """
    axes = zip(solver.grid.shape, solver.grid.spacing, solver.grid.origin, strict=True)
    nodes = np.meshgrid(*(o + h * np.arange(n) for n, h, o in axes), indexing="ij")
    seen = solver.sampler(np.stack(nodes, axis=-1).reshape(-1, solver.grid.ndim))
    coefficients, state = solver.coefficients(params), solver.init(params)

    def advance(carry, forcing_n):
        state, low, high = carry
        state = solver.step(coefficients, state, forcing_n)
        now = seen(state)
        return (state, jnp.minimum(low, now), jnp.maximum(high, now)), None

    start = seen(state)
    (_, low, high), _ = jax.lax.scan(advance, (state, start, start), forcing, steps)
    span = high - low
    return jnp.where(span > STILL * jnp.max(span), high, jnp.nan).reshape(solver.grid.shape)
