"""Dipole sources, and receivers of the pressure's gradient: between nodes, beside mirrors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from solvers import off_grid
from solvers.wave import Free, Rigid, WaveParams

SPACING, SHAPE = 10.0, (26, 28)
SOLVER = wave(SHAPE, SPACING, 1e-3, faces=((Free(), Rigid()), (Rigid(), Free())))
PLACES = np.array([(13.3, 104.7), (121.1, 131.9), (244.0, 263.0)])  # m; two beside mirrors
RANDOM = np.random.default_rng(0)
SPEED, DENSITY = 2000 + 800 * RANDOM.random(SHAPE), 1000 + 900 * RANDOM.random(SHAPE)


@pytest.mark.parametrize("medium", [{}, {"density": DENSITY}], ids=["constant", "variable"])
def test_reciprocity(medium):
    """A dipole felt as pressure is a pressure source felt as gradient, but for the density there.

    ``ρ(a) p(b)`` for a dipole at a equals ``ρ(b) ∂p(a)`` for a pressure source at b, on matrices
    that are each other's transposes: round-off, in a rough medium between mirrors.
    """
    a, b = PLACES[:2]
    wavelet = ricker(1e-3 * np.arange(400), 20.0, 0.07)[:, None]
    there = shoot(SOLVER, SPEED, [a], [b], wavelet, moments=[[0.0, 0.0, 1.0]], **medium)
    back = shoot(SOLVER, SPEED, [b], [a], wavelet, along=1, **medium)
    if medium:
        nodes = [jnp.asarray(PLACES[:2, axis]) / SPACING for axis in (0, 1)]
        points = off_grid.linear(nodes, SHAPE)
        density = off_grid.take(jnp.asarray(DENSITY), points)
        there, back = there * density[0], back * density[1]
    assert there == pytest.approx(back, abs=1e-12 * np.abs(back).max())


@pytest.mark.parametrize("axis", [0, 1])
def test_gradient_is_that_of_the_sampled_pressure(axis):
    """Fourth-order differences of pressures 0.02 m apart: 1e-9 of the largest gradient."""
    initial = jnp.asarray(RANDOM.random(SHAPE))
    state = SOLVER.init(WaveParams(jnp.asarray(SPEED), None, initial=initial))
    step = 0.02 * np.eye(2)[axis]
    near, far = (
        SOLVER.sampler(PLACES + n * step)(state) - SOLVER.sampler(PLACES - n * step)(state)
        for n in (1, 2)
    )
    expected = (8 * near - far) / (12 * 0.02)
    seen = SOLVER.sampler(PLACES, along=axis)(state)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def spread(sources, moments):
    """The acceleration of a silent field by unit sources."""
    params = WaveParams(jnp.asarray(SPEED), jnp.asarray(sources), moments=jnp.asarray(moments))
    points = SOLVER.coefficients(params).sources
    silent = jnp.zeros([n + SOLVER.order for n in SHAPE])
    return off_grid.put(silent, points, jnp.ones(len(sources)))


def test_dipole_is_the_limit_of_two_opposite_sources():
    """Along its moment, in m: ``(δ(x - a - ε d) - δ(x - a + ε d)) / 2ε``, to ε²: 1e-6."""
    moment, step = np.array([3.0, -4.0]), 1e-3
    dipoles = spread(PLACES, np.tile([0.0, *moment], (3, 1)))
    ends = np.concatenate([PLACES + step * moment, PLACES - step * moment])
    strengths = np.outer(np.repeat([1.0, -1.0], 3) / (2 * step), [1.0, 0.0, 0.0])
    pairs = spread(ends, strengths)
    np.testing.assert_allclose(dipoles, pairs, rtol=0, atol=1e-6 * np.abs(pairs).max())


def test_gradient_receiver_is_differentiable_in_its_position():
    """Beside mirrors and off them: the second derivative, against differences of the first."""
    initial = jnp.asarray(RANDOM.random(SHAPE))
    state = SOLVER.init(WaveParams(jnp.asarray(SPEED), None, initial=initial))

    @jax.jit
    def seen(places):
        return SOLVER.sampler(places, along=0)(state)

    tangent = jnp.asarray(RANDOM.standard_normal(PLACES.shape))
    places = jnp.asarray(PLACES)
    slope = jax.jvp(seen, (places,), (tangent,))[1]
    expected = (seen(places + 1e-3 * tangent) - seen(places - 1e-3 * tangent)) / 2e-3
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_what_does_not_fit_is_refused():
    params = WaveParams(jnp.asarray(SPEED), jnp.asarray(PLACES), moments=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="give a row of 3 numbers for each source"):
        SOLVER.coefficients(params)
    assert SOLVER.check(params)[0].where == "params.moments"
    with pytest.raises(ValueError, match="along=2, but the grid has 2 axes: give one of 0 to 1"):
        SOLVER.sampler(PLACES, along=2)
