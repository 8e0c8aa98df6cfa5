"""Rates of change of shallow water in the cells of a grid, by fluxes through their faces."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.grid import Grid
from solvers import hll, reconstruction, stencil
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

    @property
    def shores(self):
        """What lies beyond the faces of the grid."""
        return Shores(self.boundary, reconstruction.halo(self.limiter))

    def rates(self, state, given):
        """∂h/∂t and ∂q/∂t by fluxes and the slope of the level.

        Args:
            state: of the water in the cells
            given: of each face the value of its series, None if it has none
        """
        shores = self.shores
        beyond = self._beyond(shores.inside(state), given)
        cells = shores.extend(self._cells(state), beyond, shores.halo)
        fluxes = []
        for axis in range(self.grid.ndim):
            flux = partial(self._flux, hll.fluxes, axis, self._widths(axis, 0))
            band = self._band(cells, axis, shores.halo)
            fluxes.append(reconstruction.fluxes(flux, band, axis, self.limiter))
        return self._balance(fluxes)

    def vjp(self, state, given):
        """`rates`, and their transpose: to cotangents of the state and of what faces are given."""
        shores, reach = self.shores, reconstruction.reach(self.limiter)
        halo = shores.halo
        beyond, pull_beyond = jax.vjp(self._beyond, shores.inside(state), given)
        cells = shores.extend(self._cells(state), beyond, halo + reach)
        fluxes, pulls = [], []
        for axis in range(self.grid.ndim):
            flux = partial(self._flux, hll.with_transpose, axis, self._widths(axis, reach))
            band = self._band(cells, axis, halo + reach)
            through, pull = reconstruction.vjp(flux, band, axis, self.limiter)
            fluxes.append(cut(through, axis, reach, reach))
            pulls.append(pull)

        def pull_rates(rates_bar):
            rates_bar = jax.tree.map(lambda u: jnp.pad(self._per_width(u), halo + reach), rates_bar)
            rates_bar = stencil.materialise(rates_bar)
            inner_bar, rims_bar = [], []
            for axis, pull in enumerate(pulls):
                band = cut(self._band(rates_bar, axis, halo + reach), axis, halo - 1, halo - 1)
                cells_bar = stencil.materialise(pull(self._balance_pull(axis, *band)))
                inner_bar.append(cut(cells_bar, axis, halo, halo))
                rims_bar += shores.rims(cells_bar, axis)
            inner_bar = jax.tree.map(lambda *bars: sum(bars), *inner_bar)
            (state_bar,) = jax.vjp(self._cells, state)[1](inner_bar)
            inside_bar, given_bar = pull_beyond(rims_bar)
            return shores.add_inside(stencil.materialise(state_bar), inside_bar), given_bar

        return self._balance(fluxes), pull_rates

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
        slowness = stencil.materialise(self.law.slowness(depth))
        level, *velocity = stencil.barrier([depth + bed, *(slowness * q for q in discharge)])
        return Cells(depth, level, velocity)

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
        return stencil.materialise(jax.tree.map(self._per_width, (rate, rates)))

    def _balance_pull(self, axis, rate, rates):
        """Cotangents of the fluxes across an axis, from those of the rates."""
        per_length = 1 / self.grid.spacing[axis]
        rate, rates = jax.tree.map(lambda u: per_length * u, (rate, rates))
        before, after = -cut(rates[axis], axis, 0, 1), cut(rates[axis], axis, 1, 0)
        carried = [
            None if other == axis else jnp.diff(u, axis=axis) for other, u in enumerate(rates)
        ]
        return jnp.diff(rate, axis=axis), before, after, carried
