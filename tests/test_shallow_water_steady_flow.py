"""Flow over a bump: three steady solutions (Goutal & Maurel 1997)."""

import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import GRAVITY, basin, centres, params, water

from solvers.shallow_water import Discharge, ShallowWaterForcing, Stage

LENGTH, CELLS, TIME = 25.0, 200, 150.0  # m, cells, s


def bump(x):
    return np.maximum(0, 0.2 - 0.05 * (x - 10) ** 2)


def settled(inflow, level):
    """Depths and discharge at the end, and the cells' centres."""
    steps = 12_500
    faces = ((Discharge(), Stage()),)
    solver = basin((LENGTH,), (CELLS,), TIME / steps, faces)
    (x,) = centres(solver)
    forcing = ShallowWaterForcing(
        stage=jnp.full((steps, 1), level), discharge=jnp.full((steps, 1), inflow)
    )
    values = params(bump(x), level)._replace(discharge=jnp.full((1, CELLS), inflow))
    depth, discharge = water(solver, values, steps, forcing)
    return x, depth, discharge[0]


def depth_of(inflow, head, x, fast):
    """The depth at which ``q²/2gh² + h + z`` is the head: one of the two for fast or slow flow."""
    critical = np.cbrt(inflow**2 / GRAVITY)
    low, high = (0.0 * x + 1e-3, critical) if fast else (0.0 * x + critical, 0.0 * x + head)
    for _ in range(60):
        middle = (low + high) / 2
        excess = inflow**2 / (2 * GRAVITY * middle**2) + middle + bump(x) - head
        deeper = (excess > 0) == fast
        low, high = np.where(deeper, middle, low), np.where(deeper, high, middle)
    return low


def head_of(inflow, depth, bed=0.0):
    return inflow**2 / (2 * GRAVITY * depth**2) + depth + bed


def relative(depth, exact):
    """The L1 error."""
    return np.abs(depth - exact).sum() / exact.sum()


def at(place, x, depth):
    return float(np.interp(place, x, depth))


def test_subcritical():
    """Depth within 0.02 % in the mean and 0.1 % above the bump; the discharge, which is the same
    everywhere, to 0.1 %."""
    x, depth, discharge = settled(4.42, 2.0)
    exact = depth_of(4.42, head_of(4.42, 2.0), x, fast=False)
    assert relative(depth, exact) < 2e-4
    assert at(10, x, depth) == pytest.approx(1.70736, rel=1e-3)
    assert discharge == pytest.approx(np.full(CELLS, 4.42), rel=1e-3)


def through_critical(inflow, x):
    """Slow before the top of the bump, critical on it, fast behind."""
    head = head_of(inflow, np.cbrt(inflow**2 / GRAVITY), 0.2)
    slow, fast = (depth_of(inflow, head, x, fast) for fast in (False, True))
    return np.where(x < 10, slow, fast)


def test_transcritical():
    """Depth within 0.2 % in the mean, before, above and behind the bump 0.5 %: the flow is critical
    on its top, and the lower level beyond the end cannot come in against it."""
    x, depth, discharge = settled(1.53, 0.66)
    assert relative(depth, through_critical(1.53, x)) < 2e-3
    assert at(0, x, depth) == pytest.approx(1.014447, rel=5e-3)
    assert at(10, x, depth) == pytest.approx(0.622057, rel=5e-3)
    assert depth[-1] == pytest.approx(0.405781, rel=5e-3)
    assert discharge == pytest.approx(np.full(CELLS, 1.53), rel=2e-3)


def test_transcritical_with_a_shock():
    """Depth within 0.5 % in the mean and upstream; the jump, where the level rises most, within a
    cell of 11.675 m. It goes from 0.0767 m, which its smear takes 5 % of, to 0.2638 m at the first
    sample of the table behind it; the water rises by 1 % from the jump to there."""
    x, depth, _ = settled(0.18, 0.33)
    behind = depth_of(0.18, head_of(0.18, 0.33), x, fast=False)
    exact = np.where(x < 11.675, through_critical(0.18, x), behind)
    assert at(11.675, x, behind) == pytest.approx(0.2638, rel=0.01)
    assert relative(depth, exact) < 5e-3
    assert at(0, x, depth) == pytest.approx(0.413736, rel=5e-3)
    steepest = np.argmax(np.diff(depth + bump(x)))
    assert np.mean(x[steepest : steepest + 2]) == pytest.approx(11.675, abs=LENGTH / CELLS)
    assert depth.min() == pytest.approx(0.0767, rel=0.05)
