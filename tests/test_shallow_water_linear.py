"""Linear shallow water: standing waves, walking back, open faces, the sphere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim.grid import Grid
from solvers.linear_shallow_water import (
    LinearShallowWater,
    LinearShallowWaterParams,
    Open,
    Periodic,
    Sphere,
    Wall,
)

GRAVITY, DEPTH = 9.81, 4000.0  # m/s², m


def ocean(shape, dt, faces=Wall(), **fields):  # noqa: B008
    """A solver with cells of 10 km and the same face everywhere."""
    grid = Grid(shape=shape, spacing=(1e4,) * len(shape), origin=fields.pop("origin", ()))
    boundary = ((faces, faces),) * len(shape)
    return LinearShallowWater(grid=grid, dt=dt, boundary=boundary, **fields)


def run(solver, bed, stage, steps):
    bed = jnp.broadcast_to(jnp.asarray(bed, float), solver.grid.shape)
    params = LinearShallowWaterParams(bed, jnp.asarray(stage), jnp.zeros_like(bed))
    assert solver.dt <= solver.stable_dt(params)
    coefficients = solver.coefficients(params)
    step = jax.jit(
        lambda s: jax.lax.fori_loop(0, steps, lambda _, s: solver.step(coefficients, s, None), s)
    )
    return step(solver.init(params))


@pytest.mark.parametrize(("shape", "modes"), [((16,), (3,)), ((12, 14), (2, 3))])
def test_a_seiche_has_the_discrete_frequency(shape, modes):
    """``sin²(ω dt / 2) = g h dt² Σ sin²(k Δ / 2) / Δ²`` to 1e-10 after 500 steps, whose phase ω t
    is tens of radians: the level is that cosine, started half a step from rest."""
    solver = ocean(shape, 20.0)
    stage, squares = np.ones(shape), 0.0
    for axis, (n, m) in enumerate(zip(shape, modes, strict=True)):
        wave = np.cos(np.pi * m * (np.arange(n) + 0.5) / n)
        stage = stage * wave.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        squares += np.sin(np.pi * m / n / 2) ** 2 / 1e4**2
    half = np.arcsin(np.sqrt(GRAVITY * DEPTH * squares) * solver.dt)
    state = run(solver, -DEPTH, stage, 500)
    exact = np.cos((500 + 0.5) * 2 * half) / np.cos(half)
    assert np.asarray(state.stage) == pytest.approx(exact * stage, abs=1e-10)


def test_waves_leave_through_open_faces():
    """A pulse 20 cells wide goes, head-on; less than 2e-3 of it comes back."""
    solver = ocean((200,), 40.0, Open())
    stage = np.exp(-(((np.arange(200) - 100) / 10) ** 2))
    state = run(solver, -DEPTH, stage, 300)
    assert np.abs(state.stage).max() < 2e-3


def test_no_water_is_lost_on_a_sphere():
    """The sum of levels times areas, over an ocean with an island, to 1e-13."""
    solver = ocean((12, 14), 30.0, sphere=Sphere(), origin=(4e6, 0.0))
    bed = np.full((12, 14), -DEPTH)
    bed[5, 6] = 200.0
    stage = np.random.default_rng(0).random((12, 14))
    stage[5, 6] = 0.0
    area = np.cos((4e6 + 1e4 * np.arange(12)) / 6.371e6)[:, None]
    state = run(solver, bed, stage, 300)
    assert np.abs(state.stage - stage).max() > 0.1
    assert np.sum(area * state.stage) == pytest.approx(np.sum(area * stage), rel=1e-13)


def test_waves_are_as_fast_on_a_sphere():
    """Along a parallel at 60° a wave of cells half as long covers the same metres: a pulse on a
    ring of periodic cells is back after its circumference over √(g h), within half a cell."""
    radius, count = 6.371e6, 200
    grid = Grid(shape=(3, count), spacing=(1e4, 1e4), origin=(np.pi / 3 * radius - 1e4, 0.0))
    around = 1e4 * count / 2 / np.sqrt(GRAVITY * DEPTH)
    boundary = ((Wall(), Wall()), (Periodic(), Periodic()))
    solver = LinearShallowWater(grid=grid, dt=around / 500, boundary=boundary, sphere=Sphere())
    pulse = np.exp(-(((np.arange(count) - 100) / 12) ** 2)) * np.ones((3, 1))
    state = run(solver, -DEPTH, pulse, 500)
    assert np.asarray(state.stage)[1] == pytest.approx(pulse[1], abs=0.05)


def test_the_check_finds_what_is_wrong():
    solver = ocean((4,), 200.0)
    land = LinearShallowWaterParams(*(np.full(4, v) for v in (10.0, 0.0, 0.0)))
    assert "all of it is land" in solver.check(land)[0].text
    (remark,) = solver.check(land._replace(bed=np.full(4, -5.0), stage=np.ones(4)))
    assert not remark.fatal
    (remark,) = solver.check(land._replace(bed=np.full(4, -4000.0)))
    assert remark.where == "solver.dt"
    with pytest.raises(ValueError, match="beyond a pole"):
        ocean((4, 4), 1.0, sphere=Sphere(), origin=(1e7, 0.0))
