"""Point sources in unbounded space: amplitude, timing and energy."""

import jax
import numpy as np
import pytest
from wave_case import green_2d, ricker, shoot, wave

from diffsim.simulate import simulate
from solvers import stencil
from solvers.wave import WaveForcing, WaveParams

SPEED, FREQUENCY, SPACING, DT = 2000.0, 15.0, 10.0, 2.5e-4  # m/s, Hz, m (13 a wavelength), s


def wavelet(time):
    return ricker(time, FREQUENCY, 1.5 / FREQUENCY)


def test_traces_in_the_plane():
    """Source and receivers between nodes; every trace is the exact one to 0.2 % of its maximum.

    The time step, 270 a period at the peak, is off by (ω dt)² / 24 = 2e-5 of the phase, 5 to 20 rad
    at the peak and twice that at the upper end of the spectrum; order 8 at 13 points per wavelength
    and windows of radius 6 by less. The peak comes within a step and is right to 0.2 %.
    """
    source = np.array((703.7, 696.1))
    offsets = [(0, 100), (-134.2, 61.7), (210, 213.3), (-301, 5), (4.4, -377.7)]
    receivers = source + np.array(offsets)
    time = DT * np.arange(1700)
    solver = wave((141, 141), SPACING, DT, order=8, radius=6)
    data = shoot(solver, SPEED, [source], receivers, wavelet(time)[:, None])
    for trace, receiver in zip(data.T, receivers, strict=True):
        exact = green_2d(time, wavelet, SPEED, np.linalg.norm(receiver - source))
        assert trace == pytest.approx(exact, abs=2e-3 * np.abs(exact).max())
        assert np.argmax(trace) == pytest.approx(np.argmax(exact), abs=1)
        assert trace.max() == pytest.approx(exact.max(), rel=2e-3)


def test_trace_on_a_line():
    """In one dimension a source sends ``c/2 ∫ f dt`` to either side, unattenuated.

    The quadrature below is exact to 1e-6; the tolerance is that of the scheme's phase error.
    """
    time = DT * np.arange(1400)
    solver = wave((141,), SPACING, DT, radius=6)
    data = shoot(solver, SPEED, [(703.0,)], [(1001.0,)], wavelet(time)[:, None])
    arrival = 298 / SPEED
    late = np.linspace(0, time - arrival, 2001)
    exact = SPEED / 2 * np.trapezoid(wavelet(late) * (late > 0), late, axis=0) * (time > arrival)
    assert data[:, 0] == pytest.approx(exact, abs=2e-3 * np.abs(exact).max())


@pytest.mark.slow
def test_trace_in_space():
    """In three dimensions it sends ``f(t - r/c) / (4 π r)``; phase error as in the plane."""
    time = DT * np.arange(700)
    source, receiver = np.array((251.0, 247.7, 243.0)), np.array((260.0, 310.3, 311.0))
    solver = wave((51, 51, 51), SPACING, DT, radius=6)
    data = shoot(solver, SPEED, [source], [receiver], wavelet(time)[:, None])[:, 0]
    distance = np.linalg.norm(receiver - source)
    exact = wavelet(time - distance / SPEED) / (4 * np.pi * distance)
    assert data == pytest.approx(exact, abs=2e-3 * np.abs(exact).max())


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_energy_between_free_surfaces_is_kept(order):
    """Leapfrog keeps ``½ Σ (p⁺ - p)² / κ - ½ Σ p⁺ ∇²p`` once the source is silent.

    Each of 600 steps rounds to 1e-16 of the field, whose energy is a small difference of squares.
    """
    solver = wave((32, 41), SPACING, 2e-3, order=order)
    random = np.random.default_rng(0)
    params = WaveParams(SPEED * (0.7 + 0.3 * random.random((32, 41))), np.array([[133.0, 207.0]]))
    kappa = solver.coefficients(params).kappa
    halo = order // 2
    still = kappa == 0

    def energy(state):
        rate = (state.pressure - state.previous) ** 2 / jax.numpy.where(still, 1, kappa)
        bend = stencil.laplacian(state.previous, order, solver.grid.spacing)
        inner = (slice(halo, -halo),) * 2
        return 0.5 * jax.numpy.sum((rate - state.pressure * bend)[inner])

    time = solver.dt * np.arange(900)
    forcing = WaveForcing((wavelet(time) * (time < 0.2))[:, None])
    seen = jax.jit(lambda: simulate(solver, params, energy, steps=900, forcing=forcing)[1])()[300:]
    assert np.asarray(seen) == pytest.approx(float(seen[0]), rel=1e-12)
