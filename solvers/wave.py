"""The acoustic wave equation.

``1/(ρ c²) ∂²p/∂t² - ∇·(1/ρ ∇p) = Σᵢ fᵢ(t) (mᵢ - dᵢ·∇) δ(x - xᵢ) / ρ(xᵢ)``, leapfrog in time,
central differences of order 2, 4, 6 or 8 in space. The density ρ drops out where it is constant:
then the differences are those of ∇²p, and otherwise staggered ones. The fields carry a halo of half
a stencil around the grid and its absorbing layers.
"""

from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le, MinLen

from diffsim.grid import Grid
from diffsim.solver import (
    Example,
    ImagingSolver,
    Quantity,
    Remark,
    RetracingSolver,
    Sampler,
    added,
    frozen,
)
from solvers import (
    acoustics,
    constant_density,
    divergence,
    layers,
    off_grid,
    stencil,
    variable_density,
)
from solvers.acoustics import WaveForcing
from solvers.faces import Absorbing, Face, Frame, Free, Periodic, Rigid, refuse_misfits

__all__ = [
    "Absorbing", "Free", "Periodic", "Rigid",
    "Wave", "WaveCoefficients", "WaveForcing", "WaveParams", "WaveState",
]  # fmt: skip

Positive = Annotated[float, Gt(0)]
FIELDS = {"speed": "m/s", "density": "kg/m³", "initial": "Pa"}  # of the params, on the grid


class WaveParams(NamedTuple):
    speed: Annotated[jax.Array, Quantity("P-wave speed", "m/s")]  # [*grid.shape]
    # [source, axis]; there is none if None
    sources: Annotated[Any, Quantity("source position", "m")]
    # [*grid.shape]; constant if None
    density: Annotated[Any, Quantity("density", "kg/m³")] = None
    # [*grid.shape], at rest; silence if None
    initial: Annotated[Any, Quantity("initial pressure", "Pa")] = None
    # [source, 1 + axis]: (m, *d), (1, 0, …) if None. A dipole d fᵢ is a point force in N m^(axes-3)
    moments: Annotated[Any, Quantity("source moments: pressure, dipole", "1, m")] = None


class WaveCoefficients(NamedTuple):
    kappa: jax.Array  # m², dt² c², zero in the halo and on free surfaces; times ρ if that varies
    sources: off_grid.Points | None  # weights times dt² c² over the cell's volume
    buoyancy: tuple | None = None  # 1/(ρ h²) halfway between nodes along each axis


class WaveState(NamedTuple):
    pressure: jax.Array  # Pa
    previous: jax.Array  # Pa, one step earlier
    memory: tuple  # (ψ, ζ) of each layer


@frozen
class Wave(RetracingSolver, ImagingSolver):
    """Acoustic waves on a regular grid of any dimension.

    Args:
        grid: the nodes; absorbing layers come on top of it
        dt: s, at most `stable_dt`
        order: of the space differences; 8 needs about 5 points per wavelength, 4 about 8
        boundary: for each axis the faces before its first and after its last node
        radius: cells, half width of the window that spreads a point over nodes (Hicks 2002)
    """

    Params: ClassVar = WaveParams
    Forcing: ClassVar = WaveForcing
    seen: ClassVar = Quantity("pressure", "Pa")
    felt: ClassVar = Quantity("particle acceleration", "m/s²")

    grid: Grid
    dt: Positive  # s
    boundary: Annotated[tuple[tuple[Face, Face], ...], MinLen(1)]
    order: Literal[2, 4, 6, 8] = 8
    radius: Annotated[int, Ge(2), Le(8)] = 4  # cells

    def __post_init__(self):
        refuse_misfits(self.grid, self.boundary, self.order)

    @property
    def frame(self) -> Frame:
        """The grid with its layers, and the halo around."""
        return Frame(self.grid, self.boundary, self.order)

    # --- contract

    def coefficients(self, params):
        kappa, buoyancy = self._medium(params)
        return WaveCoefficients(kappa, self._sources(params, kappa), buoyancy)

    def _medium(self, params):
        acoustics.refuse_shapes(self.grid, params, FIELDS)
        if params.speed.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(f"params.speed is {params.speed.dtype}: give float32 or float64")
        frame, buoyancy = self.frame, None
        kappa = (self.dt * frame.medium(params.speed)) ** 2
        if params.density is not None:
            density = frame.medium(params.density)
            buoyancy = variable_density.buoyancy(frame, density)
            kappa = kappa * density
        return jnp.pad(frame.silence(kappa), frame.halo), buoyancy  # p = 0 stays 0

    def _sources(self, params, kappa):
        if params.sources is None:
            return None
        frame = self.frame
        points = acoustics.sources(frame, self.radius, params.sources, params.moments, kappa)
        if params.density is not None:
            density = variable_density.at(frame, params.density, params.sources)
            weights = points.weights / acoustics.rows(frame, density, points.weights.ndim)
            points = points._replace(weights=weights)
        return points

    def init(self, params):
        frame = self.frame
        zero = jnp.zeros([n + 2 * frame.halo for n in frame.inner], params.speed.dtype)
        silent = WaveState(zero, zero, layers.silent(frame, zero.dtype))
        if params.initial is None:
            return silent
        kappa, buoyancy = self._medium(params)
        # at rest p(-dt) = p(dt): both are half an acceleration from p(0)
        p = frame.silence(jnp.pad(params.initial, frame.widths))
        p = frame.mirror(jnp.pad(p, frame.halo))
        if buoyancy is None:
            bend = stencil.laplacian(p, self.order, self.grid.spacing)
        else:
            flux = divergence.fluxes(frame, buoyancy, p, [psi for psi, _ in silent.memory])
            bend = divergence.divergence(frame, flux)
        return silent._replace(pressure=p, previous=frame.mirror(p + kappa * bend / 2))

    def step(self, coefficients, state, forcing_n):
        p, previous, memory = state
        frame, dt, (kappa, _, buoyancy) = self.frame, self.dt, coefficients
        args = p, previous, memory, self._shot(coefficients, forcing_n)
        if buoyancy is None:
            new, memory = constant_density.advance(frame, dt, kappa, *args)
        else:
            new, memory = variable_density.advance(frame, dt, kappa, buoyancy, *args)
        return WaveState(new, p, memory)

    def _shot(self, coefficients, forcing_n):
        dtype = coefficients.kappa.dtype
        return acoustics.shot(self.frame, coefficients.sources, forcing_n, dtype)

    @property
    def steps_back(self):
        return layers.steps_back(self.frame, self.dt)

    def keep(self, state):
        """What lies on the layers: their memory and both levels of the pressure."""
        p, previous, memory = state
        return layers.keep(self.frame, p, previous), memory

    def restore(self, state, kept):
        strips, memory = kept
        p, previous = layers.restore(self.frame, strips, *state[:2])
        return WaveState(p, previous, memory)

    def scale(self, coefficients):
        """κ, twice that on rigid walls: ``κ p̄`` obeys the step's own recursion, so its sweep is the
        step's. None where the density varies.
        """
        return self.frame.weigh(coefficients.kappa, 2) if coefficients.buoyancy is None else None

    def scaled(self, scale, state_bar):
        if scale is None:
            return state_bar
        p_bar, previous_bar, memory_bar = state_bar
        p_bar, previous_bar = (scale * self.frame.unmirror(v) for v in (p_bar, previous_bar))
        return WaveState(p_bar, -previous_bar, layers.weigh(self.frame, memory_bar, 2))

    def unscaled(self, scale, state_bar, total):
        if scale is None:
            return state_bar, total
        p_bar, previous_bar, memory_bar = state_bar
        per_scale, memory_bar = _per(scale), layers.weigh(self.frame, memory_bar, 0.5)
        state_bar = WaveState(per_scale * p_bar, -per_scale * previous_bar, memory_bar)
        return state_bar, total._replace(kappa=per_scale * total.kappa)

    def retrace(self, coefficients, new, forcing_n, new_bar, total, scale):
        if coefficients.buoyancy is not None:
            state = self._undone(coefficients, new, forcing_n)
            more, *bars = self.pullback(coefficients, state, forcing_n, new_bar)
            return state, added(total, more), *bars
        after, p, memory = new
        p_bar, previous_bar, memory_bar = new_bar
        kappa, shot = coefficients.kappa, self._shot(coefficients, forcing_n)
        old, memory, image, p_bar, previous_bar, memory_bar, felt = constant_density.retrace(
            self.frame, self.dt, kappa, p, after, memory, shot,
            p_bar, previous_bar, memory_bar, total.kappa,
        )  # fmt: skip
        bars = image, p_bar, previous_bar, memory_bar, _plain(felt, scale, coefficients.sources)
        more, *bars = self._bars(coefficients, forcing_n, *bars)
        sources_bar = added(total.sources, more.sources)
        return WaveState(p, old, memory), more._replace(sources=sources_bar), *bars

    def _undone(self, coefficients, new, forcing_n):
        """The state before a step where the density varies."""
        after, p, memory = new
        kappa, _, buoyancy = coefficients
        shot = self._shot(coefficients, forcing_n)
        old, memory = variable_density.undo(
            self.frame, self.dt, kappa, buoyancy, p, after, memory, shot
        )
        return WaveState(p, old, memory)

    def pullback(self, coefficients, state, forcing_n, state_bar):
        p, _, memory = state
        if coefficients.buoyancy is not None:
            return self._pullback_over(coefficients, p, memory, forcing_n, state_bar)
        points = coefficients.sources
        bars = constant_density.transpose(
            self.frame, self.dt, coefficients.kappa, p, memory, points, *state_bar
        )
        return self._bars(coefficients, forcing_n, *bars)

    def _pullback_over(self, coefficients, p, memory, forcing_n, state_bar):
        """`pullback` where the density varies; `blind` if the field is None."""
        kappa, points, buoyancy = coefficients
        *bars, buoyancy_bar = variable_density.transpose(
            self.frame, self.dt, kappa, buoyancy, p, memory, points, *state_bar
        )
        more, *bars = self._bars(coefficients, forcing_n, *bars)
        return more._replace(buoyancy=buoyancy_bar), *bars

    def exposures(self, coefficients, state, count):
        """Of curvatures of the field; where the density varies, of what a step is made of."""
        if coefficients.buoyancy is None:
            return constant_density.exposures(state.pressure, count)
        kept = state.pressure, state.memory
        return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), kept)

    def expose(self, coefficients, state, forcing_n, exposures, place):
        p, previous, memory = state
        if coefficients.buoyancy is not None:
            put = partial(jax.lax.dynamic_update_index_in_dim, index=place, axis=0)
            exposures = jax.tree.map(put, exposures, (p, memory))
            return self.step(coefficients, state, forcing_n), exposures
        shot = self._shot(coefficients, forcing_n)
        new, memory, exposures = constant_density.expose(
            self.frame, self.dt, coefficients.kappa, p, previous, memory, shot, exposures, place
        )
        return WaveState(new, p, memory), exposures

    def blind(self, coefficients, forcing_n, state_bar, scale):
        """All but κ and the buoyancy, whose cotangents are products with the field."""
        if coefficients.buoyancy is not None:
            return self._pullback_over(coefficients, None, None, forcing_n, state_bar)
        points = coefficients.sources
        p_bar, previous_bar, memory_bar, felt = constant_density.adjoin(
            self.frame, self.dt, coefficients.kappa, points, *state_bar
        )
        bars = p_bar, previous_bar, memory_bar, _plain(felt, scale, points)
        return self._bars(coefficients, forcing_n, None, *bars)

    def image(self, coefficients, forcing_n, state_bar, scale, exposures, place, count, total):
        kappa, points, buoyancy = coefficients
        if buoyancy is not None:
            take = partial(jax.lax.dynamic_index_in_dim, index=place, keepdims=False)
            p, memory = jax.tree.map(take, exposures)
            more, *bars = self._pullback_over(coefficients, p, memory, forcing_n, state_bar)
            images = jax.tree.map(
                lambda so_far, one: so_far + count * one,
                (total.kappa, total.buoyancy),
                (more.kappa, more.buoyancy),
            )
            return more._replace(kappa=images[0], buoyancy=images[1]), *bars
        p_bar, previous_bar, memory_bar = state_bar
        p_bar, previous_bar, memory_bar, felt, kappa_bar = constant_density.image(
            self.frame, self.dt, kappa, points, p_bar, previous_bar, memory_bar,
            exposures, place, count, total.kappa,
        )  # fmt: skip
        bars = kappa_bar, p_bar, previous_bar, memory_bar, _plain(felt, scale, points)
        return self._bars(coefficients, forcing_n, *bars)

    def _bars(self, coefficients, forcing_n, kappa_bar, p_bar, previous_bar, memory_bar, felt):
        """The cotangents of a step's arguments."""
        sources_bar, forcing_bar = acoustics.sources_bar(
            self.frame, coefficients.sources, forcing_n, felt
        )
        coefficients_bar = WaveCoefficients(kappa_bar, sources_bar)
        return coefficients_bar, WaveState(p_bar, previous_bar, memory_bar), forcing_bar

    def spectrum(self, forcing):
        """The loudest source's at each frequency; that of an initial field is not known."""
        return acoustics.spectrum(forcing)

    def stable_dt(self, params):
        """``dt < 2 / √λ`` with λ the largest eigenvalue of ``-ρ c² ∇·(1/ρ ∇)``.

        ``λ = c² Σ μ/h²`` with μ that of the difference operator, if the density is constant.
        """
        if params.density is not None:
            speed, density = np.asarray(params.speed), np.asarray(params.density)
            worst = variable_density.largest_eigenvalue(self.frame, speed, density)
            return 2 / worst**0.5
        return acoustics.stable_dt(self.order, self.grid.spacing, float(np.max(params.speed)))

    def sampler(self, positions, along: int | None = None):
        """Pressure (Pa) or, ``along`` an axis, its gradient (Pa/m): -ρ times an acceleration."""
        return acoustics.sampler(self.frame, self.radius, positions, along)

    def motion(self, params, positions, along):
        """Particle acceleration ``-1/ρ ∂p`` (m/s²), what an accelerometer feels along an axis.

        A geophone's velocity is its sum over time, ``dt * jnp.cumsum(data, axis=0)``.
        """
        if params.density is None:
            raise ValueError(
                "particle acceleration is -1/density times the pressure's gradient: give "
                "params.density, a constant one if it does not vary"
            )
        slope = self.sampler(positions, along)
        density = variable_density.at(self.frame, params.density, jnp.asarray(positions))

        def feel(state, scale=None):
            state, seen = slope.see(state, scale)
            return state, -seen / density

        return Sampler(feel)

    def check(self, params, forcing=None):
        remarks = acoustics.misgiven(self.grid, params, FIELDS) or super().check(params, forcing)
        remarks += acoustics.misplaced(self.frame, params.sources, params.moments)
        if forcing is None or not np.any(forcing.sources):
            if params.initial is None or not np.any(params.initial):
                remarks.append(Remark("forcing.sources", "there is no sound: give it values"))
        elif not remarks:
            remarks = acoustics.resolution(self.grid, self.dt, params.speed, forcing)
        return remarks

    @classmethod
    def example(cls):
        layer = Absorbing(width=3, speed=2000.0, frequency=25.0)
        grid = Grid(shape=(14, 15), spacing=(10.0, 12.0), origin=(0.0, -50.0))
        boundary = ((Free(), layer), (Rigid(), layer))
        solver = cls(grid=grid, dt=1.5e-3, order=4, boundary=boundary)
        random = np.random.default_rng(0)
        speed = 2000 + 300 * random.random(grid.shape)
        sources = np.array([[14.0, -47.0], [61.0, 77.0]])
        time = np.arange(19) * solver.dt
        wavelets = np.sin(2 * np.pi * np.outer(time, (25.0, 40.0)))
        initial = np.outer(np.sin(np.arange(14) / 3), np.cos(np.arange(15) / 4))
        params = WaveParams(*map(jnp.asarray, (speed, sources)), initial=jnp.asarray(initial))
        return Example(solver, params, WaveForcing(jnp.asarray(wavelets)))


def _plain(felt, scale, points):
    """What sources felt of scaled cotangents, as of those themselves."""
    return None if felt is None else felt * _per(off_grid.windows(scale, points))


def _per(scale):
    """1/scale, but 0 where it is 0: what is silent for good has no cotangent."""
    return jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)
