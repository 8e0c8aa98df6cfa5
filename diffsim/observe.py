"""What is seen of a run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.fields import Values, array
from diffsim.solver import Observe, Quantity, Record, Solver, frozen

STILL = 1e-3  # of the greatest range: a node whose values vary by less has seen nothing


@frozen
class Receivers:
    """Instruments at fixed places; each sees what the solver's ``sampler`` gives there.

    Or, ``along`` an axis, the component of its ``motion``: of a wave the particle acceleration.

    Args:
        positions: m, ``[receiver, axis]``: nested lists, or a maker such as ``Line``
        names: of the instruments, one for each, for figures and results
        highest: also find the highest value that each node of the grid sees, by one more run
        along: name of an axis of the grid, such as z (positive down)
    """

    positions: Values  # m
    names: tuple[str, ...] = ()
    highest: bool = False
    along: str | None = None

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

    def quantity(self, solver: Solver) -> Quantity:
        """What the instruments see; ``ValueError`` if the solver has none such."""
        if self.along is None:
            return solver.seen
        if solver.felt is None:
            raise ValueError(
                f"along={self.along!r}, but {type(solver).__name__} has no motion: leave it out, "
                f"to see the {solver.seen.name}"
            )
        if self.along not in solver.grid.axes:
            axes = ", ".join(solver.grid.axes)
            raise ValueError(f"along={self.along!r} is no axis of the grid: give one of {axes}")
        return solver.felt._replace(name=f"{solver.felt.name} along {self.along}")

    def on(self, solver: Solver, params: Record) -> Observe:
        """The function ``state -> [receiver]``."""
        return self.at(self.places(solver), solver, params)

    def at(self, places: np.ndarray, solver: Solver, params: Record) -> Observe:
        """The same for instruments elsewhere."""
        self.quantity(solver)
        if self.along is None:
            return solver.sampler(places)
        return solver.motion(params, places, solver.grid.axes.index(self.along))


def highest(
    receivers: Receivers, solver: Solver, params: Record, forcing: Record, steps: int
) -> jax.Array:
    """The highest that one of the instruments would see at each node, ``[*grid.shape]``.

    NaN where next to nothing happens: dry land, or places that no wave reaches.
    """
    axes = zip(solver.grid.shape, solver.grid.spacing, solver.grid.origin, strict=True)
    nodes = np.meshgrid(*(o + h * np.arange(n) for n, h, o in axes), indexing="ij")
    places = np.stack(nodes, axis=-1).reshape(-1, solver.grid.ndim)
    span, high = _extremes(partial(receivers.at, places, solver), solver, params, forcing, steps)
    return jnp.where(span > STILL * jnp.max(span), high, jnp.nan).reshape(solver.grid.shape)


@partial(jax.jit, static_argnames=("instruments", "solver", "steps"))
def _extremes(instruments, solver, params, forcing, steps):
    """For each instrument the range of what it sees, and the highest."""
    seen = instruments(params)
    coefficients, state = solver.coefficients(params), solver.init(params)

    def advance(carry, forcing_n):
        state, low, high = carry
        state = solver.step(coefficients, state, forcing_n)
        now = seen(state)
        return (state, jnp.minimum(low, now), jnp.maximum(high, now)), None

    start = seen(state)
    (_, low, high), _ = jax.lax.scan(advance, (state, start, start), forcing, steps)
    return high - low, high
