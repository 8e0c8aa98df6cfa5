"""Water that swings in a bowl: exact solutions with moving shores (Thacker 1981)."""

import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import GRAVITY, basin, centres, params, water

RADIUS, DEPTH = 1.0, 0.1  # m, of the bowl with water at rest
SPIN = 1.4007141  # 1/s, √(2 g DEPTH) / RADIUS


def error_in_a_channel(cells):
    """Relative, of the depth after one period: a parabola of water whose surface stays plane."""
    rest, half, amplitude = 0.5, 1.0, 0.5
    omega = np.sqrt(2 * GRAVITY * rest) / half
    period = 2 * np.pi / omega
    assert period == pytest.approx(2.006067, abs=1e-6)
    steps = int(1.6 * cells) + 80
    solver = basin((4.0,), (cells,), period / steps)
    (x,) = centres(solver)
    bed = rest * ((x - 2) ** 2 / half**2 - 1)
    level = -rest * ((x - 2 + amplitude) ** 2 / half**2 - (x - 2) ** 2 / half**2)
    start = np.maximum(level - 0 * bed, bed)
    depth, _ = water(solver, params(bed, start), steps)
    return np.abs(depth - (start - bed)).sum() / (start - bed).sum()


def test_in_a_channel():
    """Below 2 % at 200 cells, and at least of first order from 100 to 400."""
    coarse, middle, fine = (error_in_a_channel(n) for n in (100, 200, 400))
    assert middle < 0.02
    assert fine < coarse / 4, (coarse, middle, fine)


def error_in_a_bowl(cells):
    """Relative, of the depth after one period: a tilted disc of water that goes round."""
    shift, steps = 0.5, 8 * cells
    period = 2 * np.pi / SPIN
    solver = basin((4.0, 4.0), (cells, cells), period / steps)
    y, x = (a - 2 for a in centres(solver))
    bed = DEPTH * ((x**2 + y**2) / RADIUS**2 - 1)
    level = shift * DEPTH / RADIUS**2 * (2 * x - shift)
    start = np.maximum(level, bed)
    flow = (start - bed) * shift * SPIN
    values = params(bed, start, discharge=jnp.stack([flow, 0 * flow]))
    depth, _ = water(solver, values, steps)
    return np.abs(depth - (start - bed)).sum() / (start - bed).sum()


@pytest.mark.slow
def test_in_a_bowl():
    """Below 2 % after a round at 100² cells, and at least of first order from 50²."""
    coarse, fine = error_in_a_bowl(50), error_in_a_bowl(100)
    assert fine < 0.02
    assert fine < coarse / 2, (coarse, fine)
