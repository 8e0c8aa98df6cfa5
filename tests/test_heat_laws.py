"""What conduction keeps whatever the grid: heat, bounds, and the symmetry of its operator."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heat_case import centres, heat, inside, run

from diffsim import Revolve
from diffsim.simulate import simulate
from solvers.heat import RKL2, Dirichlet, Explicit, HeatForcing, HeatParams, Neumann, Theta

SHAPE = 7, 6


def rough(seed=0, slope=0.0):
    """Conductivities, capacities and temperatures that vary from cell to cell."""
    random = np.random.default_rng(seed)
    return HeatParams(
        conductivity=jnp.asarray(0.2 + random.random((2, *SHAPE))),
        capacity=jnp.asarray(1 + random.random(SHAPE)),
        initial=jnp.asarray(random.random(SHAPE)),
        slope=jnp.array(slope),
        sources=jnp.array([[0.31, 0.52], [0.77, 0.4]]),
    )


def box(dt, scheme, boundary=None):
    return heat(SHAPE, (1.0, 0.9), dt, scheme, boundary)


@pytest.mark.parametrize(
    ("scheme", "dt", "rtol"),
    [(Explicit(), 1e-3, 1e-14), (RKL2(5), 5e-3, 1e-14), (Theta(0.5), 0.3, 1e-11)],
    ids=["explicit", "RKL2", "implicit"],
)
def test_between_insulated_faces_heat_changes_by_what_sources_give(scheme, dt, rtol):
    """Each flux leaves one cell and enters the next: round-off of 20 steps for what is explicit,
    the tolerance of 1e-12 of 20 solves for what is not; with a conductivity that grows."""
    solver, params, steps = box(dt, scheme), rough(slope=0.3), 20
    power = np.abs(np.sin(np.arange(2.0 * steps))).reshape(steps, 2)
    end = run(solver, params, steps, HeatForcing(sources=jnp.asarray(power)))
    cell = np.prod(solver.grid.spacing)
    given = dt * power.sum()
    before, after = (float(jnp.sum(params.capacity * t)) * cell for t in (params.initial, end))
    assert given > 1e-2 * before
    assert after - before == pytest.approx(given, rel=0, abs=rtol * after)


def test_backward_euler_keeps_the_maximum_principle():
    """Without sources no temperature leaves the range of the start and the faces, in steps of 1000
    times the explicit limit and through jumps; but for the solves' tolerance, 1e-12. Crank-Nicolson
    does not promise it: from a checkerboard it leaves the range by far more than that."""
    cold = ((Dirichlet(), Neumann()), (Neumann(), Neumann()))
    params = rough()._replace(
        initial=jnp.asarray(np.indices(SHAPE).sum(axis=0) % 2 * 1.0),
        boundary=jnp.array([[0.25, 0.0], [0.0, 0.0]]),
    )
    limit = box(1.0, Explicit(), cold).stable_dt(params)
    kept, rung = (run(box(1e3 * limit, Theta(t), cold), params, 1) for t in (1.0, 0.5))
    assert float(kept.min()) >= -1e-12
    assert float(kept.max()) <= 1 + 1e-12
    assert float(rung.min()) < -0.1


def test_implicit_adjoint_is_that_of_a_dense_solve():
    """1e-10: one Crank-Nicolson step is ``(M + K/2)⁻¹ (M - K/2)`` with K from the explicit scheme;
    its transpose against the cotangent that reverse mode gives, solved to 1e-12."""
    dt, params = 0.4, rough()
    boundary = ((Dirichlet(), Neumann()), (Neumann(), Dirichlet()))

    def matrix(scheme, dt):
        """One step as a matrix: columns for the unit temperatures."""

        def one(initial):
            return run(box(dt, scheme, boundary), params._replace(initial=initial), 1)

        return jax.jacfwd(lambda u: one(u.reshape(SHAPE)).ravel())(jnp.zeros(np.prod(SHAPE)))

    rate = (matrix(Explicit(), 1e-3) - np.eye(np.prod(SHAPE))) / 1e-3
    dense = np.linalg.solve(np.eye(len(rate)) - dt / 2 * rate, np.eye(len(rate)) + dt / 2 * rate)
    g = np.random.default_rng(1).standard_normal(SHAPE)

    def misfit(initial):
        solver = box(dt, Theta(0.5), boundary)
        return jnp.vdot(g, run(solver, params._replace(initial=initial), 1))

    found = jax.grad(misfit)(params.initial)
    expected = (dense.T @ g.ravel()).reshape(SHAPE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_a_step_of_a_hundred_explicit_limits_is_right():
    """Crank-Nicolson and RKL2(21), which reaches 115, against explicit steps of a hundredth: the
    smooth field has decayed by a third, and both are second order in time: within 1e-3."""
    coarse = heat((64,), (1.0,), 1.0, Explicit())
    (x,) = centres(coarse)
    params = HeatParams(jnp.ones(64), jnp.array(1.0), jnp.cos(np.pi * x))
    dt = 100 * coarse.stable_dt(params)
    expected = run(heat((64,), (1.0,), dt / 101, Explicit()), params, 404)
    assert float(expected.max()) < 0.7
    for scheme in (Theta(0.5), RKL2(21)):
        found = run(heat((64,), (1.0,), dt, scheme), params, 4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "dt", "rtol"),
    [(Explicit(), 1e-3, 1e-13), (Theta(0.5), 0.1, 1e-10)],
    ids=["explicit", "implicit"],
)
def test_a_number_is_a_field_that_is_the_same_everywhere(scheme, dt, rtol):
    """And a slope or a heating that is absent is 0: the same sums in another order, so round-off of
    5 steps or the tolerance of 1e-12 of 5 solves for the loss and its gradient; by the capacity it
    is the sum of that by each cell's."""
    faces = ((Dirichlet(), Neumann()), (Neumann(), Dirichlet()))
    solver, forcing = box(dt, scheme, faces), HeatForcing(sources=jnp.ones((5, 2)))
    values, zero = jnp.array([[0.3, 0.2], [0.1, 0.4]]), jnp.array(0.0)
    number = rough()._replace(capacity=jnp.array(1.5), slope=None, boundary=values)
    field = number._replace(capacity=jnp.full(SHAPE, 1.5), slope=zero, heating=zero)
    weights = np.random.default_rng(1).random(SHAPE)

    def loss(params):
        state, _ = simulate(solver, params, lambda _: (), steps=5, forcing=forcing)
        return jnp.sum(weights * inside(solver, state) ** 2)

    (value, own), (full, each) = (jax.jit(jax.value_and_grad(loss))(p) for p in (number, field))
    each = each._replace(capacity=jnp.sum(each.capacity), slope=None, heating=None)
    for a, b in zip(*map(jax.tree.leaves, ((value, own), (full, each))), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


def test_a_kept_state_is_looked_up_once():
    """XLA would do so in each kernel that reads it, value by value, which takes twice as long at
    512²: no kernel of the way back that multiplies finds its own state."""
    solver, params = box(1e-3, Explicit()), rough()._replace(slope=None)

    def loss(conductivity):
        values = params._replace(conductivity=conductivity)
        state, _ = simulate(solver, values, lambda _: (), steps=40, adjoint=Revolve(3))
        return jnp.sum(state.temperature**2)

    text = jax.jit(jax.grad(loss)).lower(params.conductivity).compile().as_text()
    kernels = re.findall(r"^%?fused[\w.\-]* \(.*?\{\n(.*?)^\}", text, re.M | re.S)
    finding = [k for k in kernels if re.search(r"\[1,9,8\]\S* dynamic-slice", k)]
    assert finding
    assert not [k for k in finding if "multiply(" in k]
