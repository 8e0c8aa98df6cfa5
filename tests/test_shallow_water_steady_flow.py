"""Flow over a bump: three steady solutions (Goutal & Maurel 1997)."""

import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import basin, centres, params, water

from solvers.shallow_water import Discharge, ShallowWaterForcing, Stage

LENGTH, CELLS, TIME = 25.0, 200, 150.0  # m, cells, s


def settled(inflow, level, start):
    """Depths and discharge at the end, and the cells' centres."""
    steps = 12_500
    faces = ((Discharge(), Stage()),)
    solver = basin((LENGTH,), (CELLS,), TIME / steps, faces)
    (x,) = centres(solver)
    bed = np.maximum(0, 0.2 - 0.05 * (x - 10) ** 2)
    forcing = ShallowWaterForcing(
        stage=jnp.full((steps, 1), level), discharge=jnp.full((steps, 1), inflow)
    )
    values = params(bed, start)._replace(discharge=jnp.full((1, CELLS), inflow))
    depth, discharge = water(solver, values, steps, forcing)
    return x, depth, discharge[0]


def at(place, x, depth):
    return float(np.interp(place, x, depth))


def test_subcritical():
    """Depth above the bump to 0.1 %; the discharge is the same everywhere to 0.1 %."""
    x, depth, discharge = settled(4.42, 2.0, 2.0)
    assert at(10, x, depth) == pytest.approx(1.70736, rel=1e-3)
    assert discharge == pytest.approx(np.full(CELLS, 4.42), rel=1e-3)


def test_transcritical():
    """Depths before, above and behind the bump to 0.5 %: the flow is critical on its top."""
    x, depth, discharge = settled(1.53, 0.66, 0.66)
    assert at(0, x, depth) == pytest.approx(1.014447, rel=5e-3)
    assert at(10, x, depth) == pytest.approx(0.622057, rel=1e-2)
    assert depth[-20] == pytest.approx(0.405781, rel=5e-3)
    assert discharge == pytest.approx(np.full(CELLS, 1.53), rel=1e-2)


def test_transcritical_with_a_shock():
    """Depth upstream to 0.5 %; the jump, from 0.0767 to 0.2638 m, within a cell of 11.675 m."""
    x, depth, _ = settled(0.18, 0.33, 0.33)
    assert at(0, x, depth) == pytest.approx(0.413736, rel=5e-3)
    jump = x[np.argmax(np.diff(depth + np.maximum(0, 0.2 - 0.05 * (x - 10) ** 2)))]
    assert jump == pytest.approx(11.675, abs=2 * LENGTH / CELLS)
    assert depth.min() == pytest.approx(0.0767, rel=0.05)
