"""The acoustic wave equation in a medium that attenuates: a standard linear solid.

``1/M ∂²p/∂t² - ∇²p = Σᵢ fᵢ(t) (mᵢ - dᵢ·∇) δ(x - xᵢ)`` at constant density. The modulus M depends on
the frequency: dividing by it is a convolution in time. For waves ``exp(iωt)`` it is that of a
spring in series with a spring and dashpot side by side (Zener 1948; Carcione 2015, Wave Fields in
Real Media, chapter 2),

``M(ω) = c² τσ/τε (1 + iω τε) / (1 + iω τσ)``,

with c the speed of high frequencies. Its quality ``Q = Re M / Im M`` is least at
``ω₀ = 1/√(τσ τε)``. There it is as given, and so is the phase speed ``v = 1 / Re(1/√M)``, if

``r = √(1 + 1/Q²) - 1/Q``, ``τσ = r/ω₀``, ``τε = 1/(r ω₀)``, ``c² = v² (1 + 1/√(1 + 1/Q²)) / 2r``

(ibid.; Blanch, Robertsson & Symes 1995, Geophysics 60, fit the same to a band): for every Q > 0.
An octave from ω₀ Q is greater by a quarter, a decade from it five times. In time

``∂²p/∂t² + w = c² (∇²p + sources)``, ``τε ∂w/∂t + w = (τε/τσ - 1) ∂²p/∂t²``.

That is ``∂²p/∂t² = c² (∇²p - m)`` with ``τσ ∂m/∂t + m = (1 - τσ/τε) ∇²p`` where there is no source,
but the memory is driven by what its node does itself: so the space differences, the layers and the
compiled sweeps are those of a wave that keeps its energy.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le, MinLen

from diffsim.grid import Grid
from diffsim.solver import AdjointSolver, Example, Quantity, Remark, frozen
from solvers import acoustics, constant_density, layers, off_grid
from solvers.acoustics import WaveForcing
from solvers.faces import Absorbing, Face, Frame, Free, Periodic, Rigid, refuse_misfits

__all__ = [
    "Absorbing", "AttenuatingCoefficients", "AttenuatingParams", "AttenuatingState",
    "AttenuatingWave", "Free", "Periodic", "Rigid", "WaveForcing",
]  # fmt: skip

Positive = Annotated[float, Gt(0)]
FIELDS = {"speed": "m/s", "quality": ""}  # of the params, on the grid


class AttenuatingParams(NamedTuple):
    # [*grid.shape], the phase speed at the solver's frequency
    speed: Annotated[jax.Array, Quantity("P-wave speed", "m/s")]
    # [*grid.shape], Q at the solver's frequency: 20 to 200 in rock, 1e6 where nothing is lost
    quality: Annotated[jax.Array, Quantity("quality factor", "1")]
    # [source, axis]; there is none if None
    sources: Annotated[Any, Quantity("source position", "m")]
    # [source, 1 + axis]: (m, *d), (1, 0, …) if None
    moments: Annotated[Any, Quantity("source moments: pressure, dipole", "1, m")] = None


class AttenuatingCoefficients(NamedTuple):
    kappa: jax.Array  # m², dt² c² (2 + r ω₀ dt) / (2 + ω₀ dt / r); 0 in halo and free surfaces
    kept: jax.Array  # a, what a step leaves of w; zero there
    gain: jax.Array  # g, of w from the second difference of p in time; zero there
    sources: off_grid.Points | None  # weights times κ over the cell's volume


class AttenuatingState(NamedTuple):
    pressure: jax.Array  # Pa
    previous: jax.Array  # Pa, one step earlier
    lag: jax.Array  # Pa, v
    memory: tuple  # (ψ, ζ) of each layer


@frozen
class AttenuatingWave(AdjointSolver):
    """Acoustic waves that lose energy and are dispersed, on a regular grid of any dimension.

    Leapfrog in time, and the trapezoidal rule for w, solved for the new field:

    ``p' = 2 p - p° + κ (∇²p + sources) - w``, ``w' = a w + g (p' - 2 p + p°)``.

    Both are of second order. It is the leapfrog with ``iω`` in M replaced by ``2i/dt tan(ω dt/2)``:
    a modulus that takes energy from a wave at every frequency, so that none grows as long as
    a leapfrog of the speed c is stable. Therefore this rule and not ``exp(-dt/τ)``. With
    ``w = g p + v`` a step needs nothing of the next one: ``v' = a v + g ((a - 2) p + p°)``.

    Args:
        grid: the nodes; absorbing layers come on top of it
        dt: s, at most `stable_dt`
        frequency: Hz, at which speed and quality are as given, best the source's peak frequency
        order: of the space differences; 8 needs about 5 points per wavelength, 4 about 8
        boundary: for each axis the faces before its first and after its last node
        radius: cells, half width of the window that spreads a point over nodes (Hicks 2002)
    """

    Params: ClassVar = AttenuatingParams
    Forcing: ClassVar = WaveForcing
    seen: ClassVar = Quantity("pressure", "Pa")

    grid: Grid
    dt: Positive  # s
    boundary: Annotated[tuple[tuple[Face, Face], ...], MinLen(1)]
    frequency: Positive  # Hz
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
        acoustics.refuse_shapes(self.grid, params, FIELDS)
        if params.speed.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(f"params.speed is {params.speed.dtype}: give float32 or float64")
        frame, z = self.frame, 2 * math.pi * self.frequency * self.dt
        r, fastest = _solid(params.speed, params.quality)
        slow, quick = 2 + r * z, 2 + z / r
        kappa = (self.dt * fastest) ** 2 * slow / quick
        fields = kappa, (2 - r * z) / slow, 8 * z / (params.quality * slow * quick)
        kappa, kept, gain = (
            jnp.pad(frame.silence(frame.medium(field)), frame.halo) for field in fields
        )
        points, where = None, (params.sources, params.moments)
        if params.sources is not None:
            points = acoustics.sources(frame, self.radius, *where, kappa)
        return AttenuatingCoefficients(kappa, kept, gain, points)

    def init(self, params):
        """Silence."""
        frame = self.frame
        zero = jnp.zeros([n + 2 * frame.halo for n in frame.inner], params.speed.dtype)
        return AttenuatingState(zero, zero, zero, layers.silent(frame, zero.dtype))

    def step(self, coefficients, state, forcing_n):
        kappa, a, g, points = coefficients
        p, previous, v, memory = state
        shot = acoustics.shot(self.frame, points, forcing_n, kappa.dtype)
        other = previous + g * p + v
        new, memory = constant_density.advance(self.frame, self.dt, kappa, p, other, memory, shot)
        return AttenuatingState(new, p, a * v + g * ((a - 2) * p + previous), memory)

    def pullback(self, coefficients, state, forcing_n, state_bar):
        kappa, a, g, points = coefficients
        p, previous, v, memory = state
        new_bar, p_bar, v_bar, memory_bar = state_bar
        kappa_bar, p_bar, other_bar, memory_bar, felt = constant_density.transpose(
            self.frame, self.dt, kappa, p, memory, points, new_bar, p_bar, memory_bar
        )
        sources_bar, forcing_bar = acoustics.sources_bar(self.frame, points, forcing_n, felt)
        a_bar = v_bar * (v + g * p)
        g_bar = other_bar * p + v_bar * ((a - 2) * p + previous)
        p_bar += g * (other_bar + (a - 2) * v_bar)
        before = p_bar, other_bar + g * v_bar, other_bar + a * v_bar, memory_bar
        coefficients_bar = AttenuatingCoefficients(kappa_bar, a_bar, g_bar, sources_bar)
        return coefficients_bar, AttenuatingState(*before), forcing_bar

    def stable_dt(self, params):
        """``dt < 2 / √λ`` with ``λ = c² Σ μ/h²``, c the speed of high frequencies.

        At that limit the shortest wave has the period 2 dt, at which the trapezoidal rule takes the
        modulus of infinite frequency.
        """
        _, fastest = _solid(*(np.asarray(v, float) for v in (params.speed, params.quality)))
        return acoustics.stable_dt(self.order, self.grid.spacing, float(np.max(fastest)))

    def sampler(self, positions, along: int | None = None):
        """Pressure (Pa) or, ``along`` an axis, its gradient (Pa/m)."""
        return acoustics.sampler(self.frame, self.radius, positions, along)

    def check(self, params, forcing=None):
        remarks = acoustics.misgiven(self.grid, params, FIELDS) or super().check(params, forcing)
        remarks += acoustics.misplaced(self.frame, params.sources, params.moments)
        if forcing is None or not np.any(forcing.sources):
            remarks.append(Remark("forcing.sources", "there is no sound: give it values"))
        elif not remarks:
            remarks = acoustics.resolution(self.grid, self.dt, params.speed, forcing)
        return remarks

    @classmethod
    def example(cls):
        layer = Absorbing(width=3, speed=2000.0, frequency=25.0)
        grid = Grid(shape=(10, 11), spacing=(10.0, 12.0), origin=(0.0, -50.0))
        boundary = ((Free(), layer), (Rigid(), Rigid()))
        solver = cls(grid=grid, dt=1.5e-3, order=4, boundary=boundary, frequency=25.0)
        random = np.random.default_rng(0)
        speed, quality = 2000 + 300 * random.random(grid.shape), 5 + 20 * random.random(grid.shape)
        sources = np.array([[14.0, -42.0], [61.0, 27.0]])
        time = np.arange(19) * solver.dt
        wavelets = np.sin(2 * np.pi * np.outer(time, (25.0, 40.0)))
        params = AttenuatingParams(*map(jnp.asarray, (speed, quality, sources)))
        return Example(solver, params, WaveForcing(jnp.asarray(wavelets)))


def _solid(speed, quality):
    """``r = √(τσ/τε)`` and the speed of high frequencies (m/s)."""
    s = (1 + (1 / quality) ** 2) ** 0.5
    r = 1 / (s + 1 / quality)
    return r, speed * ((1 + 1 / s) / (2 * r)) ** 0.5
