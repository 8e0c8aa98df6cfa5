"""Still water, mass, and depths that are never negative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import GRAVITY, basin, centres, params, water

from solvers import stencil
from solvers.shallow_water import (
    Coriolis,
    Discharge,
    Open,
    Periodic,
    ShallowWaterForcing,
    Stage,
    Wall,
)

SCHEMES = [None, stencil.Minmod(), stencil.VanLeer(), stencil.MonotonizedCentral()]
each_scheme = pytest.mark.parametrize("limiter", SCHEMES, ids=repr)


def rough(shape, seed=0):
    """A bed of independent numbers between 0 and 2 m."""
    return 2 * np.random.default_rng(seed).random(shape)


@each_scheme
@pytest.mark.parametrize("level", [2.5, 0.8], ids=["wet", "dry hills"])
def test_a_lake_at_rest_stays_at_rest(limiter, level):
    """Over 10⁴ steps, on a bed of random steps of up to 2 m, 1e-12 m and m²/s: pressure and weight
    cancel before they are computed, so that not even round-off adds up."""
    faces = ((Wall(), Stage()),)
    solver = basin((40.0,), (40,), 0.05, faces, limiter=limiter)
    bed = rough(40)
    bed[-1] = 0.5  # the lake reaches the face that holds its level
    start = np.maximum(level, bed)
    forcing = ShallowWaterForcing(stage=jnp.full((10_000, 1), level))
    depth, discharge = water(solver, params(bed, start), 10_000, forcing)
    assert np.abs(depth + bed - start).max() < 1e-12
    assert np.abs(discharge).max() < 1e-12


def test_a_lake_at_rest_in_two_dimensions():
    """The same, with faces of every kind that a lake can have and a turning Earth."""
    faces = ((Wall(), Open()), (Periodic(), Periodic()))
    rotation = Coriolis(f=1e-4, beta=1e-6)
    solver = basin((20.0, 30.0), (12, 15), 0.05, faces, coriolis=rotation)
    bed = rough((12, 15))
    start = np.maximum(1.0, bed)
    depth, discharge = water(solver, params(bed, start), 2000)
    assert np.abs(depth + bed - start).max() < 1e-12
    assert np.abs(discharge).max() < 1e-12


@each_scheme
def test_waves_leave_into_a_sea_at_rest(limiter):
    """A hump of a tenth of the depth runs out through both faces, over a bed that is not flat
    there: of a simple wave nothing comes back, so one per cent of it is what the slope and the
    second halves of two waves that overlapped at first may reflect. Without a level beyond, the
    face lets all flow out and none in: the water is still there, and the mean level falls."""
    bed = lambda x: -10 + 0.02 * x  # noqa: E731
    for faces, rest in ((Open(0.0), 0.01), (Open(), 0.3)):
        solver = basin((200.0,), (200,), 0.04, ((faces, faces),), limiter=limiter)
        (x,) = centres(solver)
        start = np.exp(-(((x - 100) / 12) ** 2))
        depth, _ = water(solver, params(bed(x), start), 1000)
        assert np.abs(depth + bed(x)).max() < rest


def test_an_open_sea_calms_down():
    """Rough depths to 200 m with islands, open on all sides: no corner feeds on what leaves, for
    ten times the time that a wave takes across; the hump was 2 m, a tenth of it is generous. A face
    that only extends the water before it brings this run to NaN."""
    solver = basin((2.4e4, 3.6e4), (20, 30), 6.0, ((Open(0.0),) * 2,) * 2)
    y, x = centres(solver)
    random = np.random.default_rng(0)
    bed = -200 * random.random((20, 30)) ** 2 + 5 * random.random((20, 30)) - 2
    hump = 2 * np.exp(-((x - 9e3) ** 2 + (y - 6e3) ** 2) / 9e6)
    values = params(bed, np.maximum(hump, bed))
    assert solver.dt < solver.stable_dt(values)
    depth, _ = water(solver, values, 1500)
    assert np.all(np.isfinite(depth))
    assert np.any(depth == 0)
    assert np.abs((depth + bed)[depth > 1e-3]).max() < 0.2


@each_scheme
def test_water_is_neither_made_nor_lost(limiter):
    """A wave that floods random steps in a closed basin, at the largest stable dt: the sum of
    depths keeps 1e-12 of itself in 600 steps, and no depth is below 0 in any of them."""
    cells = (16, 18)
    solver = basin((16.0, 18.0), cells, 0.02 if limiter else 0.04, limiter=limiter)
    y, x = centres(solver)
    bed = rough(cells)
    values = params(bed, np.where(x + y < 12, 4.0, 0.7))
    lowest, now = jax.jit(lambda v: _lowest(solver, v, 600))(values)
    before, after = np.maximum(values.stage - bed, 0), np.asarray(now.depth)
    assert np.any(before == 0)
    assert np.abs(after - before).max() > 0.5
    assert after.sum() == pytest.approx(before.sum(), rel=1e-12)
    assert lowest == 0


def _lowest(solver, values, steps):
    coefficients = solver.coefficients(values)

    def step(_, lowest_and_state):
        lowest, state = lowest_and_state
        state = solver.step(coefficients, state, None)
        return jnp.minimum(lowest, state.depth.min()), state

    return jax.lax.fori_loop(0, steps, step, (jnp.inf, solver.init(values)))


def test_water_that_comes_in_is_there():
    """Rain on a closed basin: the sum of depths grows by rain times time, to 1e-12."""
    solver = basin((12.0, 10.0), (12, 10), 0.05)
    rain = jnp.asarray(1e-3 * np.random.default_rng(1).random((100, 12, 10)))
    values = params(rough((12, 10)), 0.0)
    depth, _ = water(solver, values, 100, ShallowWaterForcing(rain=rain))
    assert depth.sum() == pytest.approx(0.05 * float(rain.sum()), rel=1e-12)


def test_uplift_carries_the_water():
    """An instant uplift of the bed lifts the surface by as much: the wave then starts from there;
    depths change only in the step's own flow, less than dt √(g h) / spacing of the uplift."""
    solver = basin((1000.0,), (50,), 0.05)
    (x,) = centres(solver)
    lift = np.exp(-(((x - 500) / 100) ** 2))
    values = params(-100.0, 0.0 * x)._replace(uplift=jnp.asarray(lift))
    rate = jnp.array([1 / solver.dt])
    depth, _ = water(solver, values, 1, ShallowWaterForcing(uplift=rate))
    assert depth == pytest.approx(np.full(50, 100.0), abs=0.05 * 31.4 / 20)
    assert depth.sum() == pytest.approx(5000.0, rel=1e-14)


def test_discharge_comes_in():
    """A river of 2 m²/s into a dry, closed channel: after 100 s there are 200 m², to 1 %, which the
    first moments of critical flow miss."""
    solver = basin((500.0,), (100,), 0.1, ((Discharge(), Wall()),))
    values = params(np.zeros(100), -1.0)
    forcing = ShallowWaterForcing(discharge=jnp.full((1000, 1), 2.0))
    depth, _ = water(solver, values, 1000, forcing)
    assert depth.sum() * 5.0 == pytest.approx(200.0, rel=0.01)


def test_inertial_oscillation():
    """Uniform flow on a turning plane turns clockwise with period 2π/f: after a quarter of it
    eastward flow goes south, to 1e-4, the error of the second-order scheme at f dt = 0.016."""
    f, steps = 1e-2, 100
    both = (Periodic(), Periodic())
    solver = basin(
        (400.0, 400.0), (4, 4), np.pi / 2 / f / steps, (both, both), coriolis=Coriolis(f)
    )
    east = jnp.stack([jnp.zeros((4, 4)), jnp.ones((4, 4))])
    _, discharge = water(solver, params(np.full((4, 4), -10.0), 0.0, discharge=east), steps)
    assert discharge[0] == pytest.approx(-np.ones((4, 4)), abs=1e-4)
    assert discharge[1] == pytest.approx(np.zeros((4, 4)), abs=1e-4)


def test_friction_slows_uniform_flow():
    """``dq/dt = -B q²`` with ``B = g n² / h^(7/3)``, so ``q = q₀ / (1 + B q₀ t)``; implicit Euler
    is off by a part of ``B q₀ dt``, here 1e-3."""
    manning, depth, start, steps = 0.05, 0.5, 1.0, 500
    solver = basin((40.0,), (4,), 0.01, ((Periodic(), Periodic()),))
    values = params(np.zeros(4), depth)._replace(
        friction=jnp.full(4, manning), discharge=jnp.full((1, 4), start)
    )
    drag = GRAVITY * manning**2 / depth ** (7 / 3)
    _, discharge = water(solver, values, steps)
    exact = start / (1 + drag * start * steps * solver.dt)
    assert exact < 0.7
    assert discharge[0] == pytest.approx(np.full(4, exact), rel=1e-3)
