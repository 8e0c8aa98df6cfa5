"""The nonlinear shallow water equations over a rough bed that may fall dry.

``∂h/∂t + ∇·q = r`` and ``∂q/∂t + ∇·(q q / h + ½ g h²) = -g h ∇z - g n² |q| q / h^(7/3) - f × q``
for depth h, discharge q = h u and bed z, by finite volumes: limited linear reconstruction,
hydrostatic reconstruction at the faces (Audusse et al. 2004, SIAM J. Sci. Comput. 25), HLL fluxes,
SSP-RK2. On a sphere fluxes go through faces that are shorter towards the poles, and flow along a
parallel turns by ``u tan(latitude) / radius`` as it does by f.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, MinLen
from jax import lax

from diffsim.grid import Grid
from diffsim.solver import Example, Quantity, Remark, Solver, frozen
from solvers import okada, stencil
from solvers.earth import Coriolis, Rotation, Sphere

Positive = Annotated[float, Gt(0)]

# m; the reciprocals that derivatives of thinner films hold would overflow in float32
NOTHING = 1e-18


@frozen
class Wall:
    """No flow through the face."""


@frozen
class Open:
    """Waves leave.

    Beyond the face lies a sea at rest: the wave that comes in from there carries its ``2 √(g h)``,
    the one that leaves what the water inside has. Without a level water flows out as it comes, and
    none flows in, as at the end of a channel.

    Args:
        level: m, of the sea beyond
    """

    level: float | None = None  # m


@frozen
class Stage:
    """The water level beyond the face is given in time: ``forcing.stage``."""


@frozen
class Discharge:
    """The flow into the grid through the face is given in time: ``forcing.discharge``."""


@frozen
class Periodic:
    """What leaves enters through the opposite face, which is periodic too."""


Face = Wall | Open | Stage | Discharge | Periodic


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
    coriolis: Any  # 1/s, [y, 1]
    parallels: Any  # of the sphere


class ShallowWaterState(NamedTuple):
    depth: jax.Array  # m
    discharge: tuple  # m²/s, one array for each axis
    bed: jax.Array  # m


@frozen
class ShallowWater(Solver):
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
        if min(self.grid.shape) < self._halo:
            raise ValueError(f"shape {self.grid.shape}: give {self._halo} cells or more an axis")

    # --- contract

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
        rows = self._coriolis(), self.sphere and self.sphere.parallels(self.grid)
        rows = jax.tree.map(lambda a: jnp.asarray(a, params.bed.dtype), rows)
        uplift = okada.total(params.uplift, params.fault, self.grid, self.sphere)
        return ShallowWaterCoefficients(friction, uplift, *rows)

    def init(self, params):
        depth = _positive(params.stage - params.bed)
        discharge = params.discharge
        if discharge is None:
            discharge = jnp.zeros((self.grid.ndim, *self.grid.shape), depth.dtype)
        dry = depth <= 0
        discharge = tuple(jnp.where(dry, 0, discharge[a]) for a in range(self.grid.ndim))
        return ShallowWaterState(depth, discharge, params.bed)

    def step(self, coefficients, state, forcing_n):
        forcing = ShallowWaterForcing() if forcing_n is None else forcing_n
        depth, discharge, bed = state
        if forcing.uplift is not None:
            bed = bed + self.dt * forcing.uplift.astype(bed.dtype) * coefficients.uplift

        def euler(flow):
            depth, discharge = flow
            return self._euler(coefficients, depth, discharge, bed, forcing)

        start = depth, discharge
        depth, discharge = stencil.strong_stability_preserving(euler, start)
        return ShallowWaterState(depth, discharge, bed)

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
        positions = jnp.asarray(positions)
        outside = self.grid.outside(positions)
        if not isinstance(outside, jax.core.Tracer) and np.any(outside):
            raise ValueError(
                f"{int(np.sum(outside))} of {len(positions)} positions are outside the grid "
                f"{self.grid.extent} m: move them inside"
            )
        start, weights = stencil.linear_points(self.grid.nodes(positions), self.grid.shape)
        lost = jnp.expand_dims(jnp.asarray(outside), tuple(range(1, weights.ndim)))
        points = stencil.Points(start, jnp.where(lost, jnp.nan, weights))
        return lambda state: stencil.take(state.depth + state.bed, points)

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
    def _halo(self):
        return 1 if self.limiter is None else 2

    def _euler(self, coefficients, depth, discharge, bed, forcing):
        beyond = self._beyond(depth, discharge, bed, forcing)
        rate, rates = self._rates(*beyond, coefficients.parallels)
        turn = self._turn(coefficients, depth, discharge)
        if turn is not None:
            qy, qx = discharge
            rates = [rates[0] - turn * qx, rates[1] + turn * qy]
        if forcing.rain is not None:
            rate = rate + jnp.broadcast_to(forcing.rain.astype(rate.dtype), rate.shape)
        depth = _positive(depth + self.dt * rate)
        discharge = [q + self.dt * r for q, r in zip(discharge, rates, strict=True)]
        depth, *discharge = stencil.barrier((depth, *discharge))
        return depth, self._slowed(coefficients.friction, depth, discharge)

    def _turn(self, coefficients, depth, discharge):
        """1/s, ``f + u tan(latitude) / radius``: flow turns by it, clockwise; None if straight."""
        parallels = coefficients.parallels
        if parallels is None:
            return coefficients.coriolis
        east = discharge[1] * depth / jnp.maximum(depth, self.thin) ** 2  # m/s
        turn = parallels.turn * east
        return turn if coefficients.coriolis is None else coefficients.coriolis + turn

    def _slowed(self, friction, depth, discharge):
        """Manning friction, implicit: the root of ``q' (1 + B |q'|) = q``; rest where it is dry."""
        deep = jnp.maximum(depth, self.thin)
        factor = (depth / deep) ** 2
        if friction is not None:
            drag = friction * jnp.exp(-7 / 3 * jnp.log(deep))
            factor *= 2 / (1 + jnp.sqrt(1 + 4 * drag * _norm(discharge)))
        factor = stencil.barrier(factor)
        return tuple(factor * q for q in discharge)

    def _rates(self, depth, discharge, bed, parallels):
        """∂h/∂t and ∂q/∂t by fluxes and the slope of the bed, from fields with their halo."""
        deep = jnp.maximum(depth, self.thin)
        velocity = stencil.barrier([q * depth / deep**2 for q in discharge])
        depth, level = stencil.cotangent_barrier((depth, depth + bed))
        ndim = self.grid.ndim
        rate: Any = 0.0
        rates: list[Any] = [0.0] * ndim
        for axis, spacing in enumerate(self.grid.spacing):
            band = tuple(
                slice(None) if i == axis else slice(self._halo, -self._halo) for i in range(ndim)
            )
            mass, before, after, carried, slope = self._fluxes(
                axis, depth[band], level[band], [v[band] for v in velocity]
            )
            if parallels is not None and axis == 0:
                mass, before, after = (parallels.face * flux for flux in (mass, before, after))
                carried = [parallels.face * flux for flux in carried]
                slope = parallels.cell * slope
            rate -= jnp.diff(mass, axis=axis) / spacing
            inner = depth[(slice(self._halo, -self._halo),) * ndim]
            low, high = _cut(after, axis, 0, 1), _cut(before, axis, 1, 0)
            push = high - low + self.gravity * inner * slope
            for a in range(ndim):
                change = push if a == axis else jnp.diff(carried[a], axis=axis)
                rates[a] = rates[a] - change / spacing
        if parallels is not None:
            rate, *rates = (r / parallels.cell for r in (rate, *rates))
        return stencil.barrier((rate, rates))

    def _fluxes(self, axis, depth, level, velocity):
        """Fluxes through the faces across an axis.

        Of mass; of momentum along the axis, less the pressure in the cell before the face and in
        the one after it; of momentum along each axis. And the slope of the level in the cells. The
        pressure on a cell's faces and the weight on its bed cancel in still water: they are never
        computed, only the pull of the sloping surface, ``-g h ∂(h + z)/∂x``, is.
        """
        (hl, hr), _ = self._faces(depth, axis)
        (wl, wr), slope = self._faces(level, axis)
        sides = [self._faces(v, axis)[0] for v in velocity]
        ul, ur = sides[axis]
        sill = jnp.maximum(wl - hl, wr - hr)
        hl, hr = stencil.barrier((_positive(wl - sill), _positive(wr - sill)))
        cl, cr = _root(self.gravity * hl), _root(self.gravity * hr)
        sl = jnp.minimum(jnp.minimum(ul - cl, ur - cr), 0)
        sr = jnp.maximum(jnp.maximum(ul + cl, ur + cr), 0)
        sl, sr = stencil.barrier((sl, sr))
        wet = hl + hr > 0
        share = jnp.where(wet, 1 / jnp.where(wet, sr - sl, 1), 0)
        of_left, mixing = sr * share, sl * sr * share
        of_right = 1 - of_left
        ql, qr = hl * ul, hr * ur
        mass = of_left * ql + of_right * qr + mixing * (hr - hl)
        momentum = of_left * ql * ul + of_right * qr * ur + mixing * (qr - ql)
        lift = self.gravity / 2 * (hr - hl) * (hr + hl)
        before, after = momentum + of_right * lift, momentum - of_left * lift
        mass, before, after = stencil.barrier((mass, before, after))
        carried = [jnp.maximum(mass, 0) * vl + jnp.minimum(mass, 0) * vr for vl, vr in sides]
        return mass, before, after, carried, slope

    def _faces(self, u, axis):
        """A field on both sides of each face, and its limited slope in each cell of the grid."""
        if self.limiter is None:
            return (_cut(u, axis, 0, 1), _cut(u, axis, 1, 0)), 0.0
        step = jnp.diff(u, axis=axis)
        slope = self.limiter.slope(_cut(step, axis, 0, 1), _cut(step, axis, 1, 0))
        slope = stencil.barrier(slope)
        before = _cut(u, axis, 1, 2) + _cut(slope, axis, 0, 1) / 2
        after = _cut(u, axis, 2, 1) - _cut(slope, axis, 1, 0) / 2
        sides = stencil.cotangent_barrier((before, after))
        return sides, _cut(slope, axis, 1, 1)

    # --- beyond the faces

    def _beyond(self, depth, discharge, bed, forcing):
        """The fields with a halo that holds what is beyond each face."""
        halo, ndim = self._halo, self.grid.ndim
        fields = [jnp.pad(u, halo) for u in (depth, *discharge, bed)]
        series = {Stage: 0, Discharge: 0}
        for axis, faces in enumerate(self.boundary):
            for high, face in enumerate(faces):
                given = None
                if isinstance(face, Stage | Discharge):
                    given = self._given(forcing, face, series[type(face)])
                    series[type(face)] += 1
                inner, outer = _strips(halo, high, isinstance(face, Periodic))
                inside = [u[stencil.along(axis, ndim, inner)] for u in fields]
                if not isinstance(face, Periodic):
                    inside = [jnp.flip(u, axis) for u in inside]
                    inside = self._outside(face, axis, 1 - 2 * high, inside, given)
                where = stencil.along(axis, ndim, outer)
                fields = [u.at[where].set(v) for u, v in zip(fields, inside, strict=True)]
        depth, *discharge, bed = stencil.cotangent_barrier(fields)
        return depth, discharge, bed

    def _given(self, forcing, face, i):
        """The value of the i-th series of a kind of face; one face needs no axis of faces."""
        name = type(face).__name__.lower()
        values, count = getattr(forcing, name), self._count(type(face))
        shape = None if values is None else jnp.shape(values) or (1,)
        if values is None or shape != (count,):
            raise ValueError(
                f"forcing.{name} has shape {shape} a step for {count} faces: give [step, face]"
            )
        return jnp.reshape(values, shape)[i]

    def _outside(self, face, axis, inward, mirrored, given):
        """The mirrored cells, changed to what the face stands for."""
        depth, *discharge, bed = mirrored
        into = inward * discharge[axis]
        if isinstance(face, Wall):
            into = -into
        elif isinstance(face, Stage):
            deep = jnp.maximum(depth, self.thin)
            outside = _positive(given.astype(bed.dtype) - bed)
            # the wave that leaves carries u - 2c, counted inward
            speed = into * depth / deep**2 + 2 * (
                _root(self.gravity * outside) - _root(self.gravity * depth)
            )
            depth, into = outside, outside * speed
        elif isinstance(face, Open):
            depth, into = self._left(face, depth, into, bed)
        elif isinstance(face, Discharge):
            into = jnp.full_like(into, given)
            critical = jnp.cbrt(given**2 / self.gravity)
            depth = jnp.maximum(depth, critical)
        discharge[axis] = inward * into
        return [depth, *discharge, bed]

    def _left(self, face, depth, into, bed):
        """Depth and inflow beyond an open face: both waves meet there (Riemann's invariants)."""
        if face.level is None:
            return depth, jnp.minimum(into, 0)
        leaving = -into * depth / jnp.maximum(depth, self.thin) ** 2  # m/s
        own = _root(self.gravity * depth)
        rest = _root(self.gravity * _positive(face.level - bed))
        celerity = jnp.maximum((leaving + 2 * own + 2 * rest) / 4, 0)
        beyond, out = celerity**2 / self.gravity, leaving / 2 + own - rest
        fast = leaving > own  # nothing comes in against the flow
        return jnp.where(fast, depth, beyond), jnp.where(fast, into, -out * beyond)


def _strips(halo, high, periodic):
    """The cells whose values go beyond a face, and the halo there."""
    outer = slice(-halo, None) if high else slice(0, halo)
    if bool(high) == periodic:
        return slice(halo, 2 * halo), outer
    return slice(-2 * halo, -halo), outer


def _cut(u, axis, first, last):
    """``u`` without so many entries at either end of an axis."""
    return lax.slice_in_dim(u, first, u.shape[axis] - last, axis=axis)


def _positive(x):
    """``max(x, 0)`` with derivative 0 at 0, and 0 for what no sum of depths would notice."""
    return jnp.where(x > NOTHING, x, 0)


def _root(x):
    """``√x`` with derivative 0 at 0."""
    positive = x > NOTHING**2
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _norm(vector):
    return _root(sum(v**2 for v in vector))
