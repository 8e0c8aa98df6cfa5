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

from diffsim.grid import Grid
from diffsim.solver import AdjointSolver, Example, Quantity, Remark, Sampler, added, frozen
from solvers import multigrid, off_grid
from solvers.conduction import (
    Body,
    Dirichlet,
    Face,
    HeatCoefficients,
    Law,
    Neumann,
    Periodic,
    Robin,
    Sums,
)
from solvers.diffusion import RKL2, Explicit, Problem, Scheme, Theta

__all__ = [
    "RKL2", "Dirichlet", "Explicit", "Heat", "HeatForcing", "HeatParams", "Neumann", "Periodic",
    "Robin", "Theta",
]  # fmt: skip


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
        parts = [self._body.conductances(k, axis) for axis, k in enumerate(full["conductivity"])]
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
        return self._step(self._body.increment, coefficients, state, forcing_n)

    def pullback(self, coefficients, state, forcing_n, state_bar):
        """The explicit schemes' transpose by hand; the implicit ones push tangents as well."""
        by_hand = not isinstance(self.scheme, Theta)
        step = partial(self._step, self._body.transposable if by_hand else self._body.increment)
        return jax.vjp(step, coefficients, state, forcing_n)[1](state_bar)

    def accumulate(self, coefficients, state, forcing_n, state_bar, total):
        """An explicit step's adds to what is so far of the fields that it makes."""
        if not isinstance(self.scheme, Explicit):
            return super().accumulate(coefficients, state, forcing_n, state_bar, total)
        sums = Sums(total.conductance, total.pace if total.pace.ndim else None)

        def step(sums, *args):
            return self._step(partial(self._body.transposable, sums=sums), *args)

        _, transpose = jax.vjp(step, sums, coefficients, state, forcing_n)
        sums, more, *bars = transpose(state_bar)
        total = added(total, more)._replace(conductance=sums.conductance)
        return total if sums.pace is None else total._replace(pace=sums.pace), *bars

    def stable_dt(self, params):
        """``reach · 2 / λ`` with Gershgorin's bound on the largest eigenvalue λ.

        Exact where the coefficients are constant, but for a grid of n cells between insulated
        faces, which would bear ``1/cos²(π/2n)`` as much. Where the conductivity grows, it is that
        of the highest temperature of the start and the faces.
        """
        c = self.coefficients(params)
        operator = self._body.operator(c)
        rate = np.asarray((operator.own + 2 * multigrid.coupling(operator)) * c.pace / self.dt)
        return self.scheme.reach * 2 / float(np.max(rate) * self._growth(params).max())

    def sampler(self, positions):
        points = self._points(positions)
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

    # --- parts

    @property
    def _body(self):
        return Body(self.grid, self.boundary)

    def _step(self, increment, coefficients, state, forcing_n):
        c = self._driven(coefficients, forcing_n)
        power = None if forcing_n is None else forcing_n.sources
        increment = partial(increment, c._replace(pace=None), power)
        inverse, operator = c.law.temperature, partial(self._body.operator, c)
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

    @property
    def _shapes(self):
        """Of the parameters but positions."""
        shape, ndim = self.grid.shape, self.grid.ndim
        return {
            "conductivity": (ndim, *shape), "capacity": shape, "initial": shape, "heating": shape,
            "boundary": (ndim, 2), "exchange": (ndim, 2), "slope": (),
        }  # fmt: skip

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
