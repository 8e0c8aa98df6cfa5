"""Every solver with every strategy: red lines name the pair.

A solver is here by existing: whatever `solvers` exports is run on its own ``example()``.
"""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers
from diffsim import Grid, Multilevel, Periodic, Revolve, StoreAll, simulate
from diffsim.blow_up import finite
from diffsim.check import Derived, difference_test, dot_test, taylor_test
from diffsim.solver import AdjointSolver, Solver
from solvers.heat import Explicit, HeatParams, Neumann

SOLVERS = [
    cls
    for name in solvers.__all__
    if inspect.isclass(cls := getattr(solvers, name)) and issubclass(cls, Solver)
]
STRATEGIES = [Revolve(4, block=3), Multilevel(8)]
# another plan for the same loop, and blocks of one step or the whole run: no matter of the solver
ENDS = [
    Periodic(5),
    Periodic(1),
    Periodic(100),
    Revolve(1, 2),
    Revolve(3, 1),
    Revolve(100),
    Multilevel(100),
]
PAIRS = list(itertools.product(SOLVERS, STRATEGIES)) + [(SOLVERS[0], adjoint) for adjoint in ENDS]
each_solver = pytest.mark.parametrize("cls", SOLVERS, ids=lambda cls: cls.__name__)
each_pair = pytest.mark.parametrize(
    ("cls", "adjoint"), PAIRS, ids=lambda one: getattr(one, "__name__", repr(one))
)


def instruments(solver):
    """Two points well inside the grid, off its nodes."""
    low, high = np.array(solver.grid.extent).T
    return low + (high - low) * np.array([[0.31], [0.64]])


def data(solver, values, adjoint):
    """Data and final state of the solver's example, scaled to order one; for any parameters."""
    params, forcing = values
    steps = len(jax.tree.leaves(forcing)[0])
    observe = solver.sampler(instruments(solver))
    state, seen = simulate(solver, params, observe, steps=steps, forcing=forcing, adjoint=adjoint)
    return seen, state


@each_solver
def test_outside_the_grid_there_is_nothing_to_see(cls):
    """A place known by now is refused; under jit it reads NaN, no neighbour's value, no zero."""
    solver, params, _ = cls.example()
    state = solver.init(params)
    outside = instruments(solver) + np.array([[0.0], [1.0]]) * np.ptp(solver.grid.extent, axis=1)
    for places in (outside, jnp.asarray(outside), outside.tolist()):
        with pytest.raises(ValueError, match="1 of 2 positions are outside the grid"):
            jax.jit(lambda state, places=places: solver.sampler(places)(state))(state)
    with pytest.raises(ValueError, match="give a row of"):
        solver.sampler(outside[0])
    seen = jax.jit(lambda places: solver.sampler(places)(state))(outside)
    assert np.array_equal(np.isnan(seen), [False, True])


@each_solver
def test_a_step_is_traced_no_more_than_twice(cls, monkeypatch):
    """Though it stands in several loops, with its derivatives: tracing was half of the wait for a
    program. Twice, as JAX does not find again in a backward pass what it traced for the loop."""
    traced, step = [], cls.step
    monkeypatch.setattr(cls, "step", lambda *args: traced.append(1) or step(*args))
    solver, *values = cls.example()
    misfit = lambda values: sum(map(jnp.sum, jax.tree.leaves(data(solver, values, Revolve(4, 3)))))  # noqa: E731
    jax.make_jaxpr(jax.grad(misfit, allow_int=True))(values)
    assert 1 <= len(traced) <= 2


@functools.cache
def scales(cls):
    """What brings all that comes out of the solver's example to order one."""
    solver, params, forcing = cls.example()
    out = jax.jit(lambda values: data(solver, values, StoreAll()))((params, forcing))
    return jax.tree.map(lambda a: float(1 / (jnp.max(jnp.abs(a)) + 1e-300)), out)


def objective(cls, adjoint=StoreAll(), wrap=lambda solver: solver):  # noqa: B008
    """A nonlinear scalar of everything that comes out, and where to differentiate it."""
    solver, params, forcing = cls.example()
    scale = scales(cls)

    def loss(values):
        scaled = jax.tree.map(jnp.multiply, data(wrap(solver), values, adjoint), scale)
        return sum(jnp.sum(jnp.sin(a + 0.3)) for a in jax.tree.leaves(scaled))

    return loss, (params, forcing)


@functools.cache
def stored(cls):
    """Value and gradient by the yardstick."""
    loss, values = objective(cls)
    return jax.jit(jax.value_and_grad(loss))(values)


@each_pair
def test_gradient_is_that_of_store_all(cls, adjoint):
    """1e-13 of each leaf's largest entry, not bit-equality: XLA contracts a·b + c into one rounding
    or two, as it sees fit in each program, so equal operations in equal order still differ by a few
    units in the last place per step, over 19 steps."""
    loss, values = objective(cls, adjoint)
    value, gradient = jax.jit(jax.value_and_grad(loss))(values)
    expected_value, expected = stored(cls)
    np.testing.assert_allclose(value, expected_value, rtol=1e-13)
    for leaf, expected_leaf in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(leaf, expected_leaf, rtol=0, atol=1e-13 * np.abs(leaf).max())
        assert np.abs(leaf).max() > 0


LEAVES = [
    pytest.param(cls, section, name, id=f"{cls.__name__}-{section}.{name}")
    for cls in SOLVERS
    for section, record in zip(("Params", "Forcing"), cls.example()[1:], strict=True)
    for name, value in record._asdict().items()
    if value is not None
]


@functools.cache
def checkpointed(cls):
    """Value and gradient through few checkpoints, compiled once, and where to take them."""
    loss, values = objective(cls, Revolve(3, block=2))
    return jax.jit(loss), jax.jit(jax.grad(loss)), values


def along_leaf(cls, section, name):
    """The objective as a function of one leaf, where to differentiate it, and the gradient."""
    loss, gradient, values = checkpointed(cls)
    i = ("Params", "Forcing").index(section)

    def of_leaf(value):
        return loss((*values[:i], values[i]._replace(**{name: value}), *values[i + 1 :]))

    return of_leaf, getattr(values[i], name), getattr(gradient(values)[i], name)


@pytest.mark.parametrize(("cls", "section", "name"), LEAVES)
def test_taylor_remainder_falls_with_the_square_of_the_step(cls, section, name):
    """Order above 1.99 in three seeded directions. The next term of the series bends it in
    proportion to h, by 0.014 at most in any example at h = 4e-4 of the leaf, and half as much for
    each halving: the first is left out. A source must not leave its window of nodes on the way
    (there the interpolation is continuous, but has a kink)."""
    f, x, gradient = along_leaf(cls, section, name)
    orders = taylor_test(f, x, gradient=gradient, step=4e-4, halvings=3)[:, 1:]
    assert np.all(orders > 1.99), orders
    assert np.all(np.isfinite(orders)), "the remainder is round-off: the step is too small"


@pytest.mark.parametrize(("cls", "section", "name"), LEAVES)
def test_gradient_is_the_limit_of_central_differences(cls, section, name):
    """1e-7 of the largest slope possible: fourth-order differences at 1e-4 leave 1e-12 of
    truncation and 1e-16 / 1e-4 of round-off."""
    f, x, gradient = along_leaf(cls, section, name)
    assert difference_test(f, x, gradient=gradient, step=1e-4) < 1e-7


@each_solver
def test_dot_product_with_the_tangent(cls):
    """⟨J v, w⟩ = ⟨v, Jᵀ w⟩ to 1e-12: both sides are sums of a few thousand rounded products."""
    solver, *values = cls.example()

    def seen(solver, adjoint):
        return jax.jit(lambda values: data(solver, values, adjoint)[0])

    plain = seen(Derived(solver), StoreAll())
    assert dot_test(seen(solver, Revolve(3, block=2)), values, tangent=plain) < 1e-12


@pytest.mark.parametrize(
    "cls", [c for c in SOLVERS if issubclass(c, AdjointSolver)], ids=lambda cls: cls.__name__
)
def test_pullback_is_the_transpose_that_jax_derives(cls):
    """Through all steps of the example, for every parameter, series and the final state: 1e-12 of
    each leaf's largest entry, a few hundred roundings."""
    derived, values = objective(cls, wrap=Derived)
    _, by_hand = stored(cls)
    leaves = map(jax.tree.leaves, (by_hand, jax.jit(jax.grad(derived))(values)))
    for own, jaxs in zip(*leaves, strict=True):
        np.testing.assert_allclose(own, jaxs, rtol=0, atol=1e-12 * np.abs(jaxs).max())


@pytest.mark.slow
@each_solver
def test_shots_by_vmap_are_shots_one_by_one(cls):
    """Values and gradients under ``vmap`` over the forcing, to 1e-13 as above; a single number's to
    1e-12, as it sums over a field: of the dip of a fault a seventieth is left of what it sums."""
    loss, (params, forcing) = objective(cls, Revolve(3, block=2))
    forcings = jax.tree.map(lambda f: jnp.stack([f, 0.7 * f, -f]), forcing)
    gradient = jax.jit(jax.grad(lambda p, f: loss((p, f)), argnums=(0, 1)))
    together = jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(params, forcings)
    for i in range(3):
        alone = gradient(params, jax.tree.map(lambda f, i=i: f[i], forcings))
        for a, b in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
            within = 1e-13 if b.ndim else 1e-12
            np.testing.assert_allclose(a[i], b, rtol=0, atol=within * np.abs(b).max())


@each_solver
def test_observing_less_often_sees_the_same_states(cls):
    """Every third observation of a run observed at each step; data entry n belongs to n dt."""
    solver, params, forcing = cls.example()
    steps = len(jax.tree.leaves(forcing)[0]) // 3 * 3
    forcing = jax.tree.map(lambda f: f[:steps], forcing)
    observe = solver.sampler(instruments(solver))
    run = functools.partial(simulate, solver, params, observe, steps=steps, forcing=forcing)
    _, all_data = jax.jit(run)()
    _, seen = jax.jit(functools.partial(run, every=3, adjoint=Revolve(2)))()
    first = observe(solver.init(params))
    for own, expected in ((seen, all_data[::3]), (seen[0], first)):
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-13 * np.abs(all_data).max())


@each_solver
def test_a_gradient_of_what_is_seen_now_and_then_is_that_of_all_steps(cls):
    """Of every ninth observation, through blocks within a stretch of nine that do not divide it,
    and of a run observed at each step, by storing all: 1e-13 of each leaf's largest entry, as
    above."""
    solver, params, forcing = cls.example()
    forcing = jax.tree.map(lambda f: f[:18], forcing)
    observe = solver.sampler(instruments(solver))

    def loss(values, cut, **how):
        seen = simulate(solver, values[0], observe, steps=18, forcing=values[1], **how)[1]
        return jnp.sum(seen[::cut] ** 2)

    every_ninth = functools.partial(loss, cut=1, every=9, adjoint=Revolve(2))
    own, expected = (
        jax.tree.leaves(jax.jit(jax.grad(f))((params, forcing)))
        for f in (every_ninth, functools.partial(loss, cut=9))
    )
    for leaf, expected_leaf in zip(own, expected, strict=True):
        largest = np.abs(expected_leaf).max()
        np.testing.assert_allclose(leaf, expected_leaf, rtol=0, atol=1e-13 * largest)


def test_a_stretch_between_observations_keeps_a_block_and_what_blocks_start_from():
    """Of heat, seen every 40 steps of 400: beside what a gradient keeps that is seen at each step,
    one state for each 8 of the 40, and 8 more. They do not grow with the strategy's blocks."""
    cells = 64
    grid = Grid(shape=(cells, cells), spacing=(1.0, 1.0))
    solver = solvers.Heat(grid=grid, dt=0.2, boundary=((Neumann(),) * 2,) * 2, scheme=Explicit())
    params = HeatParams(
        conductivity=jnp.ones((cells, cells)), capacity=1.0, initial=jnp.ones((cells, cells))
    )
    observe = solver.sampler(np.array([[20.0, 30.0]]))

    def temporary(every):
        def loss(conductivity):
            given = params._replace(conductivity=conductivity)
            how = {"steps": 400, "every": every, "adjoint": Revolve(8)}
            return jnp.sum(simulate(solver, given, observe, **how)[1] ** 2)

        program = jax.jit(jax.grad(loss)).lower(params.conductivity).compile()
        return program.memory_analysis().temp_size_in_bytes

    state = sum(leaf.nbytes for leaf in jax.tree.leaves(solver.init(params)))
    assert temporary(40) - temporary(1) < (40 // 8 + 8) * state


@each_solver
def test_what_is_not_finite_stays_so(cls):
    """So a look at the last state tells of all: a bad number in any of up to 20 entries of each
    field either is in the last state, or had no influence (halo corners that no stencil reads):
    then the last state is the same to the bit."""
    solver, params, forcing = cls.example()
    coefficients, state = solver.coefficients(params), solver.init(params)

    @jax.jit
    def last(state):
        advance = lambda state, forcing_n: (solver.step(coefficients, state, forcing_n), None)  # noqa: E731
        return jax.lax.scan(advance, state, forcing)[0]

    leaves, tree = jax.tree.flatten(state)
    expected, lost = last(state), 0
    for i, leaf in enumerate(leaves):
        places = np.random.default_rng(i).permutation(leaf.size)[:20]
        for place, bad in itertools.product(places, (np.nan, np.inf, -np.inf)):
            spoilt = np.array(leaf)
            spoilt.flat[place] = bad
            end = last(jax.tree.unflatten(tree, [*leaves[:i], spoilt, *leaves[i + 1 :]]))
            if finite(end):
                jax.tree.map(np.testing.assert_array_equal, end, expected)
            else:
                lost += 1
    assert lost > 0


@pytest.mark.slow
@pytest.mark.parametrize("cls", [solvers.ShallowWater, solvers.Wave])
def test_hessian_vector_product_through_checkpoints(cls):
    """Forward over reverse of the solver without its own pullback, against store-all: 1e-12, as the
    product sums over twice as many roundings as a gradient. Of the two whose steps have derivative
    rules of their own inside: limiters, barriers, points, compiled sweeps."""

    def product(adjoint):
        loss, values = objective(cls, adjoint, wrap=Derived)
        direction = jax.tree.map(lambda a: 0.01 * a, values)
        return jax.jit(lambda v: jax.jvp(jax.grad(loss), (v,), (direction,))[1])(values)

    products = product(Revolve(3, block=2)), product(StoreAll())
    for own, expected in zip(*map(jax.tree.leaves, products), strict=True):
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        assert np.abs(expected).max() > 0
