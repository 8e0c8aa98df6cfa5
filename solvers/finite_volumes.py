"""Euler's step of shallow water in the cells of a grid, by fluxes through their faces.

On two axes it is one compiled sweep on a CPU (`solvers.native`), and so is its transpose.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.grid import Grid
from solvers import hll, native, reconstruction, stencil
from solvers.earth import Sphere
from solvers.reconstruction import cut
from solvers.shores import Face, Shores
from solvers.water import Law


class Cells(NamedTuple):
    """What fluxes are made of."""

    depth: jax.Array  # m
    level: jax.Array  # m
    velocity: list  # m/s, one array for each axis


class Widths(NamedTuple):
    """Lengths over the spacing along them: on a sphere those of parallels, ``[y, 1]``."""

    face: Any = 1.0  # of each face
    before: Any = 1.0  # of the cell before it
    after: Any = 1.0


class FiniteVolumes(NamedTuple):
    """States are records of depth, discharge along each axis, and bed."""

    grid: Grid
    boundary: tuple[tuple[Face, Face], ...]
    limiter: stencil.Limiter | None
    law: Law
    sphere: Sphere | None
    dt: float  # s

    @property
    def shores(self):
        """What lies beyond the faces of the grid."""
        return Shores(self.boundary, reconstruction.halo(self.limiter))

    def advance(self, state, given):
        """Depth and discharge after ``dt`` of fluxes, and of the pull of the sloping surface.

        Args:
            state: of the water in the cells
            given: of each face the value of its series, None if it has none
        """
        return self._advance(state, self._beyond(self.shores.inside(state), given))

    def vjp(self, state, given):
        """`advance`, and its transpose: to cotangents of the state and of what faces are given.

        That of the bed comes added to what it is given.
        """
        shores = self.shores
        beyond, pull_beyond = jax.vjp(self._beyond, shores.inside(state), given)

        now, pull_now = self._vjp(state, beyond)

        def pull(now_bar, bed_bar):
            state_bar, beyond_bar = pull_now(now_bar, bed_bar)
            inside_bar, given_bar = pull_beyond(beyond_bar)
            return shores.add_inside(state_bar, inside_bar), given_bar

        return now, pull

    @property
    def _has_sweeps(self):
        return self.grid.ndim == 2 and native.built()

    def _advance(self, state, beyond):
        """`advance`, from the cells beyond the faces."""
        if not self._has_sweeps:
            return self._plain_advance(state, beyond)
        return native.twin(self._plain_advance, self._compiled_advance)(state, beyond)

    def _vjp(self, state, beyond):
        """The same, and its transpose; in plain JAX they share what both compute."""
        if not self._has_sweeps:
            return self._plain_vjp(state, beyond)
        pull = native.twin(self._plain_pull, self._compiled_pull)
        return self._advance(state, beyond), partial(pull, state, beyond)

    def _plain_advance(self, state, beyond):
        shores = self.shores
        cells = shores.extend(stencil.barrier(self._cells(state)), beyond, shores.halo)
        fluxes = []
        for axis in range(self.grid.ndim):
            flux = partial(self._flux, hll.fluxes, axis, self._widths(axis, 0))
            band = self._band(cells, axis, shores.halo)
            fluxes.append(reconstruction.fluxes(flux, band, axis, self.limiter))
        return self._after(state, fluxes)

    def _plain_vjp(self, state, beyond):
        shores, reach = self.shores, reconstruction.reach(self.limiter)
        margin = shores.halo + reach
        cells = shores.extend(stencil.barrier(self._cells(state)), beyond, margin)
        fluxes, pulls = [], []
        for axis in range(self.grid.ndim):
            flux = partial(self._flux, hll.with_transpose, axis, self._widths(axis, reach))
            band = self._band(cells, axis, margin)
            through, pull = reconstruction.vjp(flux, band, axis, self.limiter)
            fluxes.append(cut(through, axis, reach, reach))
            pulls.append(pull)

        def pull_all(now_bar, bed_bar):
            pad = lambda u: jnp.pad(self._per_width(self.dt * u), margin)  # noqa: E731
            rates_bar = stencil.materialise(jax.tree.map(pad, now_bar))
            inner_bar, beyond_bar = [], []
            for axis, pull in enumerate(pulls):
                band = self._band(rates_bar, axis, margin)
                bars = self._balance_pull(axis, *cut(band, axis, shores.halo - 1, shores.halo - 1))
                cells_bar = stencil.materialise(pull(bars))
                inner_bar.append(cut(cells_bar, axis, shores.halo, shores.halo))
                beyond_bar += shores.rims(cells_bar, axis)
            inner_bar = jax.tree.map(lambda *bars: sum(bars), *inner_bar)
            (state_bar,) = jax.vjp(self._cells, state)[1](inner_bar)
            own_bar = state._replace(depth=now_bar[0], discharge=now_bar[1], bed=bed_bar)
            return stencil.materialise(jax.tree.map(jnp.add, state_bar, own_bar)), beyond_bar

        return self._after(state, fluxes), pull_all

    def _plain_pull(self, state, beyond, now_bar, bed_bar):
        return self._plain_vjp(state, beyond)[1](now_bar, bed_bar)

    def _after(self, state, fluxes):
        rates = self._balance(fluxes)
        return jax.tree.map(lambda u, r: u + self.dt * r, (state.depth, state.discharge), rates)

    def _compiled_advance(self, state, beyond):
        now, tree = jax.tree.flatten((state.depth, state.discharge))
        args = [*jax.tree.leaves((state, beyond)), *self._rows(state.depth.dtype)]
        return jax.tree.unflatten(tree, native.call("advance", now, {}, args, **self._told))

    def _compiled_pull(self, state, beyond, now_bar, bed_bar):
        leaves, tree = jax.tree.flatten((state, beyond))
        args = [*leaves, *self._rows(bed_bar.dtype), *jax.tree.leaves(now_bar), bed_bar]
        bars = native.call("pull_advance", leaves, {len(args) - 1: 3}, args, **self._told)
        return jax.tree.unflatten(tree, bars)

    @property
    def _told(self):
        """What a compiled sweep is told."""
        limiters = type(None), stencil.Minmod, stencil.VanLeer, stencil.MonotonizedCentral
        return {
            "limiter": np.int64(limiters.index(type(self.limiter))),
            "halo": np.int64(self.shores.halo),
            "gravity": np.float64(self.law.gravity),
            "thin": np.float64(self.law.thin),
            "dt": np.float64(self.dt),
            "spacing": np.asarray(self.grid.spacing, float),
        }

    def _rows(self, dtype):
        """Widths of the faces between rows, and of cells with one more at either end."""
        count = self.grid.shape[0] + 1
        face, before, after = (np.broadcast_to(u, (count, 1)) for u in self._widths(0, 0))
        return [jnp.asarray(u, dtype) for u in (face, np.append(before, after[-1:], 0))]

    def _band(self, fields, axis, margin):
        """Fields without the margins of all axes but one."""
        for other in set(range(self.grid.ndim)) - {axis}:
            fields = cut(fields, other, margin, margin)
        return fields

    def _beyond(self, inside, given):
        """The cells beyond each face, from states inside and what the faces are given."""
        return [self._cells(state) for state in self.shores.beyond(inside, given, self.law)]

    def _cells(self, state):
        depth, discharge, bed = state
        slowness = self.law.slowness(depth)
        return Cells(depth, depth + bed, [slowness * q for q in discharge])

    def _widths(self, axis, more):
        """For the faces across an axis and for so many more at either end."""
        if not self.sphere or axis > 0:
            return Widths()
        rows = self.sphere.parallels(self.grid)
        face, cell = (np.pad(u, ((more, more), (0, 0)), "edge") for u in (rows.face, rows.cell))
        cell = np.pad(cell, ((1, 1), (0, 0)), "edge")
        return Widths(face, cell[:-1], cell[1:])

    def _per_width(self, u):
        """Divided by the widths of the cells."""
        return u / jnp.asarray(self.sphere.parallels(self.grid).cell, u.dtype) if self.sphere else u

    def _flux(self, fluxes, axis, widths, before, after):
        """Fluxes through the faces across an axis.

        Of mass; of momentum along the axis, less the pressure in the cell before the face and in
        the one after it; of momentum along the other axis. The pull of the sloping surface on a
        cell, ``-g h ∂(h + z)/∂x``, is shared by its two faces.
        """
        left = jax.tree.map(lambda u, slope: u + slope / 2, *before)
        right = jax.tree.map(lambda u, slope: u - slope / 2, *after)
        water = (hll.Water(u.depth, u.level, u.velocity[axis]) for u in (left, right))
        face, *beside = jax.tree.map(lambda u: jnp.asarray(u, left.depth.dtype), widths)
        mass, less_before, less_after = (face * u for u in fluxes(self.law.gravity, *water))
        pull = [
            self.law.gravity / 2 * width * u.cell.depth * u.slope.level
            for width, u in zip(beside, (before, after), strict=True)
        ]
        carried = [
            None if other == axis else mass * jnp.where(mass > 0, *sides)
            for other, sides in enumerate(zip(left.velocity, right.velocity, strict=True))
        ]
        return mass, less_before + pull[0], less_after - pull[1], carried

    def _balance(self, fluxes):
        """What the fluxes across each axis change in the cells between."""
        rate: Any = 0.0
        rates: list[Any] = [0.0] * self.grid.ndim
        for axis, (mass, before, after, carried) in enumerate(fluxes):
            per_length = 1 / self.grid.spacing[axis]
            rate -= per_length * jnp.diff(mass, axis=axis)
            for other, flow in enumerate(carried):
                change = (
                    cut(before, axis, 1, 0) - cut(after, axis, 0, 1)
                    if flow is None
                    else jnp.diff(flow, axis=axis)
                )
                rates[other] -= per_length * change
        return stencil.materialise(jax.tree.map(self._per_width, (rate, tuple(rates))))

    def _balance_pull(self, axis, rate, rates):
        """Cotangents of the fluxes across an axis, from those of the rates."""
        per_length = 1 / self.grid.spacing[axis]
        rate, rates = jax.tree.map(lambda u: per_length * u, (rate, rates))
        before, after = -cut(rates[axis], axis, 0, 1), cut(rates[axis], axis, 1, 0)
        carried = [
            None if other == axis else jnp.diff(u, axis=axis) for other, u in enumerate(rates)
        ]
        return jnp.diff(rate, axis=axis), before, after, carried
