"""Source and receiver may be swapped."""

import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from solvers import off_grid
from solvers.wave import Absorbing, Free

SPACING, DT, FREQUENCY = 10.0, 1e-3, 20.0  # m, s, Hz
LAYER = Absorbing(width=20, speed=2500.0, frequency=FREQUENCY)
ENDS = np.array([(13.3, 104.7), (291.1, 331.9)])  # m, between nodes; the first near the surface


def mismatch(order, steps, faces, weights=(1.0, 1.0), **medium):
    """The largest difference of the two traces over the largest value, in a rough medium."""
    random = np.random.default_rng(0)
    speed = np.linspace(1800, 3000, 41)[:, None] + 400 * random.random((41, 46))
    solver = wave((41, 46), SPACING, DT, faces=faces, order=order)
    wavelet = ricker(DT * np.arange(steps), FREQUENCY, 1.5 / FREQUENCY)[:, None]
    there, back = (
        weight * shoot(solver, speed, [a], [b], wavelet, **medium)
        for weight, (a, b) in zip(weights, (ENDS, ENDS[::-1]), strict=True)
    )
    return np.abs(there - back).max() / np.abs(there).max()


@pytest.mark.parametrize("order", [2, 8])
def test_exact_between_free_surfaces(order):
    """``δ²p/κ = ∇²p + W f`` is symmetric, and what is seen is Wᵀp: equal but for round-off.

    Over 900 steps and a dozen reflections, round-off of 1e-16 stays below 1e-12 of the maximum.
    """
    assert mismatch(order, 900, Free()) < 1e-12


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_exact_with_layers(order):
    """``N Gᵀ S G`` becomes symmetric when each row is divided by its stretch N.

    Sources and receivers are where nothing is stretched, so they do not notice: round-off as above.
    """
    assert mismatch(order, 900, ((Free(), LAYER), (LAYER, LAYER))) < 1e-12


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_exact_with_layers_where_the_density_varies(order):
    """There a layer stretches D and its transpose, at half points and at nodes: symmetric too.

    ``ρ(a) p(b)`` of a source at a is ``ρ(b) p(a)`` of one at b.
    """
    density = 1000 + 900 * np.random.default_rng(1).random((41, 46))
    nodes = [jnp.asarray(ENDS[:, axis]) / SPACING for axis in (0, 1)]
    points = off_grid.linear(nodes, density.shape)
    weights = off_grid.take(jnp.asarray(density), points)
    faces = ((Free(), LAYER), (LAYER, LAYER))
    assert mismatch(order, 900, faces, weights, density=density) < 1e-10


@pytest.mark.usefixtures("single_precision")
def test_in_single_precision():
    """Peers ask for 5e-3; a hundred roundings of 1e-7 are 1e-5."""
    assert mismatch(8, 900, ((Free(), LAYER), (LAYER, LAYER))) < 1e-5
