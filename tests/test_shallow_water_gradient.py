"""Gradients where water comes and goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import basin, centres, end, params

from diffsim.check import difference_test
from solvers import stencil
from solvers.earth import Rotation, Sphere
from solvers.shallow_water import (
    Coriolis,
    Discharge,
    Open,
    Periodic,
    ShallowWaterForcing,
    Stage,
    Wall,
)

LIMITERS = [stencil.Minmod(), stencil.VanLeer(), stencil.MonotonizedCentral()]
STEPS = 40


def flood(dtype=float, limiter=stencil.VanLeer()):  # noqa: B008
    """Half of the basin is land. A wave floods a part of it; the far hill stays dry."""
    faces = ((Wall(), Open()), (Periodic(), Periodic()))
    rotation = Coriolis(f=1e-2)
    solver = basin((80.0, 90.0), (8, 9), 0.25, faces, limiter=limiter, coriolis=rotation)
    y, x = centres(solver)
    bed = 6 * y / 80 - 3 + 0.3 * np.sin(x / 9) + 0.4 * np.cos(y / 11 + x / 40)
    stage = np.maximum(bed, 1.5 * np.exp(-(((y - 15) / 20) ** 2) - ((x - 41) / 30) ** 2))
    velocity = [
        0.1 + (y / 90) ** 2 + np.sin(x / 15) / 50,
        np.cos(x / 20) / 10 + np.sin(y / 17) / 50,
    ]
    flow = (stage - bed) * np.stack(velocity)
    friction = jnp.full((8, 9), 0.03)
    values = params(bed, stage, discharge=jnp.asarray(flow), friction=friction)
    rain = jnp.zeros(STEPS)
    cast = lambda tree: jax.tree.map(lambda a: a.astype(dtype), tree)  # noqa: E731
    return solver, cast(values), ShallowWaterForcing(rain=cast(rain))


def loss_of(solver, forcing):
    """Something nonlinear of all that is there at the end."""
    weights = np.random.default_rng(3).random((8, 9))

    def loss(values):
        state = end(solver, values, STEPS, forcing)
        depth, (qy, qx), _ = state
        return jnp.sum(weights.astype(depth.dtype) * (depth**2 + qy * qx + qx))

    return loss


@pytest.mark.slow
@pytest.mark.parametrize("limiter", LIMITERS, ids=repr)
def test_is_the_limit_of_differences(limiter):
    """1e-5 of the largest slope possible, for bed, stage, discharge and friction together, with a
    step of 1e-7: no limiter and no shore switches within it, and round-off is 1e-9. Where a field
    is exactly flat or plane limiters and sills switch; so nothing here is."""
    solver, values, forcing = flood(limiter=limiter)
    assert solver.dt < solver.stable_dt(values)
    before = values.stage > values.bed
    after = np.asarray(end(solver, values, STEPS, forcing).depth) > 1e-3
    assert 0.2 < np.mean(before) < 0.8
    assert np.any(after & ~before)
    assert not np.all(after)
    # the level of dry land has no meaning: only that of water is moved
    wet = jnp.asarray(before, float)

    def loss(values):
        stage = jnp.where(before, values.stage, values.bed)
        return loss_of(solver, forcing)(values._replace(stage=stage))

    values = values._replace(stage=values.stage * wet, discharge=values.discharge * wet[None])
    assert difference_test(loss, values, step=1e-7) < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_is_finite_and_dry_land_has_none(dtype):
    """Not a NaN anywhere, and exact zeros for the hill that no water reaches."""
    solver, values, forcing = flood(dtype)
    gradient = jax.jit(jax.grad(loss_of(solver, forcing)))(values)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    for leaf in (gradient.bed, gradient.stage, gradient.friction):
        assert leaf.dtype == dtype
        assert np.any(leaf[:3] != 0)
        assert np.all(leaf[-1] == 0)


def test_is_finite_without_any_water():
    """All of it dry and at rest: gradients are zeros, the rain's is not."""
    solver, values, forcing = flood()
    dry = values._replace(stage=values.bed, discharge=0 * values.discharge)
    loss = lambda v, f: jnp.sum(end(solver, v, STEPS, f).depth)  # noqa: E731
    gradient, rained = jax.jit(jax.grad(loss, argnums=(0, 1)))(dry, forcing)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))
    assert np.all(np.isfinite(rained.rain))


ALL_FACES = ((Stage(), Discharge()), (Wall(), Open(0.0)))
ROUND = ((Wall(), Stage()), (Periodic(), Periodic()))
PLANE = {"coriolis": Coriolis(f=1e-2)}
PLANET = {"sphere": Sphere(90 / np.pi), "coriolis": Rotation(1e-2)}  # m, rad/s; ends at the pole


@pytest.mark.parametrize(
    ("limiter", "faces", "earth"),
    [
        (stencil.VanLeer(), ROUND, PLANET),
        *(
            pytest.param(*args, marks=pytest.mark.slow)
            for args in (
                (stencil.VanLeer(), ROUND, PLANE),
                (stencil.Minmod(), ALL_FACES, PLANE),
                (None, ALL_FACES, PLANET),
            )
        ),
    ],
    ids=repr,
)
def test_pullback_is_the_transpose_that_jax_derives(limiter, faces, earth):
    """Of one step over rough half-dry ground with everything that can act on it, for every
    argument: 1e-13 of each leaf's largest entry, some hundred roundings. With Minmod the waves of
    both sides of the open face stay equally fast, whatever is moved: they may not count twice."""
    shape = (9, 8)
    solver = basin((45.0, 56.0), shape, 0.1, faces, limiter=limiter, **earth)
    random = np.random.default_rng(1)
    bed = 2 * random.random(shape) - 1.2
    stage = np.maximum(bed, 0.3 + 0.2 * random.random(shape))
    flow = 0.1 * random.standard_normal((2, *shape)) * (stage > bed)
    friction, uplift = 0.03 + 0.01 * random.random(shape), random.random(shape)
    fields = {"discharge": flow, "friction": friction, "uplift": uplift}
    values = params(bed, stage, **{name: jnp.asarray(field) for name, field in fields.items()})
    level, inflow = jnp.array([0.3]), jnp.array([0.2]) if faces is ALL_FACES else None
    forcing = ShallowWaterForcing(level, inflow, rain=jnp.array(0.01), uplift=jnp.array(0.1))
    args = solver.coefficients(values), solver.init(values), forcing
    new = jax.jit(solver.step)(*args)
    bar = jax.tree.map(lambda u: jnp.asarray(random.standard_normal(u.shape)), new)
    derived = jax.jit(lambda *args: jax.vjp(solver.step, *args)[1](bar))(*args)
    by_hand = jax.jit(solver.pullback)(*args, bar)
    for own, jaxs in zip(*map(jax.tree.leaves, (by_hand, derived)), strict=True):
        np.testing.assert_allclose(own, jaxs, rtol=0, atol=1e-13 * np.abs(jaxs).max())
