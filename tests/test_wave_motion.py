"""Receivers of particle motion: ``ρ ∂v/∂t = -∇p``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, wave

from diffsim import Reversible, simulate
from diffsim.check import difference_test
from solvers.wave import Absorbing, Rigid, WaveForcing, WaveParams

LAYER = Absorbing(width=20, speed=2000.0, frequency=10.0)


def test_velocity_of_a_wave_is_its_pressure_over_the_impedance():
    """``v = ±p/(ρ c)`` to either side of a source, v the integral of the acceleration over time.

    40 points per wavelength at the peak and a window of radius 8 are off by less than 1e-4; the
    trapezoidal rule by (ω dt)²/12 = 1e-4 at three times the peak frequency.
    """
    speed, density, dt, steps = 2000.0, 1700.0, 2e-4, 3000
    solver = wave((161,), 5.0, dt, faces=((LAYER, LAYER),), radius=8)
    medium = (jnp.full(161, value) for value in (speed, density))
    params = WaveParams(next(medium), jnp.array([[401.0]]), next(medium))
    forcing = WaveForcing(jnp.asarray(ricker(dt * np.arange(steps), 10.0, 0.15)[:, None]))
    places = jnp.array([[203.3], [600.0]])

    @jax.jit
    def run():
        pressure, motion = solver.sampler(places), solver.motion(params, places, along=0)

        def observe(state):
            return pressure(state), motion(state)

        return simulate(solver, params, observe, steps=steps, forcing=forcing)[1]

    pressure, acceleration = map(np.asarray, run())
    velocity = dt * (np.cumsum(acceleration, axis=0) - acceleration / 2)
    expected = pressure / (density * speed) * np.array([-1, 1])
    np.testing.assert_allclose(velocity, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_motion_is_differentiable_in_the_density_at_the_receiver():
    """Walking back, against differences of all parameters at once: tolerance as for all solvers."""
    random, steps = np.random.default_rng(0), 18
    layer = Absorbing(width=3, speed=2000.0, frequency=25.0)
    solver = wave((14, 15), 10.0, 1.5e-3, faces=((Rigid(), layer), (layer, layer)), order=4)
    medium = (low + 300 * random.random((14, 15)) for low in (2000, 1000))
    speed, density = map(jnp.asarray, medium)
    params = WaveParams(speed, jnp.array([[52.0, 63.0]]), density)
    forcing = WaveForcing(jnp.asarray(random.standard_normal((steps, 1))))

    @jax.jit
    def loss(params):
        observe = solver.motion(params, np.array([[8.0, 71.0], [66.0, 40.0]]), along=1)
        how = {"steps": steps, "forcing": forcing, "adjoint": Reversible(3)}
        data = simulate(solver, params, observe, **how)[1]
        return 1e8 * jnp.sum(data**2)

    assert difference_test(loss, params, gradient=jax.grad(loss)(params)) < 1e-7
