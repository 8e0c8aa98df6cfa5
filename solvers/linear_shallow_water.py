"""The linear shallow water equations: tsunamis far from any shore.

``∂η/∂t + ∇·q = ∂z/∂t`` and ``∂q/∂t = -g h ∇η`` for the water level η above rest, the discharge q
and the depth at rest h = -z, on a staggered grid (levels in cells, discharges on their faces),
forward in q, then backward in η: second order, and a step can be undone.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt, MinLen
from jax import lax

from diffsim.grid import Grid
from diffsim.solver import Example, Quantity, Remark, ReversibleSolver, Sampler, frozen
from solvers import off_grid, okada, stencil
from solvers.earth import Sphere

Positive = Annotated[float, Gt(0)]


@frozen
class Wall:
    """No flow through the face."""


@frozen
class Open:
    """Waves leave: the flow runs through the face at ``√(g h)`` (Mur 1981), exact head-on."""


@frozen
class Periodic:
    """What leaves enters through the opposite face, which is periodic too."""


Face = Wall | Open | Periodic


class LinearShallowWaterParams(NamedTuple):
    bed: Annotated[Any, Quantity("bed elevation", "m")]  # [*grid.shape], land from 0 up
    stage: Annotated[Any, Quantity("initial water level", "m")]  # [*grid.shape], above rest at 0
    # [*grid.shape], rises as forcing.uplift says
    uplift: Annotated[Any, Quantity("uplift of the bed", "m")] = None
    fault: okada.Fault | None = None  # lifts the bed too


class LinearShallowWaterForcing(NamedTuple):
    # [step], the part of the uplift, params.uplift and that by params.fault, of a second
    uplift: Annotated[Any, Quantity("rate of uplift", "1/s")]


class LinearShallowWaterCoefficients(NamedTuple):
    pace: tuple  # for each axis g h dt over the cells' distance, on faces; 0 where nothing flows
    delay: tuple  # (ν - 1)/(ν + 1) with ν = √(g h) dt / spacing, before each open face
    uplift: jax.Array  # m, where there is water


class LinearShallowWaterState(NamedTuple):
    stage: jax.Array  # m
    discharge: tuple  # m²/s, half a step earlier, on faces: one more than cells along its axis


@frozen
class LinearShallowWater(ReversibleSolver):
    """Long waves of small amplitude over depths at rest, in one or two dimensions.

    Good where the amplitude is below a twentieth of the depth. Levels below a millimetre keep their
    digits in float32, as no depth is added to them.

    Args:
        grid: the cells, by their centres; axes are ``[y, x]``, y northward
        dt: s, at most `stable_dt`
        boundary: for each axis the faces before its first and after its last cell
        sphere: what the grid lies on, if it is no plane
        gravity: m/s²
    """

    Params: ClassVar = LinearShallowWaterParams
    Forcing: ClassVar = LinearShallowWaterForcing
    seen: ClassVar = Quantity("water level", "m")

    grid: Grid
    dt: Positive  # s
    boundary: Annotated[tuple[tuple[Face, Face], ...], MinLen(1)]
    sphere: Sphere | None = None
    gravity: Positive = 9.81  # m/s²

    def __post_init__(self):
        if self.grid.ndim > 2 or len(self.boundary) != self.grid.ndim:
            raise ValueError(
                f"boundary names faces for {len(self.boundary)} axes, the grid has "
                f"{self.grid.ndim}: give one or two, and a pair (before, after) for each"
            )
        for faces in self.boundary:
            if sum(isinstance(face, Periodic) for face in faces) == 1:
                raise ValueError("an axis is periodic at one end only: make both ends Periodic")
        if self.sphere:
            self.sphere.parallels(self.grid)  # refuses what is beyond the poles

    # --- contract

    def coefficients(self, params):
        for name, value in params._replace(fault=None)._asdict().items():
            if value is not None and value.shape != self.grid.shape:
                raise ValueError(
                    f"params.{name} has shape {value.shape}, but the grid has {self.grid.shape}: "
                    "resample one of them"
                )
        wet = params.bed < 0
        depth = jnp.where(wet, -params.bed, 0)
        pace = []
        for axis, faces in enumerate(self.boundary):
            low, high = _pairs(self._around(depth, axis), axis)
            face = jnp.where((low > 0) & (high > 0), (low + high) / 2, 0)
            if not isinstance(faces[0], Periodic):
                for end in (0, -1):
                    face = face.at[_layer(axis, depth.ndim, end)].set(0)
            pace.append(self.gravity * self.dt * face / self._length(axis, depth.dtype))
        speed = jnp.where(wet, jnp.sqrt(self.gravity * jnp.where(wet, depth, 1)), 0)
        delay = []
        for axis, end in self._open():
            part = speed * self.dt / self._length(axis, depth.dtype)
            part = part[_layer(axis, depth.ndim, end)]
            delay.append((part - 1) / (part + 1))
        uplift = okada.total(params.uplift, params.fault, self.grid, self.sphere)
        uplift = jnp.where(wet, 0 if uplift is None else uplift, 0)
        return LinearShallowWaterCoefficients(tuple(pace), tuple(delay), uplift)

    def init(self, params):
        stage = jnp.where(params.bed < 0, params.stage, 0)
        discharge = []
        for axis in range(stage.ndim):
            shape = [n + (i == axis) for i, n in enumerate(stage.shape)]
            discharge.append(jnp.zeros(shape, stage.dtype))
        return LinearShallowWaterState(stage, tuple(discharge))

    def step(self, coefficients, state, forcing_n):
        stage, before = state
        slopes = self._slopes(stage)
        discharge = [
            q - pace * slope
            for q, pace, slope in zip(before, coefficients.pace, slopes, strict=True)
        ]
        for (axis, end), delay in zip(self._open(), coefficients.delay, strict=True):
            outer, inner = (_layer(axis, stage.ndim, end, depth) for depth in (0, 1))
            q, old = discharge[axis], before[axis]
            leaves = old[inner] + delay * (q[inner] - old[outer])
            discharge[axis] = q.at[outer].set(leaves)
        stage = stage + self._change(coefficients, discharge, forcing_n)
        return LinearShallowWaterState(stage, tuple(discharge))

    def keep(self, state):
        return [
            state.discharge[axis][_layer(axis, self.grid.ndim, end)] for axis, end in self._open()
        ]

    def unstep(self, coefficients, state, forcing_n, kept):
        stage, discharge = state
        stage = stage - self._change(coefficients, discharge, forcing_n)
        slopes = self._slopes(stage)
        discharge = [
            q + pace * slope
            for q, pace, slope in zip(discharge, coefficients.pace, slopes, strict=True)
        ]
        for (axis, end), left in zip(self._open(), kept, strict=True):
            outer = _layer(axis, stage.ndim, end)
            discharge[axis] = discharge[axis].at[outer].set(left)
        return LinearShallowWaterState(stage, tuple(discharge))

    def stable_dt(self, params):
        """``dt √(g h Σ 1/spacing²) ≤ 1`` for the deepest and, on a sphere, narrowest cell."""
        depth = np.maximum(-np.asarray(params.bed), 0)
        lengths = (self._length(axis, float) for axis in range(depth.ndim))
        rates = sum(self.gravity * depth / np.asarray(length) ** 2 for length in lengths)
        fastest = float(np.max(rates))
        return fastest**-0.5 if fastest > 0 else np.inf

    def sampler(self, positions):
        """Gauges of the water level, linear between cells."""
        points = off_grid.located(self.grid, positions, off_grid.between_nodes, self.grid)
        return Sampler(lambda state, scale=None: off_grid.see(state, "stage", points, scale))

    def check(self, params, forcing=None):
        remarks = [
            Remark(
                f"params.{name}",
                f"shape {np.shape(value)}, but the grid has {self.grid.shape}: resample it",
            )
            for name, value in params._replace(fault=None)._asdict().items()
            if value is not None and np.shape(value) != self.grid.shape
        ]
        rate = None if forcing is None else forcing.uplift
        remarks += okada.remarks(params.uplift, params.fault, self.grid, rate)
        remarks = remarks or super().check(params, forcing)
        if not remarks:
            depth = np.maximum(-np.asarray(params.bed), 0)
            steep = np.abs(np.asarray(params.stage)) > depth / 20
            if not np.any(depth):
                remarks.append(Remark("params.bed", "all of it is land: give sea, below 0"))
            elif np.any(steep & (depth > 0)):
                text = "the level exceeds a twentieth of the depth: ShallowWater is right there"
                remarks.append(Remark("params.stage", text, fatal=False))
        return remarks

    @classmethod
    def example(cls):
        """A piece of an ocean with an island, an open south and a wall in the north."""
        grid = Grid(shape=(6, 7), spacing=(2e5, 3e5), origin=(3e6, 0.0))
        faces = ((Open(), Wall()), (Periodic(), Periodic()))
        solver = cls(grid=grid, dt=500.0, boundary=faces, sphere=Sphere())
        random = np.random.default_rng(0)
        bed = -3000 - 1000 * random.random(grid.shape)
        bed[3, 2] = 100
        stage, uplift = random.standard_normal((2, *grid.shape))
        fault = okada.Fault(9e5, 3.5e6, 1.5e5, 6e5, 3e5, 30.0, 40.0, 70.0, 20.0)
        params = LinearShallowWaterParams(bed, stage, uplift, fault)
        params = jax.tree.map(jnp.asarray, params)
        rate = 1e-3 * np.cos(np.arange(19) / 5)
        return Example(solver, params, LinearShallowWaterForcing(jnp.asarray(rate)))

    # --- geometry

    def _length(self, axis, dtype):
        """m, the distance of cells along an axis, an array that broadcasts to the grid."""
        length = np.full((1,) * self.grid.ndim, self.grid.spacing[axis])
        if axis == 1 and self.sphere:
            length = length * self.sphere.parallels(self.grid).cell
        return jnp.asarray(length, dtype)

    def _open(self):
        """The axis and the end of each open face."""
        return [
            (axis, end)
            for axis, faces in enumerate(self.boundary)
            for end, face in zip((0, -1), faces, strict=True)
            if isinstance(face, Open)
        ]

    def _around(self, u, axis):
        """A field with one more cell at both ends of an axis."""
        periodic = isinstance(self.boundary[axis][0], Periodic)
        widths = [(int(i == axis),) * 2 for i in range(u.ndim)]
        return jnp.pad(u, widths, mode="wrap" if periodic else "edge")

    def _slopes(self, stage):
        """Differences of the level across the faces of each axis."""
        return [jnp.diff(self._around(stage, axis), axis=axis) for axis in range(stage.ndim)]

    def _change(self, coefficients, discharge, forcing_n):
        """What a step adds to the level where nothing leaks."""
        change = jnp.zeros_like(coefficients.uplift)
        for axis, q in enumerate(discharge):
            length = self._length(axis, q.dtype)
            if axis == 0 and self.sphere:  # cells are narrower towards the poles
                rows = self.sphere.parallels(self.grid)
                q = q * jnp.asarray(rows.face, q.dtype)
                length = length * jnp.asarray(rows.cell, q.dtype)
            change -= self.dt / length * jnp.diff(q, axis=axis)
        if forcing_n is not None:
            change += self.dt * forcing_n.uplift.astype(change.dtype) * coefficients.uplift
        return change


def _pairs(u, axis):
    """What lies before and after each face."""
    count = u.shape[axis]
    return (lax.slice_in_dim(u, i, count - 1 + i, axis=axis) for i in (0, 1))


def _layer(axis, ndim, end, depth=0):
    """An index of the entries so deep below the first (0) or the last (-1) along an axis."""
    first = depth if end == 0 else -1 - depth
    return stencil.along(axis, ndim, slice(first, first + 1 or None))
