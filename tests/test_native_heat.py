"""The compiled sweeps of conduction are their plain twins, on any faces, of any size and type."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heat_case import heat

from diffsim import Grid, Revolve, simulate
from diffsim.solver import added
from solvers import native
from solvers.heat import (
    RKL2,
    Dirichlet,
    Explicit,
    Heat,
    HeatForcing,
    HeatParams,
    HeatState,
    Neumann,
    Periodic,
    Robin,
)

pytestmark = pytest.mark.skipif(
    not native.built(), reason="no compiled sweeps here: built without a C++ compiler, or refused"
)

FACES = (Dirichlet(), Robin()), (Periodic(), Periodic()), (Neumann(), Dirichlet())
LINE, SQUARE, BOX = (20_000,), (300, 70), (30, 31, 33)  # each in several parts


def problem(shape, dtype, fields, scheme):
    """What a step and its transpose take: a solver, rough coefficients, a state, what drives it
    and a cotangent, random in the halo too; one capacity and no heating unless ``fields``."""
    random, ndim = np.random.default_rng(1), len(shape)
    noise = lambda *shape: jnp.asarray(random.standard_normal(shape), dtype)  # noqa: E731
    solver = heat(shape, [float(n) for n in shape], 0.1, scheme, FACES[-ndim:])
    params = HeatParams(
        conductivity=1.5 + jnp.tanh(noise(ndim, *shape)),
        capacity=2 + jnp.tanh(noise(*shape)) if fields else jnp.asarray(2, dtype),
        initial=noise(*shape),
        boundary=noise(ndim, 2),
        exchange=2 + jnp.tanh(noise(ndim, 2)),
        slope=jnp.asarray(0.01, dtype) if fields else None,
        heating=noise(*shape) if fields else None,
        sources=jnp.asarray([[0.4 * n for n in shape], [0.7 * n for n in shape]], dtype),
    )
    whole = [n + 2 for n in shape]
    forcing = HeatForcing(noise(2), noise(ndim, 2)), HeatState(noise(*whole))
    return solver, (solver.coefficients(params), solver.init(params), *forcing)


def results(solver, args, total):
    """A step, and what it accumulates, of a program and its text."""

    def both(args, total):
        return solver.step(*args[:3]), solver.accumulate(*args, total)

    program = jax.jit(both).lower(args, total)
    return program.compile()(args, total), program.as_text()


@pytest.mark.parametrize(
    ("shape", "dtype", "fields", "scheme"),
    [
        ((2,), "float64", True, Explicit()),
        (LINE, "float32", True, Explicit()),
        ((5, 4), "float64", False, Explicit()),
        ((5, 4), "float64", True, RKL2(5)),
        (SQUARE, "float64", True, Explicit()),
        (SQUARE, "float32", False, RKL2(3)),
        (BOX, "float64", False, Explicit()),
        (BOX, "float32", True, Explicit()),
    ],
    ids=str,
)
def test_a_step_and_what_it_accumulates_are_those_of_plain_jax(
    shape, dtype, fields, scheme, monkeypatch
):
    """The sweeps against the plain step and the sum of a total and the plain `pullback`. 50
    roundings of each array's largest value: it is a sum of some ten products for each of up to five
    stages, in another order and with fused multiplications. A single number sums up a field: a
    rounding for each hundred cells more, as they differ in sign."""
    solver, args = problem(shape, dtype, fields, scheme)
    bars = jax.jit(solver.pullback)(*args)[0]
    total = jax.tree.map(lambda b: b if b.dtype == jax.dtypes.float0 else 3 * b + 1, bars)
    own, text = results(solver, args, total)
    assert f"diffsim_conduct_{dtype}" in text
    assert (f"diffsim_correlate_{dtype}" in text) == isinstance(scheme, Explicit)
    monkeypatch.setattr(native, "built", lambda: False)
    twin, text = results(solver, args, total)
    assert "diffsim_" not in text
    more, *others = jax.jit(solver.pullback)(*args)
    summed = twin[0], (added(total, more), *others)
    roundings = 50 + math.prod(shape) / 100
    for expected in (twin, summed):
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(own), jax.tree.leaves(expected), strict=True
        ):
            if b.dtype == jax.dtypes.float0:
                continue
            most = (roundings if b.ndim == 0 else 50) * np.finfo(dtype).eps * np.abs(b).max()
            place = jax.tree_util.keystr(path)
            np.testing.assert_allclose(a, b, rtol=0, atol=most, err_msg=place)


def test_four_axes_have_no_sweep_and_run_all_the_same():
    """Between insulated faces no heat is lost: eight roundings of a sum of 36 temperatures."""
    grid = Grid(shape=(3, 2, 3, 2), spacing=(1.0,) * 4, axes=("w", "z", "y", "x"))
    faces = ((Neumann(), Neumann()),) * 4
    solver = Heat(grid=grid, dt=0.05, boundary=faces, scheme=Explicit())
    start = jnp.asarray(np.random.default_rng(2).random(grid.shape))
    params = HeatParams(jnp.ones(()), 1.0, start)
    args = solver.coefficients(params), solver.init(params)
    program = jax.jit(lambda c, state: solver.step(c, state, None)).lower(*args)
    assert "diffsim_conduct" not in program.as_text()
    end = program.compile()(*args).temperature
    assert not np.array_equal(end, args[1].temperature)
    np.testing.assert_allclose(jnp.sum(end), jnp.sum(start), rtol=8 * np.finfo(float).eps)


def test_a_gradient_moves_no_field_but_by_its_sweeps():
    """No loop of a gradient copies a field: a state is kept, or found again, by one slice."""
    shape, steps = (48, 40), 400
    solver = heat(shape, (1.0, 1.0), 1e-5, Explicit())
    params = HeatParams(jnp.ones(shape), 1.0, jnp.ones(shape))
    sampler = solver.sampler(jnp.asarray([[0.3, 0.4]]))

    def loss(conductivity):
        own = params._replace(conductivity=conductivity)
        _, seen = simulate(solver, own, sampler, steps=steps, adjoint=Revolve(5))
        return jnp.sum(seen**2)

    text = jax.jit(jax.grad(loss)).lower(params.conductivity).compile().as_text()
    bodies = [b for b in re.split(r"\n(?=%|ENTRY)", text) if " while(" in b or '"diffsim_' in b]
    loops = [body for body in bodies if not body.startswith("ENTRY")]
    assert any('"diffsim_correlate' in body for body in loops)
    assert not re.findall(r"= f64\[50,42\]\S* copy\(", "".join(loops))
