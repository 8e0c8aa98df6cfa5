"""Point sources in unbounded space: amplitude, timing and energy."""

import functools

import jax
import numpy as np
import pytest
from wave_case import green_2d, ricker, shoot, wave

from diffsim.simulate import simulate
from solvers import stencil
from solvers.wave import Absorbing, WaveForcing, WaveParams

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


def direct(ndim, time, wavelet, speed, distance):
    """The exact trace in one to three dimensions."""
    if ndim == 2:
        return green_2d(time, wavelet, speed, distance)
    late = time - distance / speed
    if ndim == 3:
        return wavelet(late) / (4 * np.pi * distance)
    fine = np.linspace(late[0], late[-1], 40 * len(late))
    sums = np.cumsum((wavelet(fine[1:]) + wavelet(fine[:-1])) / 2) * (fine[1] - fine[0])
    return speed / 2 * np.interp(late, fine[1:], sums)


LIMITS = {1: (315, 35, 10, 8), 2: (16, 1.48, 0.22, 0.048), 3: (1.4, 0.5, 0.2, 0.04)}


@pytest.mark.usefixtures("single_precision")
@pytest.mark.parametrize("order", [2, 4, 6, 8])
@pytest.mark.parametrize("ndim", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_error_is_within_the_limits_of_a_peer(ndim, order):
    """deepwave's ``test_direct``, in single precision: the norm of the error over all traces.

    Two shots of two sources at one end of a line of nodes, a pair of receivers at the other;
    wavelets of 25 Hz with peaks at odd times, scaled by a cell; layers of 20 cells around.
    """
    count, spacing, dt, speed = {1: 50, 2: 50, 3: 10}[ndim], 5.0, 1e-4, 1500.0
    steps = int((2 * count * spacing * ndim**0.5 / speed + 0.35 + 2 / 25) / dt)
    time, layer = dt * np.arange(steps), Absorbing(20, speed, 25.0)
    solver = wave((count,) * ndim, spacing, dt, faces=layer, order=order)
    middle, squares = (round(count / 2),) * (ndim - 1), 0.0
    for shot, peaks in ((0, (0.13, 0.29)), (1, (0.07, 0.33))):
        wavelets = [functools.partial(ricker, frequency=25.0, delay=peak) for peak in peaks]
        series = spacing**ndim * np.stack([wavelet(time) for wavelet in wavelets], 1)
        rows = 2 * shot + np.arange(2)
        sources, receivers = (
            spacing * np.array([(row, *middle) for row in ends])
            for ends in (rows, count - 1 - rows)
        )
        data = shoot(solver, speed, sources, receivers, series)
        assert data.dtype == np.float32
        for trace, receiver in zip(data.T, receivers, strict=True):
            offsets = np.linalg.norm(sources - receiver, axis=1)
            pairs = zip(wavelets, offsets, strict=True)
            exact = sum(direct(ndim, time, wavelet, speed, offset) for wavelet, offset in pairs)
            squares += np.sum((trace - spacing**ndim * exact) ** 2)
    assert squares**0.5 < LIMITS[ndim][order // 2 - 1]
