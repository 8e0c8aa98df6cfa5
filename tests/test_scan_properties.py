"""Random programs: whatever the step, the tree, the length and the slots, it is ``lax.scan``."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

import diffsim
from diffsim import Periodic, Revolve, StoreAll

# What may happen to a leaf of the carry: (leaf, weight, a number made of another leaf, input).
OPERATIONS = {
    "tanh": lambda u, w, s, x: jnp.tanh(w * u),
    "mix": lambda u, w, s, x: u + 0.1 * w * jnp.sin(s),
    "push": lambda u, w, s, x: 0.9 * u + x,
    "turn": lambda u, w, s, x: jnp.roll(u, 1) * jnp.cos(w + s),
    "sum": lambda u, w, s, x: 0.5 * u + jnp.tanh(jnp.sum(u)) * s,
    "branch": lambda u, w, s, x: lax.cond(s > x, jnp.sin, lambda u: w * u, u),
    "loop": lambda u, w, s, x: lax.fori_loop(0, 2, lambda _, u: jnp.sin(u) * w, u),
    "stop": lambda u, w, s, x: lax.stop_gradient(jnp.sin(u)) + w * s,
    "forget": lambda u, w, s, x: jnp.full_like(u, 0.3),
}
TREES = {
    "tuple": tuple,
    "list": lambda leaves: [None, *leaves],
    "dict": lambda leaves: {str(i): leaf for i, leaf in enumerate(leaves)},
    "nested": lambda leaves: {"first": leaves[0], "rest": (tuple(leaves[1:]), {})},
}
LEAVES = [
    lambda: jnp.float64(0.4),
    lambda: jnp.linspace(-1.0, 1.0, 3),
    lambda: jnp.arange(4.0).reshape(2, 2) / 5,
    lambda: jnp.array([0.3 + 0.1j, -0.2j]),
    lambda: jnp.int32(2),
    lambda: jnp.array([True, False]),
]
lengths = st.integers(0, 40)
adjoints = st.one_of(
    st.builds(Revolve, st.integers(1, 8), st.integers(1, 5)),
    st.builds(Periodic, st.integers(1, 9)),
    st.just(StoreAll()),
)


@st.composite
def programs(draw):
    """``(scan, weights, carry, xs) -> (carry, ys)`` of a random step, and its arguments."""
    leaves = draw(st.lists(st.sampled_from(LEAVES), min_size=1, max_size=3))
    which = st.integers(0, len(leaves) - 1)
    move = st.tuples(which, st.sampled_from(sorted(OPERATIONS)), which)
    moves = draw(st.lists(move, min_size=1, max_size=4))
    seen = draw(st.lists(which, max_size=2))
    tree = TREES[draw(st.sampled_from(sorted(TREES)))]
    reverse, length = draw(st.booleans()), draw(lengths)
    inputs = draw(st.sampled_from(["none", "array", "with an integer"]))

    def step(weights, carry, x):
        carry, treedef = jax.tree.flatten(carry)
        push = 0.1 if x is None else x["a"] * (1 + x.get("i", 0) % 2)
        for i, (target, name, source) in enumerate(moves):
            number = jnp.mean(jnp.real(carry[source]).astype(float))
            carry[target] = moved(OPERATIONS[name], carry[target], weights[i], number, push)
        return jax.tree.unflatten(treedef, carry), [carry[i] for i in seen]

    def run(scan, weights, carry, xs):
        return scan(partial(step, weights), carry, xs, length, reverse)

    xs = {"a": jnp.sin(jnp.arange(float(length))), "i": jnp.arange(length)}
    xs = {"none": None, "array": {"a": xs["a"]}, "with an integer": xs}[inputs]
    weights = 0.9 + 0.1 * jnp.arange(float(len(moves)))
    return run, weights, tree([leaf() for leaf in leaves]), xs


def moved(operation, leaf, *numbers):
    """Integers count and flags flip; they have no derivative."""
    if leaf.dtype == bool:
        return ~leaf
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf + 1
    return operation(leaf, *numbers).astype(leaf.dtype)


def loss(run, scan, weights, carry, xs):
    leaves = jax.tree.leaves(run(scan, weights, carry, xs))
    return sum(jnp.sum(jnp.cos(jnp.real(leaf) + 0.1)) for leaf in leaves)


def assert_same(ours, theirs, rtol):
    """Relative to the largest entry of all: a leaf may be what is left of larger terms."""
    ours, theirs = (list(jax.tree.leaves(tree)) for tree in (ours, theirs))
    assert [(a.shape, a.dtype) for a in ours] == [(a.shape, a.dtype) for a in theirs]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.dtype != jax.dtypes.float0]
    scale = max([1.0, *(float(np.abs(b).max(initial=0)) for _, b in pairs)])
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * scale)


few = partial(
    settings, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@few(max_examples=12)
@given(programs(), adjoints)
def test_values_and_gradients(program, adjoint):
    """1e-13: the same operations in the same order, but for how XLA rounds a·b + c."""
    run, weights, carry, xs = program

    def outcome(scan):
        f = partial(loss, run, scan)
        gradient = jax.value_and_grad(f, argnums=(0, 1, 2), allow_int=True)
        return jax.jit(lambda *args: (run(scan, *args), gradient(*args)))(weights, carry, xs)

    assert_same(outcome(partial(diffsim.scan, adjoint=adjoint)), outcome(lax.scan), rtol=1e-13)


@pytest.mark.slow
@few(max_examples=6)
@given(programs(), adjoints)
def test_forward_mode_batches_and_forward_over_reverse(program, adjoint):
    """1e-12 for products of second derivatives, which add up in another order."""
    run, weights, carry, xs = program

    def outcome(scan):
        def modes(weights):
            value = lambda weights: loss(run, scan, weights, carry, xs)  # noqa: E731
            gradient = jax.grad(value)
            along = jnp.flip(weights)
            batch = jnp.stack([weights, 1.1 * along])
            forward = jax.jvp(lambda w: run(scan, w, carry, xs), (weights,), (along,))
            return forward, jax.vmap(gradient)(batch), jax.jvp(gradient, (weights,), (along,))

        return jax.jit(modes)(weights)

    assert_same(outcome(partial(diffsim.scan, adjoint=adjoint)), outcome(lax.scan), rtol=1e-12)
