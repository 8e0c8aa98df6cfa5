"""Shallow water on a sphere: steady flow, still water, mass, gradients."""

import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from shallow_water_case import basin, centres, end, params, water

from diffsim.check import difference_test, taylor_test
from diffsim.grid import Grid
from solvers import stencil
from solvers.earth import Rotation, Sphere
from solvers.shallow_water import Coriolis, Open, Periodic, ShallowWater, Wall

RADIUS, GRAVITY, RATE = 6.37122e6, 9.80616, 7.292e-5  # m, m/s², rad/s, of Williamson et al. 1992
DAY = 86400.0  # s
SPEED, GEOPOTENTIAL = 2 * np.pi * RADIUS / (12 * DAY), 2.94e4  # m/s, m²/s², of test case 2
BELT = ((Wall(), Wall()), (Periodic(), Periodic()))


def belt(rows, columns, north, dt, **fields):
    """A solver for all longitudes from so many radians south to so many north; latitude and
    longitude of its cells."""
    spacing = 2 * north * RADIUS / rows, 2 * np.pi * RADIUS / columns
    grid = Grid(shape=(rows, columns), spacing=spacing, origin=(spacing[0] / 2 - north * RADIUS, 0))
    sphere = Sphere(RADIUS)
    solver = ShallowWater(grid=grid, dt=dt, boundary=BELT, sphere=sphere, gravity=GRAVITY, **fields)
    y, x = centres(solver)
    return solver, y / RADIUS, x / RADIUS


def zonal_flow_error(rows, limiter):
    """Of the depth after five days, relative: in the mean, the mean square and at most."""
    steps = 16 * rows
    solver, latitude, _ = belt(
        rows, 4, np.pi / 2, 5 * DAY / steps, limiter=limiter, coriolis=Rotation(RATE)
    )
    fall = (RADIUS * RATE * SPEED + SPEED**2 / 2) * np.sin(latitude) ** 2
    start = (GEOPOTENTIAL - fall) / GRAVITY
    flow = jnp.stack([0 * start, start * SPEED * np.cos(latitude)])
    values = params(0.0, start, discharge=flow)
    assert solver.dt < solver.stable_dt(values)
    depth, _ = water(solver, values, steps)
    error, area = np.abs(depth - start), np.cos(latitude)
    mean = np.sum(area * error) / np.sum(area * start)
    square = np.sum(area * error**2) / np.sum(area * start**2)
    return mean, np.sqrt(square), error.max() / start.max()


@pytest.mark.slow
@pytest.mark.parametrize("limiter", [stencil.VanLeer(), stencil.MonotonizedCentral()], ids=repr)
def test_williamson_2(limiter):
    """Steady geostrophic flow around the Earth (Williamson et al. 1992, J. Comput. Phys. 102, test
    case 2, α = 0), on the whole sphere: nothing flows across a parallel, so walls at the poles,
    whose faces have no length, are exact. After five days the depth's error, in the mean and in the
    mean square, falls with slope 1.9 or more from 16 to 32, 64 and 128 rows. So does the greatest
    one from 32 rows on: on fewer the limiter, which flattens the extrema at the equator and the
    poles, flattens a good part of the flow."""
    errors = np.array([zonal_flow_error(rows, limiter) for rows in (16, 32, 64, 128)])
    slopes = np.log2(errors[:-1] / errors[1:])
    assert np.all(slopes[:, :2] > 1.9), slopes
    assert slopes[1:, 2].mean() > 1.9, slopes
    assert errors[-1, 1] < 2e-4


def tilted_flow_error(rows):
    """Of depth and discharge between 40° south and north after two hours, in the mean square."""
    steps, tilt, speed = 2 * rows, np.pi / 4, 2 * SPEED
    solver, latitude, longitude = belt(
        rows, 2 * rows, np.deg2rad(70), 7200.0 / steps, limiter=stencil.MonotonizedCentral()
    )
    sine = np.sin(latitude) * np.cos(tilt) - np.cos(longitude) * np.cos(latitude) * np.sin(tilt)
    east = np.cos(latitude) * np.cos(tilt)
    east = east + np.sin(latitude) * np.cos(longitude) * np.sin(tilt)
    north = -np.sin(longitude) * np.sin(tilt)
    start = (GEOPOTENTIAL - speed**2 / 2 * sine**2) / GRAVITY
    flow = start * speed * np.stack([north, east])
    values = params(0.0, start, discharge=jnp.asarray(flow))
    assert solver.dt < solver.stable_dt(values)
    depth, discharge = water(solver, values, steps)
    here = np.abs(latitude) < np.deg2rad(40)
    pairs = (depth, start), *zip(discharge, flow, strict=True)
    return np.array([np.sqrt(np.mean((a - b)[here] ** 2)) for a, b in pairs])


@pytest.mark.slow
def test_flow_about_any_axis_is_steady():
    """Water that turns about an axis 45° off that of the grid, on a sphere that stands still (test
    case 2, α = π/4, Ω = 0, twice its speed): all terms of the metric are at work. Walls at 70° make
    waves that have not come to 40° after two hours; there the errors of depth and discharge fall
    with slope 1.9 or more from 48 to 96 and 192 rows, by the limiter that cuts extrema least."""
    errors = np.array([tilted_flow_error(rows) for rows in (48, 96, 192)])
    slopes = np.log2(errors[:-1] / errors[1:])
    assert np.all(slopes > 1.9), (slopes, errors)


def planet(shape, dt, boundary=BELT, **fields):
    """A solver for cells of a metre on a small sphere, from 14° on: the northern cells are half as
    wide as the southern ones."""
    solver = basin([float(n) for n in shape], shape, dt, boundary)
    grid = Grid(shape=shape, spacing=solver.grid.spacing, origin=(3.0, 0.5))
    sphere = Sphere(12.0)
    return ShallowWater(
        grid=grid, dt=dt, boundary=boundary, sphere=sphere, coriolis=Rotation(1e-3), **fields
    )


def rough(shape):
    """A bed of independent numbers between 0 and 2 m."""
    return 2 * np.random.default_rng(0).random(shape)


@pytest.mark.parametrize("level", [2.5, 1.0], ids=["wet", "dry hills"])
def test_a_lake_at_rest_stays_at_rest(level):
    """On a bed of random steps of up to 2 m, 1e-12 m and m²/s: what flows through a face of any
    length is nothing, to the last digit."""
    solver = planet((12, 15), 0.04, ((Wall(), Open()), (Periodic(), Periodic())))
    bed = rough((12, 15))
    start = np.maximum(level, bed)
    depth, discharge = water(solver, params(bed, start), 2000)
    assert np.abs(depth + bed - start).max() < 1e-12
    assert np.abs(discharge).max() < 1e-12


@pytest.mark.parametrize("limiter", [None, stencil.VanLeer()], ids=repr)
def test_water_is_neither_made_nor_lost(limiter):
    """A wave that floods random steps between two walls, at nearly the largest stable dt: the sum
    of depths times areas keeps 1e-12 of itself in 600 steps, and no depth is below 0."""
    shape = (12, 15)
    solver = planet(shape, 0.03 if limiter else 0.06, limiter=limiter)
    y, x = centres(solver)
    bed = rough(shape)
    values = params(bed, np.where(x + y < 13, 4.0, 0.7))
    assert solver.dt > 0.8 * solver.stable_dt(values)
    area = np.cos(y / 12)
    before = np.maximum(values.stage - bed, 0)
    after, _ = water(solver, values, 600)
    assert np.abs(after - before).max() > 0.5
    assert np.sum(area * after) == pytest.approx(np.sum(area * before), rel=1e-12)
    assert after.min() >= 0


@pytest.mark.slow
def test_gradients_by_all_parameters():
    """Taylor remainders of order above 1.99 and differences to 1e-7, of the first-order scheme:
    faster than its waves along parallels, rising northward in bed, level and flow, so that no wave
    speed and no sill switches sides."""
    solver = planet((6, 7), 0.01, limiter=None)
    y, x = centres(solver)
    flow = np.stack([3 + 0.5 * y, 30 + 2 * y + np.sin(2 * x)])
    stage, bed = 2 + 0.2 * y + 0.1 * np.sin(x), 0.1 * y + 0.1 * np.cos(2 * x)
    values = params(bed, stage, discharge=jnp.asarray(flow), friction=jnp.full(x.shape, 0.03))
    weights = np.random.default_rng(3).random(x.shape)

    def loss(values):
        depth, (qy, qx), _ = end(solver, values, 10)
        return jnp.sum(weights * (depth**2 + qy * qx + qx))

    assert np.all(taylor_test(loss, values, step=2e-4) > 1.99)
    assert difference_test(loss, values, step=1e-4) < 1e-7


def test_the_stable_step_is_that_of_the_narrowest_cell():
    """The first-order limit over a flat bed at rest: ``√(g h) (1/x + face/y) dt ≤ 1``, in which x
    is a cell's width on the northernmost parallel, and y the longer of its faces' share of it."""
    solver = planet((12, 15), 0.04, limiter=None)
    latitude = (3.0 + 11) / 12
    face = np.cos(latitude - 0.5 / 12) / np.cos(latitude)
    fastest = np.sqrt(9.81 * 2) * (1 / np.cos(latitude) + face)
    assert solver.stable_dt(params(np.zeros((12, 15)), 2.0)) == pytest.approx(1 / fastest)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"shape": (20, 15)}, "beyond a pole"),
        ({"shape": (4,), "boundary": ((Wall(), Wall()),)}, "the grid has 1: leave sphere out"),
    ],
)
def test_what_lies_on_no_sphere_is_refused(fields, part):
    given = {"boundary": BELT, **fields}
    grid = Grid(shape=given.pop("shape"), spacing=(1.0,) * len(given["boundary"]))
    with pytest.raises(ValidationError, match=part):
        ShallowWater(grid=grid, dt=0.1, sphere=Sphere(12.0), **given)


def test_a_plane_does_not_rotate_about_poles():
    with pytest.raises(ValidationError, match="that of a sphere: give one, or Coriolis"):
        basin((8.0, 8.0), (8, 8), 0.1, coriolis=Rotation())
    assert basin((8.0, 8.0), (8, 8), 0.1, coriolis=Coriolis(1e-4)).sphere is None
