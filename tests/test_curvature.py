"""Hessian products through checkpointed loops are those of the dense Hessian."""

from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Multilevel, Periodic, Revolve, StoreAll, gauss_newton_vp, hvp, scan
from diffsim.check import taylor_test

each_strategy = pytest.mark.parametrize(
    "adjoint", [Periodic(4), Revolve(3, 2), Multilevel(7)], ids=repr
)
STEPS = 13


def model():
    """A nonlinear oscillator chain; its stiffness, its start and its push are the unknowns."""
    return {
        "stiffness": jnp.array([1.0, 0.7]),
        "start": jnp.array([0.3, -0.2]),
        "push": 0.3 * jnp.sin(jnp.arange(float(STEPS))),
    }


def positions(adjoint, x):
    """What is seen of the chain at each step, and its last velocity."""

    def step(carry, push):
        u, v = carry
        v = v - 0.3 * (x["stiffness"] * jnp.sin(u) - push * jnp.flip(u))
        u = u + 0.3 * v
        return (u, v), u

    (_, last), seen = scan(step, (x["start"], jnp.zeros(2)), x["push"], adjoint=adjoint)
    return seen, last


def misfit(data):
    """Not a square, so that its own Hessian varies."""
    seen, last = data
    return jnp.sum(jnp.cosh(seen - 0.1)) + jnp.sum(last**4)


def flat(f):
    """``f`` of one long vector of unknowns, and where they are."""
    x, unravel = jax.flatten_util.ravel_pytree(model())
    return lambda x: f(unravel(x)), x


def loss(x, adjoint):
    return misfit(positions(adjoint, x))


def direction(seed=0):
    leaves, tree = jax.tree.flatten(model())
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(tree, [jax.random.normal(key, leaf.shape) for key, leaf in pairs])


def vector(x):
    return jax.flatten_util.ravel_pytree(x)[0]


def assert_same(one, other, rtol=1e-12):
    """Relative to the largest entry; sums of 17 unknowns' worth of products in another order."""
    np.testing.assert_allclose(one, other, rtol=0, atol=rtol * np.abs(other).max())


@each_strategy
def test_hvp_is_a_column_of_the_dense_hessian(adjoint):
    f, x = flat(partial(loss, adjoint=StoreAll()))
    dense = jax.hessian(f)(x)
    v = direction()
    product = jax.jit(partial(hvp, partial(loss, adjoint=adjoint)))(model(), v)
    assert jax.tree.structure(product) == jax.tree.structure(model())
    assert_same(vector(product), dense @ vector(v))


@each_strategy
def test_gauss_newton_is_the_dense_product_of_three_matrices(adjoint):
    stored = partial(positions, StoreAll())
    data, x = flat(lambda x: vector(stored(x)))
    unravel = jax.flatten_util.ravel_pytree(stored(model()))[1]
    jacobian = jax.jacfwd(data)(x)
    bend = jax.hessian(lambda seen: misfit(unravel(seen)))(data(x))
    v = direction()
    product = jax.jit(partial(gauss_newton_vp, partial(positions, adjoint), misfit))(model(), v)
    assert_same(vector(product), jacobian.T @ (bend @ (jacobian @ vector(v))))


def test_both_are_symmetric_and_batch_over_directions():
    """``⟨u, H v⟩ = ⟨v, H u⟩`` for the whole matrix, from one vmap; Gauss-Newton is not negative, as
    this misfit is convex, and is not the Hessian, as the data are not linear."""
    adjoint = Revolve(3, 2)
    f, x = flat(partial(loss, adjoint=adjoint))
    data, _ = flat(partial(positions, adjoint))
    eye = jnp.eye(len(x))
    hessian = jax.jit(jax.vmap(partial(hvp, f, x)))(eye)
    gauss_newton = jax.jit(jax.vmap(partial(gauss_newton_vp, data, misfit, x)))(eye)
    assert_same(hessian, hessian.T)
    assert_same(gauss_newton, gauss_newton.T)
    assert np.linalg.eigvalsh(gauss_newton).min() > -1e-12 * np.abs(gauss_newton).max()
    assert np.abs(gauss_newton - hessian).max() > 1e-2 * np.abs(hessian).max()


def test_where_the_data_are_linear_gauss_newton_is_the_hessian():
    """Data that depend on the start of a linear recursion: no second derivative is left out."""

    def data(start):
        return scan(lambda u, _: (1.01 * u, u), start, None, STEPS, adjoint=Revolve(2, 2))[1]

    def quartic(seen):
        return jnp.sum(seen**4)

    x, v = jnp.array([0.4, 1.1]), jnp.array([-1.0, 0.3])
    assert_same(gauss_newton_vp(data, quartic, x, v), hvp(lambda x: quartic(data(x)), x, v))


@each_strategy
def test_the_second_order_taylor_remainder_falls_with_the_third_power(adjoint):
    """Above 2.95 for three directions and four halvings; h = 0.01 leaves a fourth-order term of one
    per cent, which moves an order by 0.01."""
    f = jax.jit(partial(loss, adjoint=adjoint))
    hessian = jax.jit(partial(hvp, f, model()))
    orders = taylor_test(f, model(), hessian=hessian)
    assert orders.min() > 2.95
    assert np.isfinite(orders).any()


def test_a_hessian_that_is_one_per_cent_off_is_seen():
    """The remainder then falls with the second power as h goes to zero, as without a Hessian."""
    f = jax.jit(partial(loss, adjoint=Revolve(3, 2)))

    def wrong(v):
        return jax.tree.map(lambda leaf: 1.01 * leaf, hvp(f, model(), v))

    assert taylor_test(f, model(), hessian=wrong)[:, -1].max() < 2.5
    assert taylor_test(f, model())[:, -1].max() < 2.5


def test_memory_of_a_product_is_that_of_slots_of_states_and_tangents():
    """No more for ten times the steps; a slot more costs a state and its tangent."""
    shape, block = (64, 65), 4
    state = 2 * 64 * 65 * 8

    def temporary(slots, steps):
        def f(c):
            def step(carry, _):
                u, old = carry
                new = 2 * u - old + c * jnp.sin(u)
                return (new, u), new[3, 5]

            seen = scan(step, (c, c), None, steps, adjoint=Revolve(slots, block))[1]
            return jnp.sum(seen**2)

        c = jnp.full(shape, 0.1)
        compiled = jax.jit(partial(hvp, f)).lower(c, c).compile()
        return compiled.memory_analysis().temp_size_in_bytes / state

    base = temporary(10, 400)
    assert abs(temporary(20, 400) - base - 20) < 0.2
    assert abs(temporary(10, 4000) - base) < 1
