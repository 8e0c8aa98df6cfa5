"""Waves where the density varies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from diffsim import Reversible, StoreAll, simulate
from diffsim.check import difference_test, taylor_test
from solvers.wave import Absorbing, Free, Rigid, WaveForcing, WaveParams

SPACING, FREQUENCY = 10.0, 20.0  # m, Hz
LAYER = Absorbing(width=20, speed=2000.0, frequency=FREQUENCY)
THIN = Absorbing(width=6, speed=2000.0, frequency=FREQUENCY)


def wavelet(dt, steps):
    return ricker(dt * np.arange(steps), FREQUENCY, 1.5 / FREQUENCY)[:, None]


@pytest.mark.parametrize(("speed", "density"), [(2000.0, 2600.0), (2600.0, 500.0)])
def test_reflection_at_a_contrast(speed, density):
    """``R = (ρ₂c₂ - ρ₁c₁) / (ρ₂c₂ + ρ₁c₁)`` comes back, ``1 + R`` goes on, halfway between nodes.

    All travel times are whole steps, so both are projections on the direct wave. 20 points per
    wavelength at the peak: (k h)² = 0.1, of which an interface sharper than a cell sees a tenth.
    """
    nodes, dt, frequency = 301, 5e-4, 10.0
    behind = np.arange(nodes) > 150  # from 1505 m on
    solver = wave((nodes,), SPACING, dt, faces=((LAYER, LAYER),))
    series = ricker(dt * np.arange(2300), frequency, 0.12)[:, None]
    receivers, medium = [(900.0,), (1505 + 0.2 * speed,)], np.where(behind, density, 1000.0)
    speeds = np.where(behind, speed, 2000.0)
    seen, beyond = shoot(solver, speeds, [(400.0,)], receivers, series, density=medium).T
    direct = seen[:1000]

    def share(trace, delay):
        late = trace[round(delay / dt) :][:1000]
        return late @ direct[: len(late)] / (direct @ direct)

    ratio = density * speed / (1000.0 * 2000.0)
    expected = (ratio - 1) / (ratio + 1)
    assert share(seen * (np.arange(2300) >= 1000), 0.605) == pytest.approx(expected, abs=5e-3)
    assert share(beyond, 0.3025 + 0.2) == pytest.approx(1 + expected, abs=5e-3)


@pytest.mark.parametrize(("order", "tolerance"), [(2, 1e-12), (8, 3e-3)])
def test_uniform_density_drops_out(order, tolerance):
    """At order 2 the differences are those of the constant-density solver, its layers included.

    At order 8 they are others, off by the error of either at 7 points per wavelength; a dipole
    beside the surface, a wall and layers see no more of it.
    """
    faces = ((Free(), THIN), (THIN, Rigid()))
    solver = wave((31, 33), SPACING, 1.5e-3, faces=faces, order=order)
    args = 2000.0, [(23.0, 151.0)], [(104.0, 309.0), (250.0, 23.0)], wavelet(1.5e-3, 250)
    moments = [[1.0, 4.0, -7.0]]
    constant = shoot(solver, *args, moments=moments)
    variable = shoot(solver, *args, moments=moments, density=np.full((31, 33), 1700.0))
    assert variable == pytest.approx(constant, abs=tolerance * np.abs(constant).max())


def test_layers_absorb():
    """Below -60 dB at normal incidence, as at constant density; the line without goes on."""
    dt, steps = 2e-3, 700
    traces = []
    for nodes, end in ((101, LAYER), (301, Free())):
        solver = wave((nodes,), SPACING, dt, faces=((LAYER, end),))
        args = solver, 2000.0, [(600,)], [(700,)], wavelet(dt, steps)
        traces.append(shoot(*args, density=np.full(nodes, 1300.0)))
    seen, incident = traces
    assert np.abs(seen - incident).max() < 1e-3 * np.abs(incident).max()


@functools.cache
def loudest(factor, rough):
    """The largest pressure every 50 steps, a medium's `stable_dt` times a factor."""
    random = np.random.default_rng(0)
    shape, faces = (24, 25), ((Free(), THIN), (Rigid(), THIN))
    speed = 2000 + rough * 900 * random.random(shape)
    density = 1000.0 * 10 ** (rough * random.random(shape))
    params = WaveParams(jnp.asarray(speed), jnp.array([[33.0, 117.0]]), jnp.asarray(density))
    limit = wave(shape, SPACING, 1.0, faces=faces).stable_dt(params)
    solver = wave(shape, SPACING, factor * limit, faces=faces)
    steps = 3000
    series = ricker(solver.dt * np.arange(steps), FREQUENCY, 0.05) * (np.arange(steps) < 100)

    @jax.jit
    def run(forcing):
        def observe(state):
            return jnp.max(jnp.abs(state.pressure))

        how = {"steps": steps, "forcing": forcing, "every": 50}
        return simulate(solver, params, observe, **how)[1]

    return np.asarray(run(WaveForcing(jnp.asarray(series)[:, None])))


@pytest.mark.parametrize("rough", [0, 1])
def test_nothing_grows_below_the_largest_stable_step(rough):
    """Densities in a ratio of up to ten, node by node; what is left fades in the layers."""
    seen = loudest(0.999, rough)
    assert seen[-1] < 0.1 * seen.max()
    assert seen[-20:].max() < seen[-40:-20].max()


def test_largest_stable_step_is_sharp_in_a_uniform_medium():
    """2 % above it the shortest waves grow by 1.5 a step."""
    assert not loudest(1.02, 0)[-1] < 1e6 * loudest(0.999, 0).max()


@functools.cache
def problem():
    """A line between a wall and a layer, dipoles, and a field at first."""
    random, count = np.random.default_rng(0), 19
    faces = ((Rigid(), Absorbing(3, 2000.0, 25.0)),)
    solver = wave((count,), SPACING, 1.5e-3, faces=faces, order=4, radius=3)
    density, initial = 1000 + 800 * random.random(count), random.random(count)
    sources, moments = np.array([[13.0], [77.0]]), np.array([[1.0, 3.0], [0.4, -6.0]])
    arrays = 2000 + 300 * random.random(count), sources, density, initial, moments
    forcing = WaveForcing(jnp.asarray(random.standard_normal((18, 2))))
    return solver, WaveParams(*map(jnp.asarray, arrays)), forcing


def loss(values, adjoint):
    solver, *_ = problem()
    params, forcing = values
    observe = solver.sampler(np.array([[8.0], [131.0]]))
    out = simulate(solver, params, observe, steps=18, forcing=forcing, adjoint=adjoint)
    return sum(jnp.sum(jnp.sin(a + 0.3)) for a in jax.tree.leaves(out))


@functools.cache
def gradient(adjoint):
    return jax.jit(jax.grad(lambda values: loss(values, adjoint)))(problem()[1:])


def test_gradient_walking_back_is_that_of_storing_all():
    """1e-10 of the largest value, as the rounding of the walk allows."""
    pairs = zip(*map(jax.tree.leaves, (gradient(StoreAll()), gradient(Reversible(3)))), strict=True)
    for exact, own in pairs:
        np.testing.assert_allclose(own, exact, rtol=0, atol=1e-10 * np.abs(exact).max())
        assert np.abs(exact).max() > 0


def test_gradient_is_the_limit_of_differences():
    """For all parameters at once and for the density alone; tolerances as for every solver."""
    values, slopes = problem()[1:], gradient(StoreAll())
    program = jax.jit(lambda values: loss(values, StoreAll()))
    assert difference_test(program, values, gradient=slopes) < 1e-7

    def of_density(density):
        return program((values[0]._replace(density=density), values[1]))

    how = {"gradient": slopes[0].density, "step": 4e-4, "halvings": 3}
    orders = taylor_test(of_density, values[0].density, **how)[:, 1:]
    assert np.all(orders > 1.99), orders
    assert np.all(np.isfinite(orders))
