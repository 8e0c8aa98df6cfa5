"""Where a run stopped being finite: the field, the step, the place, and the likely cause."""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffsim.host import named
from diffsim.solver import Record, Solver

STRETCH = 100  # steps between two looks


class NotFinite(UserWarning):
    """A state with entries that are NaN or infinite."""


@named
def warn():
    """Warn: for ``simulate(…, watch=warn)``."""
    warnings.warn(
        "the state at the end of the run is not finite, so what was seen of it may be wrong: lower "
        "dt or look at the params and the forcing; diffsim.blow_up.first_non_finite finds the "
        "step, the place and the likely cause",
        NotFinite,
        stacklevel=2,
    )


class BlowUp(NamedTuple):
    """The first state that is not finite."""

    step: int  # of the state: step n leads to state n + 1
    time: float  # s
    field: str  # of the state, the first in its order
    index: tuple[int, ...]  # of the first entry of it that is not finite
    position: tuple[float, ...] | None  # m, or None if the field does not lie on the grid's nodes
    largest: float  # magnitude in the field one step before
    courant: float  # dt over the largest stable one
    cause: str  # the likely one, and what to do

    def __str__(self):
        place = f"at {self.index}"
        if self.position is not None:
            place += f", ({', '.join(f'{x:.6g}' for x in self.position)}) m"
        share = f"dt is {self.courant:.3g} of the stable one: "
        return (
            f"{self.field} is not finite from step {self.step} on, t = {self.time:.4g} s, first "
            f"{place}; one step before it was {self.largest:.3g} at most; "
            f"{share if math.isfinite(self.courant) else ''}{self.cause}"
        )


def first_non_finite(
    solver: Solver, params: Record, *, steps: int, forcing: Record = None
) -> BlowUp | None:
    """Run again, forwards only, to the first state that is not finite; None if all are.

    It looks every hundred steps, then steps singly through the hundred that went wrong.

    Args:
        solver: the discretised PDE
        params: as for `diffsim.simulate`; concrete arrays
        steps: number of steps
        forcing: as for `diffsim.simulate`
    """
    coefficients, state = jax.jit(lambda p: (solver.coefficients(p), solver.init(p)))(params)
    if not finite(state):
        return _blow_up(solver, params, coefficients, None, state, state, 0)

    @jax.jit
    def many(state, inputs):
        return lax.scan(lambda s, x: (solver.step(coefficients, s, x[1]), None), state, inputs)[0]

    def slices(start, stop):
        return np.arange(start, stop), jax.tree.map(lambda f: f[start:stop], forcing)

    for start in range(0, steps, STRETCH):
        stop = min(start + STRETCH, steps)
        ahead = many(state, slices(start, stop))
        if finite(ahead):
            state = ahead
            continue
        for n in range(start, stop):
            before, state = state, many(state, slices(n, n + 1))
            if not finite(state):
                forcing_n = jax.tree.map(lambda f, n=n: f[n], forcing)
                return _blow_up(solver, params, coefficients, forcing_n, before, state, n + 1)
    return None


@jax.jit
def finite(record: Record) -> jax.Array:
    """Whether all entries are."""
    leaves = [leaf for leaf in jax.tree.leaves(record) if _smooth(leaf)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _smooth(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _blow_up(solver, params, coefficients, forcing_n, before, state, step):
    """The record: of the first field that is not finite, and of its first such entry."""
    fields = jax.tree_util.tree_flatten_with_path(state)[0]
    number, (path, field) = next(
        (i, (path, leaf)) for i, (path, leaf) in enumerate(fields) if not finite(leaf)
    )
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(field))[0])
    previous = np.abs(jax.tree.leaves(before)[number])
    largest = float(np.max(previous, where=np.isfinite(previous), initial=0))
    courant = float(solver.dt / solver.stable_dt(params))
    return BlowUp(
        step=step,
        time=step * solver.dt,
        field=jax.tree_util.keystr(path, simple=True, separator="."),
        index=index,
        position=_position(solver, before, field, index),
        largest=largest,
        courant=courant,
        cause=_cause(coefficients, forcing_n, field.dtype, step, largest, courant),
    )


def _position(solver, state, field, index):
    """Where an entry of a field lies, m.

    Fields may have layers around the grid. Where the grid's middle lies in one is read off the
    transpose of the sampler there.
    """
    grid = solver.grid
    if field.ndim != grid.ndim:
        return None
    middle = [n // 2 for n in grid.shape]
    ends = list(zip(grid.origin, grid.spacing, strict=True))
    place = np.array([[o + i * h for i, (o, h) in zip(middle, ends, strict=True)]])
    seen, transpose = jax.vjp(solver.sampler(place), jax.tree.map(jnp.nan_to_num, state))
    felt = [np.abs(b) for b in jax.tree.leaves(transpose(jnp.ones_like(seen))[0]) if _smooth(b)]
    same = [b for b in felt if b.shape == field.shape and np.any(b > 0)]
    if not same and field.shape != grid.shape:
        return None
    found = np.unravel_index(np.argmax(same[0]), field.shape) if same else middle
    nodes = [i - f + m for i, f, m in zip(index, found, middle, strict=True)]
    return tuple(float(o + i * h) for i, (o, h) in zip(nodes, ends, strict=True))


def _cause(coefficients, forcing_n, dtype, step, largest, courant):
    if not finite(coefficients):
        return "the coefficients are not finite: mend the params"
    if step == 0:
        return "the initial state is not finite: mend the params"
    if not finite(forcing_n):
        return f"the forcing of step {step - 1} is not finite: mend it"
    if courant > 1:
        return "the scheme is unstable: lower dt or coarsen the grid"
    if largest > math.sqrt(float(jnp.finfo(dtype).max)):
        return "it grew until it overflowed: look at the forcing's amplitude, params and dt"
    return "a step gave no number, such as 0/0 or the root of a negative: look at the params there"
