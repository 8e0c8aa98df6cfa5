"""Conduction of heat.

``∂t(c T) = ∇·(k ∇T) + q``: finite volumes around the grid's nodes, harmonic means of the
conductivity between them, second order in space. Where it grows with temperature,
``k = k₀ (1 + β T)``, the heat potential ``θ = T + β T²/2`` (Kirchhoff 1894) makes the flux through
a face ``k₀ ∂θ``: one symmetric operator serves linear and nonlinear conduction, forward and
adjoint. Fields carry a halo of one empty cell.
"""

import math
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, MinLen
from jax import lax

from diffsim.grid import Grid
from diffsim.solver import AdjointSolver, Example, Quantity, Remark, Sampler, frozen
from solvers import multigrid, off_grid, stencil
from solvers.diffusion import RKL2, Explicit, Problem, Scheme, Theta

__all__ = [
    "RKL2", "Dirichlet", "Explicit", "Heat", "HeatForcing", "HeatParams", "Neumann", "Periodic",
    "Robin", "Theta",
]  # fmt: skip


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


class HeatParams(NamedTuple):
    """One number may stand for a field that is the same everywhere."""

    # [*grid.shape], or [axis, *grid.shape] where it differs between the axes
    conductivity: Annotated[Any, Quantity("thermal conductivity", "W/(m K)")]
    capacity: Annotated[Any, Quantity("volumetric heat capacity", "J/(m3 K)")]  # [*grid.shape]
    initial: Annotated[Any, Quantity("initial temperature", "K")]  # [*grid.shape]
    # [axis, 2]: temperature, flux inwards or surroundings' temperature, as the face's kind wants
    boundary: Annotated[Any, Quantity("value at the faces", "K or W/m2")] = 0.0
    exchange: Annotated[Any, Quantity("heat exchange coefficient", "W/(m2 K)")] = 0.0  # [axis, 2]
    # one number; the conductivity does not depend on temperature if None
    slope: Annotated[Any, Quantity("relative growth of the conductivity", "1/K")] = None
    heating: Annotated[Any, Quantity("heating", "W/m3")] = None  # [*grid.shape]
    sources: Annotated[Any, Quantity("source position", "m")] = ()  # [source, axis]


class HeatForcing(NamedTuple):
    """What changes in time; slice n acts all through step n: its middle is what to sample."""

    # [step, source]
    sources: Annotated[Any, Quantity("power of the sources", "W m^(axes-3)")] = None
    # [step, axis, 2], added to params.boundary and params.exchange
    boundary_change: Annotated[Any, Quantity("change at the faces", "K or W/m2")] = None
    exchange_change: Annotated[Any, Quantity("change of the exchange", "W/(m2 K)")] = None
    heating_factor: Annotated[Any, Quantity("factor on the heating", "1")] = None  # [step]


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


class HeatState(NamedTuple):
    temperature: jax.Array  # K


@frozen
class Heat(AdjointSolver):
    """Conduction of heat on a regular grid of any dimension, whose nodes are cell centres.

    Args:
        grid: the nodes; the faces lie half a cell outside the outermost ones
        dt: s, at most `stable_dt`
        boundary: for each axis the faces before its first and after its last node
        scheme: in time: ``Explicit()``, ``RKL2(stages)`` or ``Theta(theta)``
    """

    Params: ClassVar = HeatParams
    Forcing: ClassVar = HeatForcing
    seen: ClassVar = Quantity("temperature", "K")

    grid: Grid
    dt: Annotated[float, Gt(0)]  # s
    boundary: Annotated[tuple[tuple[Face, Face], ...], MinLen(1)]
    scheme: Scheme

    def __post_init__(self):
        if len(self.boundary) != self.grid.ndim:
            raise ValueError(
                f"boundary names faces for {len(self.boundary)} axes, but the grid has "
                f"{self.grid.ndim}: give a pair (before, after) for each axis"
            )
        if min(self.grid.shape) < 2:
            raise ValueError(f"{self.grid.shape} cells: give at least 2 along each axis")
        for axis, faces in enumerate(self.boundary):
            if sum(isinstance(face, Periodic) for face in faces) == 1:
                raise ValueError(f"axis {axis} is periodic at one face: make both Periodic()")

    # --- contract

    @property
    def unroll(self):
        return 2 if isinstance(self.scheme, Explicit) else 1

    def coefficients(self, params):
        ndim, dtype = self.grid.ndim, jnp.asarray(params.conductivity).dtype
        if dtype not in (jnp.float32, jnp.float64):
            raise TypeError(f"params.conductivity is {dtype}: give float32 or float64")
        given = {name: _given(params, dtype, name, shape) for name, shape in self._shapes.items()}
        full = {
            name: jnp.broadcast_to(given[name], self._shapes[name])
            for name in ("conductivity", "boundary", "exchange")
        }
        pace, heating = self.dt / given["capacity"], given["heating"]
        if heating is not None:
            heating = jnp.pad(jnp.broadcast_to(heating, self.grid.shape), 1)
        parts = [self._faces(k, axis) for axis, k in enumerate(full["conductivity"])]
        conductance, half, joint = zip(*parts, strict=True)
        points = self._points(jnp.asarray(params.sources, dtype).reshape(-1, ndim))
        return HeatCoefficients(
            pace=jnp.pad(pace, 1, constant_values=1) if pace.ndim else pace,
            heating=heating,
            conductance=conductance,
            half=half,
            joint=joint,
            boundary=full["boundary"],
            exchange=full["exchange"],
            law=Law(given["slope"]),
            sources=points._replace(weights=points.weights / math.prod(self.grid.spacing)),
        )

    def init(self, params):
        dtype = jnp.asarray(params.conductivity).dtype
        start = _given(params, dtype, "initial", self.grid.shape)
        return HeatState(jnp.pad(jnp.broadcast_to(start, self.grid.shape), 1))

    def step(self, coefficients, state, forcing_n):
        return self._step(self._increment, coefficients, state, forcing_n)

    def pullback(self, coefficients, state, forcing_n, state_bar):
        """The explicit schemes' transpose by hand; the implicit ones push tangents as well."""
        by_hand = not isinstance(self.scheme, Theta)
        step = partial(self._step, self._transposable if by_hand else self._increment)
        return jax.vjp(step, coefficients, state, forcing_n)[1](state_bar)

    def stable_dt(self, params):
        """``reach · 2 / λ`` with Gershgorin's bound on the largest eigenvalue λ.

        Exact where the coefficients are constant, but for a grid of n cells between insulated
        faces, which would bear ``1/cos²(π/2n)`` as much. Where the conductivity grows, it is that
        of the highest temperature of the start and the faces.
        """
        c = self.coefficients(params)
        operator = self._operator(c)
        rate = np.asarray((operator.own + 2 * multigrid.coupling(operator)) * c.pace / self.dt)
        return self.scheme.reach * 2 / float(np.max(rate) * self._growth(params).max())

    def sampler(self, positions):
        points = self._points(jnp.asarray(positions))
        return Sampler(lambda state, scale=None: off_grid.see(state, "temperature", points, scale))

    def check(self, params, forcing=None):
        misshapen = [
            Remark(f"params.{name}", text)
            for name, shape in self._shapes.items()
            if (text := _misfit(name, np.shape(getattr(params, name)), shape))
        ]
        if misshapen:
            return misshapen
        lowest = {name: np.min(getattr(params, name)) for name in self._shapes}
        remarks = [
            Remark(f"params.{name}", f"the lowest value is {lowest[name]:g}: it must be {words}")
            for name, words in (("conductivity", "positive"), ("capacity", "positive"),
                                ("exchange", "0 or more"))
            if lowest[name] < 0 or (lowest[name] == 0 and words == "positive")
        ]  # fmt: skip
        if (growth := self._growth(params).min()) <= 0:
            text = f"at the temperatures given the conductivity falls to {growth:g} of its value at"
            remarks.append(Remark("params.slope", f"{text} 0 K: keep 1 + slope T positive"))
        sources = np.asarray(params.sources, float).reshape(-1, self.grid.ndim)
        for i in np.flatnonzero(self.grid.outside(sources)):
            place, extent = sources[i].tolist(), self.grid.extent
            text = f"source {i} at {place} m is outside the grid {extent} m: move it inside"
            remarks.append(Remark("params.sources", text))
        if forcing is not None:  # series that are absent are finite
            forcing = HeatForcing(*(0.0 if series is None else series for series in forcing))
        return remarks or super().check(params, forcing)

    @classmethod
    def example(cls):
        faces = (Dirichlet(), Robin()), (Neumann(), Robin())
        grid = Grid(shape=(6, 7), spacing=(0.1, 0.08), origin=(0.0, -0.2))
        solver = cls(grid=grid, dt=60.0, boundary=faces, scheme=Explicit())
        random = np.random.default_rng(0)
        time, each = np.arange(19)[:, None, None], np.arange(4.0).reshape(2, 2)
        params = HeatParams(
            conductivity=jnp.asarray(2 + random.random((2, *grid.shape))),
            capacity=jnp.asarray(2e5 + 1e5 * random.random(grid.shape)),
            initial=jnp.asarray(20 * random.random(grid.shape) - 10),
            boundary=jnp.array([[8.0, -9.0], [20.0, 4.0]]),
            exchange=jnp.array([[0.0, 30.0], [0.0, 50.0]]),
            slope=jnp.array(0.04),
            heating=jnp.asarray(5000 * random.standard_normal(grid.shape)),
            sources=jnp.array([[0.17, 0.03], [0.32, 0.21]]),
        )
        forcing = HeatForcing(
            sources=jnp.asarray(300 * np.sin(np.outer(time, (0.4, 0.7)))),
            boundary_change=jnp.asarray(8 * np.sin(0.3 * time + each)),
            exchange_change=jnp.asarray(25 * np.cos(time + each)),
            heating_factor=jnp.asarray(1 + np.sin(time[:, 0, 0])),
        )
        return Example(solver, params, forcing)

    # --- operator

    def _step(self, increment, coefficients, state, forcing_n):
        c = self._driven(coefficients, forcing_n)
        power = None if forcing_n is None else forcing_n.sources
        increment = partial(increment, c._replace(pace=None), power)
        inverse, operator = c.law.temperature, partial(self._operator, c)
        problem = Problem(c.law.potential, inverse, c.pace, increment, operator)
        return HeatState(self.scheme.advance(problem, state.temperature))

    def _driven(self, c, forcing_n):
        """The coefficients as they are during this step."""
        if forcing_n is None:
            return c
        given = forcing_n._asdict()
        shapes = {"sources": c.sources.weights.shape[:1], "heating_factor": ()}
        shapes |= dict.fromkeys(("boundary_change", "exchange_change"), c.boundary.shape)
        for name, shape in shapes.items():
            if given[name] is not None and given[name].shape != shape:
                raise ValueError(
                    f"forcing.{name} has shape {given[name].shape} a step, but {shape} is wanted: "
                    "give [step, source], [step, axis, 2] or [step]"
                )
        if (change := forcing_n.boundary_change) is not None:
            c = c._replace(boundary=c.boundary + change)
        if (change := forcing_n.exchange_change) is not None:
            c = c._replace(exchange=c.exchange + change)
        if (factor := forcing_n.heating_factor) is not None and c.heating is not None:
            c = c._replace(heating=c.heating * factor)
        return c

    def _increment(self, c, power, theta, base, pace, factor):
        """``base + factor pace (∇·(k₀ ∇θ) + q)``; the fields with their halos; None means θ."""
        new = (theta if base is None else base) + factor * pace * self._rate(c, theta)
        gains, heat = self._thin(c, power, *self._rims(c, theta, pace, factor))
        new = self._plus(new, gains)
        if power is None:
            return new
        return off_grid.put(new, c.sources._replace(weights=heat), jnp.ones_like(power))

    def _rate(self, c, theta):
        """``∇·(k₀ ∇θ) + q`` but for what comes through faces and from point sources."""
        rate = multigrid.divergence(c.conductance, theta)
        return rate if c.heating is None else rate + c.heating

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

    def _transposable(self, *args):
        """`_increment` with its transpose by hand; JAX would make it a heap of pads."""
        increment = jax.custom_vjp(self._increment)
        increment.defvjp(lambda *args: (self._increment(*args), args), self._pull)
        return increment(*args)

    def _pull(self, kept, new_bar):
        """The transpose of `_increment`: the divergence again, and products of differences."""
        c, power, theta, base, pace, factor = kept
        # a state that was kept would be looked up by each kernel that reads it, value by value
        theta = stencil.materialise(theta)
        scale, scaled = factor * pace, new_bar
        if pace.ndim > 0:  # or each neighbour that reads it would compute it anew
            scale, scaled = 1.0, stencil.materialise(scale * new_bar)
        rate = self._rate(c, theta)
        small = c._replace(conductance=None, heating=None)
        rims = self._rims(c, theta, pace, factor)
        _, transpose = jax.vjp(self._thin, small, power, *rims)
        heat_bar = None if power is None else off_grid.windows(new_bar, c.sources)
        bars = transpose(([new_bar[where] for where in self._beside], heat_bar))
        small_bar, power_bar, ends_bar, paces_bar, window_bar, factor_bar = bars
        factor_bar += jnp.sum(pace * new_bar * rate)
        theta_bar = scale * multigrid.divergence(c.conductance, scaled)
        theta_bar = self._plus(theta_bar if base is not None else new_bar + theta_bar, ends_bar)
        if pace.ndim == 0:
            pace_bar = factor * jnp.sum(new_bar * rate) + sum(paces_bar) + window_bar
        else:
            pace_bar = self._plus(factor * new_bar * rate, paces_bar)
            if power is not None:
                points = c.sources._replace(weights=window_bar)
                pace_bar = off_grid.put(pace_bar, points, jnp.ones_like(power))
        jumps = zip(multigrid.jumps(scaled), multigrid.jumps(theta), strict=True)
        conductance = [-scale * a * b for a, b in jumps]
        heating = None if c.heating is None else scale * scaled
        c_bar = small_bar._replace(conductance=tuple(conductance), heating=heating)
        base_bar = None if base is None else new_bar
        return c_bar, power_bar, theta_bar, base_bar, pace_bar, factor_bar

    def _operator(self, c):
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

    def _faces(self, k, axis):
        """Conductances along an axis: see `HeatCoefficients`."""
        h, n = self.grid.spacing[axis], self.grid.shape[axis]
        low, high = (lax.slice_in_dim(k, i, n - 1 + i, axis=axis) for i in (0, 1))
        first, last = (lax.slice_in_dim(k, i, i + 1, axis=axis) for i in (0, n - 1))
        widths = [(1 + (i == axis), 1) for i in range(k.ndim)]
        periodic = isinstance(self.boundary[axis][0], Periodic)
        joint = 2 * first * last / (first + last) / h**2 if periodic else None
        between = jnp.pad(2 * low * high / (low + high) / h**2, widths)
        return between, (2 * first / h**2, 2 * last / h**2), joint

    # --- geometry

    @property
    def _shapes(self):
        """Of the parameters but positions."""
        shape, ndim = self.grid.shape, self.grid.ndim
        return {
            "conductivity": (ndim, *shape), "capacity": shape, "initial": shape, "heating": shape,
            "boundary": (ndim, 2), "exchange": (ndim, 2), "slope": (),
        }  # fmt: skip

    def _part(self, axis, part):
        """An index of part of an axis, and of the cells without their halo along the others."""
        return tuple(part if i == axis else slice(1, -1) for i in range(self.grid.ndim))

    @property
    def _beside(self):
        """The cells beside each of the grid's faces, axis by axis."""
        ends = [(axis, i) for axis, n in enumerate(self.grid.shape) for i in (1, n)]
        return [self._part(axis, slice(i, i + 1)) for axis, i in ends]

    def _growth(self, params):
        """How many times its value at 0 K the conductivity is, at all temperatures given."""
        known = [[isinstance(face, Dirichlet | Robin) for face in pair] for pair in self.boundary]
        faces = np.broadcast_to(np.asarray(params.boundary), (self.grid.ndim, 2))[np.array(known)]
        slope = 0.0 if params.slope is None else np.asarray(params.slope)
        return 1 + slope * np.append(np.asarray(params.initial), faces)

    def _points(self, positions):
        """Multilinear windows in the padded field around positions in metres.

        Their weights are positive and sum to one: sources keep the maximum principle and their
        heat. Where a traced position leaves the grid, they are NaN rather than a silent zero.
        """
        points = off_grid.located(self.grid, positions, off_grid.between_nodes, self.grid)
        return points._replace(start=points.start + 1)


def _misfit(name, given, shape):
    """What is wrong with the shape of a parameter, or nothing."""
    allowed = [(), shape] + [shape[1:], (1, *shape[1:])] * (name == "conductivity")
    if given in allowed:
        return ""
    return f"shape {given}, but {shape} is wanted: resample it, or give one number"


def _given(params, dtype, name, shape) -> Any:
    """A parameter, of a shape that broadcasts to the full one; None if it is absent."""
    if (value := getattr(params, name)) is None:
        return None
    value = jnp.asarray(value, dtype)
    if text := _misfit(name, value.shape, shape):
        raise ValueError(f"params.{name} has {text}")
    rows = name == "conductivity" and value.shape == shape[1:]
    return value[None] if rows else value
