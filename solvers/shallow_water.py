"""The nonlinear shallow water equations over a rough bed that may fall dry.

``∂h/∂t + ∇·q = r`` and ``∂q/∂t + ∇·(q q / h + ½ g h²) = -g h ∇z - g n² |q| q / h^(7/3) - f × q``
for depth h, discharge q = h u and bed z, by finite volumes: limited linear reconstruction,
hydrostatic reconstruction at the faces (Audusse et al. 2004, SIAM J. Sci. Comput. 25), HLL fluxes,
SSP-RK2. On a sphere fluxes go through faces that are shorter towards the poles, and flow along a
parallel turns by ``u tan(latitude) / radius`` as it does by f.
"""

import itertools
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, MinLen

from diffsim.grid import Grid
from diffsim.solver import AdjointSolver, Example, Quantity, Remark, Sampler, frozen
from solvers import off_grid, okada, stencil
from solvers.earth import Coriolis, Rotation, Sphere
from solvers.finite_volumes import FiniteVolumes
from solvers.shores import Discharge, Face, Open, Periodic, Stage, Wall  # noqa: F401
from solvers.water import Law, positive, root

Positive = Annotated[float, Gt(0)]


class ShallowWaterParams(NamedTuple):
    bed: Annotated[Any, Quantity("bed elevation", "m")]  # [*grid.shape]
    stage: Annotated[Any, Quantity("initial water level", "m")]  # [*grid.shape], dry below the bed
    # [axis, *grid.shape], velocity times depth; at rest if None
    discharge: Annotated[Any, Quantity("initial discharge", "m²/s")] = None
    # [*grid.shape], Manning's n; smooth if None
    friction: Annotated[Any, Quantity("Manning's n", "s m^(-1/3)")] = None
    # [*grid.shape], rises as forcing.uplift says
    uplift: Annotated[Any, Quantity("uplift of the bed", "m")] = None
    fault: okada.Fault | None = None  # lifts the bed too


class ShallowWaterForcing(NamedTuple):
    # [step, face]: for each Stage face, in the order of the axes, before and after; [step] of one
    stage: Annotated[Any, Quantity("water level at faces", "m")] = None
    # [step, face]: for each Discharge face, positive into the grid
    discharge: Annotated[Any, Quantity("discharge through faces", "m²/s")] = None
    rain: Annotated[Any, Quantity("rain", "m/s")] = None  # [step] or [step, *grid.shape]
    # [step], the part of the uplift, params.uplift and that by params.fault, of a second
    uplift: Annotated[Any, Quantity("rate of uplift", "1/s")] = None


class ShallowWaterCoefficients(NamedTuple):
    friction: Any  # g n² dt
    uplift: Any  # m


class ShallowWaterState(NamedTuple):
    depth: jax.Array  # m
    discharge: tuple  # m²/s, one array for each axis
    bed: jax.Array  # m


class Acting(NamedTuple):
    """What acts on the flow during a step."""

    bed: jax.Array  # m
    friction: Any  # g n² dt
    rain: Any  # m/s
    given: list  # the value of the series of each face, None where there is none


@frozen
class ShallowWater(AdjointSolver):
    """Shallow water in one or two dimensions; the grid's nodes are the centres of its cells.

    Still water stays still over any bed, wet or dry; water is neither made nor lost; depths are
    never negative. Gradients are finite where it is dry: there nothing moves, so they are zero.

    Args:
        grid: the cells, by their centres; of two axes, ``[y, x]``, y northward
        dt: s, at most `stable_dt`
        boundary: for each axis the faces before its first and after its last cell
        limiter: of the linear reconstruction; None for the first-order scheme
        thin: m, water shallower than this slows down to rest
        sphere: what the grid lies on, if it is no plane
        coriolis: the Earth's rotation, in two dimensions; `Rotation` on a sphere
        gravity: m/s²
    """

    Params: ClassVar = ShallowWaterParams
    Forcing: ClassVar = ShallowWaterForcing
    seen: ClassVar = Quantity("water level", "m")

    grid: Grid
    dt: Positive  # s
    boundary: Annotated[tuple[tuple[Face, Face], ...], MinLen(1)]
    limiter: stencil.Limiter | None = stencil.VanLeer()
    thin: Positive = 1e-6  # m
    sphere: Sphere | None = None
    coriolis: Coriolis | Rotation | None = None
    gravity: Positive = 9.81  # m/s²

    def __post_init__(self):
        if self.grid.ndim > 2:
            raise ValueError(f"the grid has {self.grid.ndim} axes: give one or two")
        if len(self.boundary) != self.grid.ndim:
            raise ValueError(
                f"boundary names faces for {len(self.boundary)} axes, but the grid has "
                f"{self.grid.ndim}: give a pair (before, after) for each axis"
            )
        if self.coriolis and self.grid.ndim == 1:
            raise ValueError("coriolis turns flow from one axis to another: give a grid of two")
        self._coriolis()  # refuses a rotation of no sphere
        if self.sphere:
            self.sphere.parallels(self.grid)  # refuses what is beyond the poles
        for faces in self.boundary:
            if sum(isinstance(face, Periodic) for face in faces) == 1:
                raise ValueError("an axis is periodic at one end only: make both ends Periodic")
        if min(self.grid.shape) < (halo := self._volumes.shores.halo):
            raise ValueError(f"shape {self.grid.shape}: give {halo} cells or more an axis")

    # --- contract

    @property
    def unroll(self):
        return 1

    def coefficients(self, params):
        for name, value in params._replace(fault=None)._asdict().items():
            if value is not None and value.shape != (shape := self._shape(name)):
                raise ValueError(
                    f"params.{name} has shape {value.shape}, but the grid needs {shape}: "
                    "resample one of them"
                )
        friction = None
        if params.friction is not None:
            friction = self.gravity * self.dt * params.friction**2
        uplift = okada.total(params.uplift, params.fault, self.grid, self.sphere)
        return ShallowWaterCoefficients(friction, uplift)

    def init(self, params):
        depth = positive(params.stage - params.bed)
        discharge = params.discharge
        if discharge is None:
            discharge = jnp.zeros((self.grid.ndim, *self.grid.shape), depth.dtype)
        dry = depth <= 0
        discharge = tuple(jnp.where(dry, 0, discharge[a]) for a in range(self.grid.ndim))
        return ShallowWaterState(depth, discharge, params.bed)

    def step(self, coefficients, state, forcing_n):
        acting = self._acting(coefficients, state.bed, forcing_n)

        def euler(flow):
            depth, discharge = flow
            state = ShallowWaterState(depth, discharge, acting.bed)
            return self._moved(flow, self._volumes.advance(state, acting.given), acting)

        flow = state.depth, state.discharge
        depth, discharge = stencil.strong_stability_preserving(euler, flow)
        return ShallowWaterState(depth, discharge, acting.bed)

    def pullback(self, coefficients, state, forcing_n, state_bar):
        """The transposes of both stages, the second's first; that of the fluxes is by hand."""
        acting, pull_acting = jax.vjp(self._acting, coefficients, state.bed, forcing_n)
        second, pull_first = self._euler_vjp((state.depth, state.discharge), acting)
        _, pull_second = self._euler_vjp(second, acting)
        half = jax.tree.map(lambda bar: bar / 2, (state_bar.depth, state_bar.discharge))
        nothing = jax.tree.map(jnp.zeros_like, acting)._replace(bed=state_bar.bed)
        flow_bar, acting_bar = pull_first(*pull_second(half, nothing))
        depth_bar, discharge_bar = _sum(flow_bar, half)
        coefficients_bar, bed_bar, forcing_bar = pull_acting(acting_bar)
        state_bar = ShallowWaterState(depth_bar, discharge_bar, bed_bar)
        return coefficients_bar, state_bar, forcing_bar

    def stable_dt(self, params):
        """``Σ (|u| + √(g h)) dt / length ≤ ½`` (1 for the first order), at the start.

        The length is the spacing or, on a sphere, a cell's area over that of its longer face. It
        keeps depths positive. Allow for flow that gets faster: the front of a dam break runs at
        twice the speed of a wave on the water behind it.
        """
        depth = np.maximum(np.asarray(params.stage) - np.asarray(params.bed), 0)
        flow = 0.0 if params.discharge is None else np.asarray(params.discharge)
        flow = np.broadcast_to(flow, self._shape("discharge"))
        speed = np.abs(flow) * depth / np.maximum(depth, self.thin) ** 2
        wave = np.sqrt(self.gravity * depth)
        rates = [(u + wave) / length for u, length in zip(speed, self._lengths(), strict=True)]
        fastest = float(np.max(sum(rates)))
        return (1.0 if self.limiter is None else 0.5) / fastest if fastest > 0 else np.inf

    def sampler(self, positions):
        """Gauges of the water level, linear between cells; on dry land they see the bed."""
        points = off_grid.located(self.grid, positions, off_grid.between_nodes, self.grid)

        def see(state):
            state, depth = off_grid.see(state, "depth", points)
            state, bed = off_grid.see(state, "bed", points)
            return state, depth + bed

        return Sampler(see)

    def check(self, params, forcing=None):
        forcing = forcing or ShallowWaterForcing()
        remarks = [
            Remark(
                f"params.{name}",
                f"shape {np.shape(value)}, but the grid needs {self._shape(name)}: resample it",
            )
            for name, value in params._replace(fault=None)._asdict().items()
            if value is not None and np.shape(value) != self._shape(name)
        ]
        for kind in (Stage, Discharge):
            name, count = kind.__name__.lower(), self._count(kind)
            series: Any = getattr(forcing, name)
            shape = () if series is None else np.shape(series)
            if (shape[1:] or (1,) if shape else ()) != ((count,) if count else ()):
                text = f"{count} faces take a series, but its shape is {shape}: "
                remarks.append(Remark(f"forcing.{name}", text + "give [step, face]"))
        remarks += okada.remarks(params.uplift, params.fault, self.grid, forcing.uplift)
        return remarks or super().check(params, forcing) + self._doubts(params, forcing)

    def _doubts(self, params, forcing):
        remarks = []
        if params.friction is not None and np.any(np.asarray(params.friction) < 0):
            text = f"the lowest is {np.min(params.friction):g}: give 0 or more"
            remarks.append(Remark("params.friction", text))
        dry = np.asarray(params.stage) <= np.asarray(params.bed)
        if np.all(dry) and not any(np.any(series) for series in forcing if series is not None):
            text = "it is below the bed everywhere, and nothing comes in: raise it"
            remarks.append(Remark("params.stage", text))
        if params.discharge is not None and np.any(np.asarray(params.discharge)[:, dry]):
            text = "water is to flow where it is dry: it will not; set it to 0 there"
            remarks.append(Remark("params.discharge", text, fatal=False))
        return remarks

    def _lengths(self):
        """m, for each axis: a cell's area over the length of the longer of its faces across it."""
        if not self.sphere:
            return self.grid.spacing
        (y, x), rows = self.grid.spacing, self.sphere.parallels(self.grid)
        return y * rows.cell / np.maximum(rows.face[1:], rows.face[:-1]), x * rows.cell

    def _coriolis(self):
        """1/s, ``[y, 1]``, or None."""
        y = self.grid.origin[0] + self.grid.spacing[0] * np.arange(self.grid.shape[0])
        return self.coriolis and self.coriolis.along(y[:, None], self.sphere)

    def _shape(self, name):
        """The shape of a parameter."""
        return (self.grid.ndim,) * (name == "discharge") + self.grid.shape

    def _count(self, kind):
        """How many faces are of a kind."""
        return sum(isinstance(face, kind) for faces in self.boundary for face in faces)

    @classmethod
    def example(cls):
        """A draining channel of the first order: far from where limiters and waves switch."""
        grid = Grid(shape=(8,), spacing=(5.0,))
        solver = cls(grid=grid, dt=0.5, boundary=((Discharge(), Stage()),), limiter=None)
        x = np.arange(1, 9) / 8
        bed, stage, discharge = -1.5 * x**2, 2 - 0.6 * x**2, 5 + 2.5 * x[None] ** 2
        params = ShallowWaterParams(bed, stage, discharge, 0.2 + 0.04 * x, 6 - 4 * x**2)
        steps = np.arange(19)
        level, inflow = 1.3 - 0.01 * steps, 5 + 4 * np.exp(-(((steps - 7) / 3) ** 2))
        shower = 0.3 + 0.3 * np.exp(-((steps - 5) ** 2))
        jolt = 0.05 + 0.15 * np.exp(-((steps - 3) ** 2))
        forcing = level[:, None], inflow[:, None], shower, jolt
        return Example(
            solver,
            jax.tree.map(jnp.asarray, params),
            ShallowWaterForcing(*map(jnp.asarray, forcing)),
        )

    # --- one Euler step

    @property
    def _law(self):
        return Law(self.gravity, self.thin)

    @property
    def _volumes(self):
        return FiniteVolumes(
            self.grid, self.boundary, self.limiter, self._law, self.sphere, self.dt
        )

    def _acting(self, coefficients, bed, forcing_n):
        """What acts on the flow during this step."""
        forcing = ShallowWaterForcing() if forcing_n is None else forcing_n
        if forcing.uplift is not None:
            bed = bed + self.dt * forcing.uplift.astype(bed.dtype) * coefficients.uplift
        rain = forcing.rain
        if rain is not None:
            rain = jnp.broadcast_to(rain.astype(bed.dtype), bed.shape)
        given = self._given(forcing, bed.dtype)
        return Acting(bed, coefficients.friction, rain, given)

    def _given(self, forcing, dtype):
        """For each face the value of its series, None if it has none."""
        given, series = [], {}
        for face in itertools.chain(*self.boundary):
            if not isinstance(face, Stage | Discharge):
                given.append(None)
                continue
            name, count = type(face).__name__.lower(), self._count(type(face))
            values = getattr(forcing, name)
            shape = None if values is None else jnp.shape(values) or (1,)  # one needs no axis
            if values is None or shape != (count,):
                raise ValueError(
                    f"forcing.{name} has shape {shape} a step for {count} faces: give [step, face]"
                )
            rest = series.setdefault(name, iter(jnp.reshape(values, shape).astype(dtype)))
            given.append(next(rest))
        return given

    def _euler_vjp(self, flow, acting):
        """A step of Euler's, and its transpose, which adds to the cotangents of what acts."""
        depth, discharge = flow
        state = ShallowWaterState(depth, discharge, acting.bed)
        advanced, pull_advance = self._volumes.vjp(state, acting.given)
        new, pull_moved = jax.vjp(self._moved, flow, advanced, acting)

        def pull(flow_bar, acting_bar):
            flow_bar, advanced_bar, more = pull_moved(flow_bar)
            (*advanced_bar, bed_bar), given_bar = pull_advance(advanced_bar, acting_bar.bed)
            acting_bar = _sum(acting_bar, more._replace(given=given_bar))._replace(bed=bed_bar)
            return stencil.materialise((_sum(flow_bar, tuple(advanced_bar)), acting_bar))

        return stencil.materialise(new), pull

    def _moved(self, flow, advanced, acting):
        """Depth and discharge after a step of Euler's, from those by fluxes alone."""
        depth, discharge = advanced
        turn = self._turn(*flow)
        if turn is not None:
            qy, qx = flow[1]
            turn *= self.dt
            discharge = discharge[0] - turn * qx, discharge[1] + turn * qy
        if acting.rain is not None:
            depth = depth + self.dt * acting.rain
        depth, *discharge = stencil.barrier((positive(depth), *discharge))
        return depth, self._slowed(acting.friction, depth, discharge)

    def _turn(self, depth, discharge):
        """1/s, ``f + u tan(latitude) / radius``: flow turns by it, clockwise; None if straight."""
        turn = self._coriolis()
        if turn is not None:
            turn = jnp.asarray(turn, depth.dtype)
        if self.sphere:
            per_metre = jnp.asarray(self.sphere.parallels(self.grid).turn, depth.dtype)
            metric = per_metre * self._law.slowness(depth) * discharge[1]
            turn = metric if turn is None else turn + metric
        return turn

    def _slowed(self, friction, depth, discharge):
        """Manning friction, implicit: the root of ``q' (1 + B |q'|) = q``; rest where it is dry."""
        factor = (jnp.minimum(depth, self.thin) * (1 / self.thin)) ** 2
        if friction is not None:
            deep = jnp.maximum(depth, self.thin)
            drag = friction * jnp.exp(-7 / 3 * jnp.log(deep))
            factor *= 2 / (1 + jnp.sqrt(1 + 4 * drag * _norm(discharge)))
        factor = stencil.barrier(factor)
        return tuple(factor * q for q in discharge)


def _sum(a, b):
    return jax.tree.map(jnp.add, a, b)


def _norm(vector):
    return root(sum(v**2 for v in vector))
