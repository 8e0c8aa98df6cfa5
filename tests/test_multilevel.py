"""`Multilevel`: the gradient of store-all, from loops of known length only."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Multilevel, StoreAll, scan

WEIGHT = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)))
START = jnp.ones(3)


def loss(adjoint, weight, start, pushes):
    """Closures, inputs, observations and an integer that rides along."""

    def f(carry, push):
        u, n = carry
        return (jnp.tanh(weight @ u + push * (n % 3)), n + 1), jnp.sum(u**2)

    (u, _), seen = scan(f, (start, 0), pushes, adjoint=adjoint)
    return jnp.sum(u) + jnp.sum(jnp.sin(seen))


def gradient(adjoint):
    return jax.value_and_grad(functools.partial(loss, adjoint), argnums=(0, 1, 2))


def args(length):
    return WEIGHT, START, jnp.linspace(0, 1, 3 * length).reshape(length, 3)


def assert_same(one, other, rtol=1e-13):
    """Relative to each leaf's largest entry: XLA rounds a·b + c as it sees fit in each program."""
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


def fewest(length):
    """The fewest checkpoints that suffice: the most levels."""
    for checkpoints in range(1, length + 1):
        try:
            Multilevel(checkpoints).plan(length)
        except ValueError:
            continue
        return checkpoints
    raise AssertionError


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 17, 23, 24, 31, 32, 37, 40])
def test_gradient_is_that_of_store_all(length):
    """From as few checkpoints as possible. The map is as short to compile as a nonlinear one is."""
    adjoint = Multilevel(fewest(length))

    def loss(adjoint, scale, push):
        u, seen = scan(lambda u, x: (u - scale * u * u + x, u), 0.3, push, adjoint=adjoint)
        return u * u + seen @ seen

    def gradient(adjoint):
        return jax.jit(jax.grad(functools.partial(loss, adjoint), argnums=(0, 1)))

    values = 0.2, jnp.linspace(0.1, 0.2, length)
    assert_same(gradient(adjoint)(*values), gradient(StoreAll())(*values))


@pytest.mark.parametrize(("length", "checkpoints"), [(23, 8), (37, 14), (40, 99)])
def test_gradients_of_closures_and_inputs_are_those_of_store_all(length, checkpoints):
    ours = jax.jit(gradient(Multilevel(checkpoints)))(*args(length))
    assert_same(ours, gradient(StoreAll())(*args(length)))


@pytest.mark.parametrize(
    ("length", "checkpoints"), [(1, 1), (7, 5), (36, 11), (37, 13), (61, 61), (101, 12)]
)
def test_steps_evaluated_are_those_of_the_formula(length, checkpoints):
    """A counter on the host; a step's reversal evaluates it once more, as the counter is part of
    the primal that its transpose replays."""
    calls = []

    def f(carry, _):
        jax.debug.callback(lambda _: calls.append(1), carry)
        return jnp.sin(carry), None

    adjoint = Multilevel(checkpoints)
    jax.jit(jax.grad(lambda u: scan(f, u, None, length, adjoint=adjoint)[0]))(0.3)
    jax.effects_barrier()
    assert len(calls) == adjoint.plan(length).step_evaluations(reversal=1)
    assert len(calls) == adjoint.evaluations(length) + length


SHAPE = 64, 65  # of a field that no other array of the program resembles


@functools.cache
def compiled(checkpoints, length):
    """The gradient of a leapfrog on a field."""
    zero = jnp.zeros(SHAPE)

    def f(carry, _):
        u, old, c = carry
        new = 2 * u - old + c * (jnp.roll(u, 1, 0) + jnp.roll(u, -1, 1) - 2 * u)
        return (new, u, c), new[3, 5]

    def loss(u, c):
        adjoint = Multilevel(checkpoints)
        return jnp.sum(scan(f, (u, zero, c), None, length, adjoint=adjoint)[1] ** 2)

    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(zero, zero).compile()


CASES = [(20, 120), (41, 401), (34, 4000)]


@pytest.mark.parametrize(("checkpoints", "length"), CASES)
def test_memory_is_the_planned_states_and_a_small_constant(checkpoints, length):
    """The states of the plan at most, and three more; what was seen at each step comes on top.

    (One leaf of three does not change and is kept once, so that often it is less.)
    """
    field = 8 * SHAPE[0] * SHAPE[1]
    temporary = compiled(checkpoints, length).memory_analysis().temp_size_in_bytes - 4 * 8 * length
    states = Multilevel(checkpoints).states(length)
    assert 2 * states * field < temporary < 3 * (states + 3) * field


@pytest.mark.parametrize(("checkpoints", "length"), CASES)
def test_every_loop_has_a_known_length(checkpoints, length):
    text = compiled(checkpoints, length).as_text()
    loops = re.findall(r"^.* while\(.*$", text, re.MULTILINE)
    assert len(loops) >= 5
    for loop in loops:
        assert "known_trip_count" in loop


def test_the_step_is_traced_as_often_for_any_length():
    """Once to check the arguments and once to keep; the program depends on the levels alone."""
    traced = []

    def f(carry, _):
        traced.append(1)
        return jnp.sin(carry), None

    def sines(checkpoints, length):
        traced.clear()
        adjoint = Multilevel(checkpoints)
        assert len(adjoint.plan(length).levels) == 2
        loss = jax.jit(jax.grad(lambda u: scan(f, u, None, length, adjoint=adjoint)[0]))
        text = loss.lower(0.3).as_text()
        assert len(traced) <= 2
        return len(re.findall(r"stablehlo\.sine|stablehlo\.cosine", text))

    assert sines(30, 1000) == sines(302, 1_000_000) > 0


def test_every_derivative_mode():
    """Forward, forward over reverse, and gradients of a batch, against store-all to 1e-12."""
    values = args(37)

    def modes(adjoint):
        f = functools.partial(loss, adjoint)
        yield jax.jvp(f, values, values)
        yield jax.jvp(jax.grad(f, argnums=(0, 1, 2)), values, values)
        batch = jax.tree.map(lambda a: jnp.stack([a, 0.7 * a]), values)
        yield jax.vmap(jax.grad(f, argnums=(0, 1, 2)))(*batch)

    for ours, theirs in zip(modes(Multilevel(14)), modes(StoreAll()), strict=True):
        assert_same(ours, theirs, rtol=1e-12)


def test_too_few_checkpoints_are_refused():
    with pytest.raises(ValueError, match="at least 37 are needed"):
        scan(lambda c, _: (c, None), 1.0, None, 1_000_000, adjoint=Multilevel(9))
