"""A body that conducts heat, in finite volumes: what flows between its cells, through its faces and
from sources at points, and the transpose of all that.

Fields carry a halo of one empty cell.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffsim.grid import Grid
from diffsim.solver import frozen
from solvers import multigrid, native, off_grid, stencil


@frozen
class Dirichlet:
    """A face held at a temperature, ``params.boundary`` (K)."""

    def gain(self, value, theta, half, exchange, law):
        """W/m³ into the cells beside the face, over ``half`` a cell from their potential."""
        return half * (law.potential(value) - theta)


@frozen
class Neumann:
    """A face that lets a heat flux in, ``params.boundary`` (W/m²); insulated if that is zero."""

    def gain(self, value, theta, half, exchange, law):
        """W/m³ into the cells beside the face; ``value`` is the flux over a cell's width."""
        return value + 0 * theta  # XLA would make full fields of it, ahead of all steps


@frozen
class Robin:
    """A face that exchanges heat with surroundings of the temperature ``params.boundary`` (K).

    ``params.exchange`` (W/(m² K)) times the difference to the surface's temperature flows in.
    """

    def gain(self, value, theta, half, exchange, law):
        """W/m³ into the cells: what is exchanged with the surface is conducted on from it."""
        surface = law.surface(half * theta + exchange * value, half, exchange)
        return exchange * (value - surface)


@frozen
class Periodic:
    """A face through which what leaves comes in at the opposite one."""


Face = Dirichlet | Neumann | Robin | Periodic


class Law(NamedTuple):
    """A conductivity that grows with temperature: ``k₀ (1 + slope T)``."""

    slope: jax.Array | None  # 1/K, None for one that does not

    def potential(self, temperature):
        if self.slope is None:
            return temperature
        # written to memory: each neighbour that reads it would compute it anew
        return stencil.materialise(temperature * (1 + self.slope / 2 * temperature))

    def temperature(self, potential):
        return self.surface(potential, 1.0, 0.0)

    def surface(self, total, half, exchange):
        """T of ``half θ(T) + exchange T = total``, in the form that keeps its digits."""
        b = half + exchange
        if self.slope is None:
            return total / b
        return 2 * total / (b + jnp.sqrt(b**2 + 2 * half * self.slope * total))


class HeatCoefficients(NamedTuple):
    pace: jax.Array  # K m³/W, dt over the heat capacity; 1 in the halo; or one number
    heating: jax.Array | None  # W/m³
    # W/(m³ K): of the faces before the cells, for each axis, none at the grid's own faces;
    conductance: tuple[jax.Array, ...]
    half: tuple[tuple[jax.Array, jax.Array], ...]  # of the half cells at the grid's faces;
    joint: tuple[jax.Array | None, ...]  # from the last cells to the first, across periodic faces
    boundary: jax.Array
    exchange: jax.Array
    law: Law
    sources: off_grid.Points  # weights over the cell's volume


class Sums(NamedTuple):
    """Cotangents of fields, of the steps that were transposed so far."""

    conductance: tuple[jax.Array, ...]
    pace: jax.Array | None  # None for one number


@dataclass(frozen=True)
class Body:
    """Cells around a grid's nodes, and what its faces let through."""

    grid: Grid
    boundary: tuple[tuple[Face, Face], ...]

    def increment(self, c, power, theta, base, pace, factor):
        """``base + factor pace (∇·(k₀ ∇θ) + q)``; the fields with their halos; None means θ."""
        gains, heat = self._thin(c, power, *self._rims(c, theta, pace, factor))
        base = theta if base is None else base
        new = self._flow(c.conductance, c.heating, theta, base, factor * pace, gains)
        if power is None:
            return new
        return off_grid.put(new, c.sources._replace(weights=heat), jnp.ones_like(power))

    def _flow(self, *args):
        """``base + scale (∇·(conductance ∇θ) + heating)``, with gains beside the faces.

        Of conductance, heating, θ, base, scale and gains: on a CPU one compiled sweep.
        """
        return self._twin(self._plain_flow, _compiled_flow)(*args)

    def _plain_flow(self, conductance, heating, theta, base, scale, gains):
        return self._plus(base + scale * _rate(conductance, heating, theta), gains)

    def _twin(self, plain, compiled):
        return native.twin(plain, compiled) if self.grid.ndim <= 3 else plain

    def _plus(self, field, parts):
        """A field with something added in the cells beside the faces.

        In columns, number by number, that would be as slow as a sixth of the step: there the sweep
        that makes the field adds it. Rows are added in place.
        """
        last = field.ndim - 1
        places = list(zip(self._beside, stencil.materialise(parts), strict=True))
        columns = places[2 * last :] if last else []
        column = lax.broadcasted_iota(jnp.int32, field.shape, last)
        for (_, part), here in zip(columns, (1, field.shape[last] - 2), strict=False):
            part = jnp.pad(part, [(1, 1)] * last + [(0, 0)])
            field += jnp.where(column == here, part, 0)
        field = stencil.materialise(field)
        for where, part in places[: len(places) - len(columns)]:
            field = field.at[where].add(part)
        return field

    def _rims(self, c, theta, pace, factor):
        """What `_thin` needs of the fields."""
        ends = [theta[where] for where in self._beside]
        if pace.ndim == 0:
            return ends, [pace] * len(ends), pace, factor
        paces = [pace[where] for where in self._beside]
        return ends, paces, off_grid.windows(pace, c.sources), factor

    def _thin(self, c, power, ends, paces, window, factor):
        """What faces add to the cells beside them, and point sources to those around them."""
        gains = []
        for axis, h in enumerate(self.grid.spacing):
            pair = ends[2 * axis : 2 * axis + 2]
            for side, face in enumerate(self.boundary[axis]):
                if isinstance(face, Periodic):
                    gains.append(c.joint[axis] * (pair[1 - side] - pair[side]))
                    continue
                value, exchange = c.boundary[axis, side], c.exchange[axis, side] / h
                value = value / h if isinstance(face, Neumann) else value
                gains.append(face.gain(value, pair[side], c.half[axis][side], exchange, c.law))
        gains = [factor * pace * gain for pace, gain in zip(paces, gains, strict=True)]
        if power is None:
            return gains, None
        power = factor * power.astype(window.dtype).reshape(-1, *(1,) * self.grid.ndim)
        return gains, c.sources.weights * window * power

    def transposable(self, *args, sums=None):
        """`increment` with its transpose by hand; JAX would make it a heap of pads.

        Given `Sums`, those of the increment come added to them: as the cotangent of ``sums``.
        """
        increment = jax.custom_vjp(lambda sums, *args: self.increment(*args))
        increment.defvjp(lambda *args: (self.increment(*args[1:]), args), self._pull)
        return increment(sums, *args)

    def _pull(self, args, new_bar):
        """The transpose of `increment`: the divergence again, and products of differences."""
        sums, c, power, theta, base, pace, factor = args
        scale, scaled = factor * pace, new_bar
        if pace.ndim > 0:  # or each neighbour that reads it would compute it anew
            scale, scaled = jnp.ones_like(factor), stencil.materialise(scale * new_bar)
        small = c._replace(conductance=None, heating=None)
        rims = self._rims(c, theta, pace, factor)
        _, transpose = jax.vjp(self._thin, small, power, *rims)
        heat_bar = None if power is None else off_grid.windows(new_bar, c.sources)
        bars = transpose(([new_bar[where] for where in self._beside], heat_bar))
        small_bar, power_bar, ends_bar, *pace_bars, factor_bar = bars
        own_bar = new_bar if base is None else jnp.zeros_like(new_bar)
        theta_bar = self._flow(c.conductance, None, scaled, own_bar, scale, ends_bar)
        # a state that was kept would be looked up by each kernel that reads it, value by value
        kept = stencil.materialise(theta)
        heating = None if c.heating is None else scale * scaled
        c_bar = small_bar._replace(conductance=None, heating=heating)
        if sums is None:
            c_bar = c_bar._replace(conductance=_correlations(kept, scaled, scale))
        else:
            correlated = self._twin(_correlated, _compiled_correlated)
            sums = sums._replace(conductance=correlated(sums.conductance, theta, scaled, scale))
        rate = _rate(c.conductance, c.heating, kept)
        factor_bar += jnp.sum(pace * new_bar * rate)
        if pace.ndim == 0:
            rims_bar, window_bar = pace_bars
            pace_bar = factor * jnp.sum(new_bar * rate) + sum(rims_bar) + window_bar
        else:
            before = jnp.zeros_like(new_bar) if sums is None else sums.pace
            pace_bar = self._pace_bar(c, power, theta, before, factor * new_bar, *pace_bars)
            if sums is not None:
                sums, pace_bar = sums._replace(pace=pace_bar), None
        base_bar = None if base is None else new_bar
        return sums, c_bar, power_bar, theta_bar, base_bar, pace_bar, factor_bar

    def _pace_bar(self, c, power, theta, before, weights, rims_bar, window_bar):
        """The cotangent of a field of paces, added to that of later steps: the rate, weighed."""
        pace_bar = self._flow(c.conductance, c.heating, theta, before, weights, rims_bar)
        if power is None:
            return pace_bar
        points = c.sources._replace(weights=window_bar)
        return off_grid.put(pace_bar, points, jnp.ones_like(power))

    def operator(self, c):
        """``-∇·(k₀ ∇)``; what leaves through faces goes to a temperature of 0."""
        own = jnp.zeros_like(c.conductance[0])
        for i, where in enumerate(self._beside):
            axis, side = divmod(i, 2)
            face, half = self.boundary[axis][side], c.half[axis][side]
            exchange = c.exchange[axis, side] / self.grid.spacing[axis]
            if isinstance(face, Dirichlet):
                own = own.at[where].add(half)
            elif isinstance(face, Robin):
                own = own.at[where].add(half * exchange / (half + exchange))
        return multigrid.Operator(own, c.conductance, c.joint)

    def conductances(self, k, axis):
        """Conductances along an axis: see `HeatCoefficients`."""
        h, n = self.grid.spacing[axis], self.grid.shape[axis]
        low, high = (lax.slice_in_dim(k, i, n - 1 + i, axis=axis) for i in (0, 1))
        first, last = (lax.slice_in_dim(k, i, i + 1, axis=axis) for i in (0, n - 1))
        widths = [(1 + (i == axis), 1) for i in range(k.ndim)]
        periodic = isinstance(self.boundary[axis][0], Periodic)
        joint = 2 * first * last / (first + last) / h**2 if periodic else None
        between = jnp.pad(2 * low * high / (low + high) / h**2, widths)
        return between, (2 * first / h**2, 2 * last / h**2), joint

    def _part(self, axis, part):
        """An index of part of an axis, and of the cells without their halo along the others."""
        return tuple(part if i == axis else slice(1, -1) for i in range(self.grid.ndim))

    @property
    def _beside(self):
        """The cells beside each of the grid's faces, axis by axis."""
        ends = [(axis, i) for axis, n in enumerate(self.grid.shape) for i in (1, n)]
        return [self._part(axis, slice(i, i + 1)) for axis, i in ends]


def _rate(conductance, heating, theta):
    """``∇·(k₀ ∇θ) + q`` but for what comes through faces and from point sources."""
    rate = multigrid.divergence(conductance, theta)
    return rate if heating is None else rate + heating


def _compiled_flow(conductance, heating, theta, base, scale, gains):
    gains = jnp.concatenate([gain.reshape(-1) for gain in gains])
    args = [theta, base, scale, gains, *conductance, *([] if heating is None else [heating])]
    return native.call("conduct", [theta], {}, args)[0]


def _correlations(theta, bar, scale):
    """Cotangents of conductances: products of what jumps across the faces before the cells."""
    jumps = zip(multigrid.jumps(bar), multigrid.jumps(theta), strict=True)
    return tuple(-scale * a * b for a, b in jumps)


def _correlated(total, theta, bar, scale):
    more = _correlations(stencil.materialise(theta), bar, scale)
    return jax.tree.map(jnp.add, total, more)


def _compiled_correlated(total, theta, bar, scale):
    places = {3 + axis: axis for axis in range(theta.ndim)}
    return tuple(native.call("correlate", total, places, [theta, bar, scale, *total]))
