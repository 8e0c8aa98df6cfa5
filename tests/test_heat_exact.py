"""Known solutions of the heat equation, each approached with the order of the scheme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heat_case import centres, heat, inside, run
from scipy.optimize import brentq

from solvers.heat import RKL2, Dirichlet, HeatForcing, HeatParams, Neumann, Robin, Theta

CRANK_NICOLSON = Theta(0.5, tolerance=1e-10)


def orders(error, counts):
    """Observed between neighbours of a family of grids."""
    errors = np.array([error(n) for n in counts])
    return np.log(errors[:-1] / errors[1:]) / np.log(np.divide(counts[1:], counts[:-1]))


@pytest.mark.slow
def test_gaussian_in_free_space():
    """Product of two Gaussians whose variances grow by ``2 k t / c``, at different rates, as the
    conductivity differs between the axes: order 2 within 5 % over four grids, with dt ~ h, in the
    mean square (the largest error sits at the peak, which the cells of coarse grids straddle: its
    orders are 1.82, 1.91, 1.96). The faces, 5 standard deviations away, do not count."""
    k, capacity, end = np.array([1.0, 0.3]), 2.0, 0.02

    def exact(solver, t):
        field = 1.0
        for x, k_axis, start in zip(centres(solver), k, (0.02, 0.03), strict=True):
            variance = start + 2 * k_axis / capacity * t
            field = field * jnp.exp(-((x - 1) ** 2) / (2 * variance)) / variance**0.5
        return field

    def error(n):
        steps = n // 2
        solver = heat((n, n), (2.0, 2.0), end / steps, CRANK_NICOLSON)
        conductivity = jnp.asarray(k).reshape(2, 1, 1) * jnp.ones((1, n, n))
        params = HeatParams(conductivity, jnp.array(capacity), exact(solver, 0.0))
        return float(jnp.mean((run(solver, params, steps) - exact(solver, end)) ** 2) ** 0.5)

    assert orders(error, [24, 32, 48, 64]) == pytest.approx(2, rel=0.05)


def robin_slab(x, time, biot, terms=30):
    """(T - surroundings) / (start - surroundings) in a slab of thickness 1 and diffusivity 1,
    insulated at 0: ``Σ 4 sin ζ / (2ζ + sin 2ζ) cos(ζ x) exp(-ζ² t)`` with ``ζ tan ζ = Bi``."""
    total = 0.0
    for n in range(terms):
        low, high = n * np.pi, (n + 0.5) * np.pi
        root = brentq(lambda z: z * np.sin(z) - biot * np.cos(z), low, high, xtol=1e-15)
        weight = 4 * np.sin(root) / (2 * root + np.sin(2 * root))
        total = total + weight * np.cos(root * x) * np.exp(-(root**2) * time)
    return total


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("temperature", marks=pytest.mark.slow),
        "its derivative by the exchange coefficient",
    ],
)
def test_slab_that_cools_in_its_surroundings(what):
    """Order 2 within 5 % over four grids, from the series at t = 0.1 to t = 0.4; likewise the
    derivative by the coefficient, against a central difference (1e-10) of the series."""
    surroundings, start, k, biot = 3.0, 8.0, 0.5, 1.7

    def series(x, time, biot):
        return surroundings + (start - surroundings) * robin_slab(np.asarray(x), time, biot)

    def error(n):
        steps = n // 2
        boundary = ((Neumann(), Robin()),)
        solver = heat((n,), (1.0,), 0.3 / steps, CRANK_NICOLSON, boundary)
        (x,) = centres(solver)
        faces = jnp.array([[0.0, surroundings]])

        def cooled(biot, initial):
            exchange = jnp.array([[0.0, k]]) * biot
            capacity = jnp.array(k)
            params = HeatParams(jnp.array(k), capacity, initial, faces, exchange)
            return run(solver, params, steps)

        def slope(time, step=1e-4):
            return (series(x, time, biot + step) - series(x, time, biot - step)) / (2 * step)

        values = jnp.array(biot), jnp.asarray(series(x, 0.1, biot))
        if what == "temperature":
            return np.abs(cooled(*values) - series(x, 0.4, biot)).max()
        _, tangent = jax.jvp(cooled, values, (jnp.array(1.0), jnp.asarray(slope(0.1))))
        return np.abs(tangent - slope(0.4)).max()

    assert orders(error, [10, 20, 40, 80]) == pytest.approx(2, rel=0.05)


def test_layers_conduct_a_constant_flux_when_steady():
    """One step of 1e9 s is steady to 1e-9 of a kelvin; then the harmonic means make the flux the
    same through all faces and the temperature exact at every centre, whatever the contrast."""
    conductivity = np.repeat([1.0, 200.0, 0.05, 7.0], [3, 4, 2, 5])
    n, cold, hot = len(conductivity), 280.0, 350.0
    solver = heat((n,), (1.4,), 1e9, Theta(1.0, tolerance=1e-15), ((Dirichlet(), Dirichlet()),))
    boundary = jnp.array([[hot, cold]])
    params = HeatParams(jnp.asarray(conductivity), jnp.array(1.0), jnp.full(n, 300.0), boundary)
    resistance = 0.1 / conductivity
    to_centre = np.cumsum(resistance) - resistance / 2
    exact = hot - (hot - cold) * to_centre / resistance.sum()
    assert run(solver, params, 1) == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize(
    "scheme",
    [pytest.param(CRANK_NICOLSON, marks=pytest.mark.slow), RKL2(21)],
    ids=["Crank-Nicolson", "RKL2"],
)
def test_manufactured_solution_with_a_conductivity_that_grows(scheme):
    """``T = 2 + e^-t cos πx`` with the heating that makes it a solution for ``k₀ (1 + βT)``: order
    2 within 5 % over four grids, with dt ~ h and the heating at the middle of each step."""
    k, slope, capacity = 0.7, 0.4, 1.3

    def exact(x, t):
        return 2 + jnp.exp(-t) * jnp.cos(jnp.pi * x)

    def heating(x, t):
        wave = jnp.exp(-t) * jnp.cos(jnp.pi * x)
        steep = jnp.pi * jnp.exp(-t) * jnp.sin(jnp.pi * x)
        flux = k * (slope * steep**2 - (1 + slope * (2 + wave)) * jnp.pi**2 * wave)
        return -capacity * wave - flux

    def error(n):
        steps = n
        solver = heat((n,), (1.0,), 0.5 / steps, scheme)
        (x,) = centres(solver)
        params = HeatParams(
            jnp.array(k), jnp.array(capacity), exact(x, 0.0), slope=jnp.array(slope)
        )
        coefficients = solver.coefficients(params)

        def step(state, t):
            now = coefficients._replace(heating=jnp.pad(heating(x, t), 1))
            return solver.step(now, state, None), None

        times = (jnp.arange(steps) + 0.5) * solver.dt
        state, _ = jax.lax.scan(step, solver.init(params), times)
        return float(jnp.abs(inside(solver, state) - exact(x, 0.5)).max())

    assert orders(error, [8, 16, 32, 64]) == pytest.approx(2, rel=0.05)


@pytest.mark.slow
def test_daily_wave_in_the_ground():
    """Below a surface of ``sin ωt`` the wave is ``e^-ξ sin(ωt - ξ)``, ``ξ = x √(ω/2κ)``:
    order 2 within 5 % over four grids after half a period; at the bottom, ξ = 16, 1e-7 is left."""
    period, depth = 1.0, 16.0
    skin = (period / np.pi) ** 0.5  # m, for a diffusivity of 1

    def exact(x, t):
        return jnp.exp(-x / skin) * jnp.sin(2 * jnp.pi * t / period - x / skin)

    def error(n):
        steps = n // 8
        boundary = ((Dirichlet(), Neumann()),)
        solver = heat((n,), (depth * skin,), period / 2 / steps, CRANK_NICOLSON, boundary)
        (x,) = centres(solver)
        params = HeatParams(jnp.array(1.0), jnp.array(1.0), exact(x, 0.0))
        middles = (np.arange(steps) + 0.5) * solver.dt
        series = jnp.zeros((steps, 1, 2)).at[:, 0, 0].set(np.sin(2 * np.pi * middles / period))
        forcing = HeatForcing(boundary_change=series)
        return float(jnp.abs(run(solver, params, steps, forcing) - exact(x, period / 2)).max())

    assert orders(error, [96, 144, 192, 256]) == pytest.approx(2, rel=0.05)


@pytest.mark.slow
def test_derivative_of_a_decayed_mode_by_the_diffusivity():
    """``J = ½ T(½, t)² = ½ e^(-2κπ²t)`` for a sine between cold faces, so that ``dJ/dκ = -π² t
    e^(-2κπ²t)``: order 2 within 5 % over three grids of odd size, which have a cell at ½."""
    diffusivity, end = 0.2, 0.4

    def error(n):
        steps = n
        boundary = ((Dirichlet(), Dirichlet()),)
        solver = heat((n,), (1.0,), end / steps, CRANK_NICOLSON, boundary)
        initial = jnp.sin(jnp.pi * centres(solver)[0])

        def loss(k):
            return run(solver, HeatParams(k, jnp.array(1.0), initial), steps)[n // 2] ** 2 / 2

        exact = -(np.pi**2) * end * np.exp(-2 * diffusivity * np.pi**2 * end)
        return abs(float(jax.jit(jax.grad(loss))(jnp.array(diffusivity))) - exact)

    assert orders(error, [15, 25, 51]) == pytest.approx(2, rel=0.05)
