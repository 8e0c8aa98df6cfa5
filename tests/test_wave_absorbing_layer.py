"""What an absorbing layer sends back, and that nothing grows in it.

Ten points per wavelength at the source's peak frequency. Whatever differs from the same run on a
grid that goes on behind the layer's inner edge has come back from the layer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from diffsim.simulate import simulate
from solvers import layers, stencil
from solvers.wave import Absorbing, Free, WaveForcing, WaveParams

SPEED, SPACING, FREQUENCY = 2000.0, 10.0, 20.0  # m/s, m, Hz
SIDE = Absorbing(width=20, speed=SPEED, frequency=FREQUENCY)


def layer(width):
    return Absorbing(width=width, speed=SPEED, frequency=FREQUENCY)


def courant(order, ndim):
    """s, eight tenths of the largest stable time step."""
    params = WaveParams(np.array(SPEED), None)
    return 0.8 * wave((9,) * ndim, SPACING, 1.0, order=order).stable_dt(params)


def decibels(part, whole):
    return 20 * np.log10(np.abs(part).max(axis=0) / np.abs(whole).max(axis=0))


@functools.cache
def line(width, order):
    """A trace between a source and the end of a line, which a free surface 2.5 km off extends."""
    dt = courant(order, 1)
    steps = int(2.4 / dt)
    nodes, end = (100, layer(width)) if width else (351, Free())
    solver = wave((nodes,), SPACING, dt, faces=((SIDE, end),), order=order)
    wavelet = ricker(dt * np.arange(steps), FREQUENCY, 1.5 / FREQUENCY)[:, None]
    return shoot(solver, SPEED, [(600,)], [(700,)], wavelet)[:, 0]


@functools.cache
def plane(width, order):
    """Traces 10 nodes above the lower edge of a plane, where what has come back at 60° arrives.

    Two offsets: for the layer's inner edge and for the outer edge of the widest. Without a layer
    the plane goes on, and two more receivers see the waves where their mirror images would be.
    """
    dt, above, offsets = courant(order, 2), 10, (35, 139)
    steps = int(1.1 / dt)
    edge = 34 * SPACING
    nodes, end = (35, layer(width)) if width else (130, SIDE)
    solver = wave((nodes, 180), SPACING, dt, faces=((SIDE, end), (SIDE, SIDE)), order=order)
    wavelet = ricker(dt * np.arange(steps), FREQUENCY, 1.5 / FREQUENCY)[:, None]
    depths = edge + SPACING * above * np.array((-1,) if width else (-1, 1))
    receivers = [(z, SPACING * (20 + offset)) for z in depths for offset in offsets]
    source = (edge - SPACING * above, SPACING * 20)
    return shoot(solver, SPEED, [source], receivers, wavelet)


def allowed(width):
    """dB: a ten-thousandth of the amplitude from 20 cells, a thousandth from fewer."""
    return -80 if width >= 20 else -60


@pytest.mark.parametrize(("width", "order"), [(20, 2), (20, 4), (20, 6), (20, 8), (10, 8), (30, 8)])
def test_normal_incidence(width, order):
    """As `Absorbing` says, at any time, slow waves out of the layer included."""
    incident = line(0, order)
    assert decibels(line(width, order) - incident, incident) < allowed(width)


@pytest.mark.parametrize(("width", "order"), [(20, 2), (10, 8), (20, 8), (30, 8)])
def test_incidence_at_60_degrees(width, order):
    """As `Absorbing` says, of what a mirror would send back, at both offsets."""
    incident, images = np.split(plane(0, order), 2, axis=1)
    assert np.all(decibels(plane(width, order) - incident, images) < allowed(width))


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_the_difference_in_layers_is_a_root_of_the_second(order):
    """``-GᵀG`` of noise is its second difference, to a dozen roundings of sums of at most 27; and
    G of a parabola is its slope at the half point, shifted."""
    weights, halo = np.array(layers.root_difference(order)), order // 2
    noise = np.random.default_rng(0).standard_normal(60)
    twice = stencil.weighted(stencil.weighted(noise, weights, 0), -weights[::-1], 0)
    expected = stencil.second_difference(noise, order, 0)
    assert twice == pytest.approx(expected, abs=1e-14 * np.abs(expected).max())
    nodes = np.arange(-halo, 1) + 0.5  # around the half point at 0
    slope = stencil.weighted(nodes**2 / 2, weights, 0)[0]
    assert slope == pytest.approx(-layers.root_shift(order), abs=1e-14)
    assert stencil.weighted(nodes, weights, 0)[0] == pytest.approx(1, abs=1e-14)


def loudest(order, factor, steps, every, speed):
    """The largest pressure at times ``every`` steps apart, between layers and a free surface."""
    faces = ((Free(), layer(10)), (layer(10), layer(6)))
    params = WaveParams(jnp.asarray(speed), jnp.array([[33.0, 117.0]]))
    limit = wave(speed.shape, SPACING, 1.0, faces=faces, order=order).stable_dt(params)
    solver = wave(speed.shape, SPACING, factor * limit, faces=faces, order=order)
    number = np.arange(steps)
    wavelet = ricker(solver.dt * number, FREQUENCY, 1.5 / FREQUENCY) * (number < 200)

    @jax.jit
    def run(forcing):
        def observe(state):
            return jnp.max(jnp.abs(state.pressure))

        return simulate(solver, params, observe, steps=steps, forcing=forcing, every=every)[1]

    return np.asarray(run(WaveForcing(jnp.asarray(wavelet)[:, None])))


@pytest.mark.parametrize("order", [2, 8])
def test_nothing_grows(order):
    """20 000 steps in a rough medium: what is left after the wave has gone fades for ever.

    The wave itself is gone within a few hundred steps. What a layer keeps, and the shortest waves,
    are lost more slowly. At order 8 two of 93.4 and 93.6 Hz are left at last, 1e-11 of the wave,
    and beat over 2300 steps: of each 4000 the loudest moment is fainter than of those before.
    """
    speed = 1500 + 1000 * np.random.default_rng(0).random((24, 25))
    peaks = loudest(order, 0.999, 20_000, 50, speed).reshape(5, -1).max(axis=1)
    assert np.all(np.diff(peaks) < 0)
    assert peaks[-1] < 1e-8 * peaks[0]


@pytest.mark.parametrize("order", [2, 8])
def test_largest_stable_step_is_sharp(order):
    """0.1 % below `Wave.stable_dt` the field fades; 2 % above, the shortest waves explode.

    They grow by exp(2 arcosh 1.02) = 1.5 a step: 1000 steps leave no doubt.
    """
    speed = np.full((24, 25), 2500.0)
    below = loudest(order, 0.999, 5000, 10, speed)
    assert below[-1] < 1e-3 * below.max()
    assert not loudest(order, 1.02, 1000, 10, speed)[-1] < 1e6 * below.max()
