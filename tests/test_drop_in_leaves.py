"""Whatever ``lax.scan`` carries, ``diffsim.scan`` carries, with the same types and mistakes."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from outcome import assert_same

import diffsim
from diffsim import Periodic, Revolve

ours = functools.partial(diffsim.scan, adjoint=Revolve(2, 2))


@jax.tree_util.register_dataclass
@dataclass
class Named:
    value: Any
    name: str = field(metadata={"static": True})


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, left, right):
        self.left, self.right = left, right

    def tree_flatten(self):
        return (self.left, self.right), "aux"

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def numbers(scan, a):
    """Weak and strong, integer, bool, complex and half types, some promoted by the first step."""
    init = 0, 0.5, True, jnp.int8(1), 1j, jnp.float32(2), jnp.bfloat16(1), np.float64(3), 2

    def step(carry, x):
        i, u, flag, small, z, single, half, double, grown = carry
        flag = flag ^ (i % 3 == 0)
        u = jnp.where(flag, jnp.sin(u * a), u + x)
        carry = i + 1, u, flag, small + flag, z * 1j * a, single * 0.9, half * u.astype(half.dtype)
        return (*carry, double * a, grown * a), (i, u, flag, half, 1.0, single * a)

    return scan(step, init, jnp.linspace(0.0, 1.0, 9))


def keys(scan, a, impl="threefry2x32"):
    """Typed keys in the carry, the inputs and the outputs; a raw key beside them."""

    def step(carry, key):
        u, own, raw = carry
        own, sub = jax.random.split(own)
        noise = jax.random.normal(sub, u.shape) * jax.random.uniform(key) + jax.random.normal(raw)
        return (jnp.sin(a * u) + 0.1 * noise, own, jax.random.fold_in(raw, 1)), (sub, key, u)

    init = jnp.ones(3) * a, jax.random.key(0, impl=impl), jax.random.PRNGKey(3)
    return scan(step, init, jax.random.split(jax.random.key(1), 9), reverse=True)


def records(scan, a):
    """Dataclasses with static fields, custom nodes, None and empty parts."""

    def step(carry, x):
        assert carry.name == "outer"
        inner = carry.value.left
        assert inner.name == "inner"
        inner = Named({"u": jnp.sin(a * inner.value["u"]) + x[0]}, "inner")
        return Named(Node(inner, None), "outer"), [Node(x[0], ()), None, {}]

    init = Named(Node(Named({"u": jnp.ones(2)}, "inner"), None), "outer")
    return scan(step, init, [jnp.arange(9.0), None])


def without_a_carry(scan, a):
    return scan(lambda c, x: (c, x * a), None, jnp.arange(9.0))


def empty_arrays(scan, a):
    carry = {"none": jnp.zeros((0, 3)), "some": a}
    return scan(lambda c, x: ({**c, "some": c["some"] * a}, x), carry, np.ones((9, 0)))


def no_steps(scan, a):
    return scan(lambda c, x: (c * a, (c, x)), a, jnp.ones((0, 3)))


def passed_through(scan, a):
    """Inputs, closures and old states that come out as they went in."""
    return scan(lambda c, x: ((c[1], c[0] * 0.5), (x, c[0], a)), (a, 2 * a), jnp.arange(9.0))


def complex_inputs(scan, a):
    def step(c, x):
        return c * a * jnp.exp(1j * x.real) + x, (c.real, jnp.abs(c))

    return scan(step, jnp.ones(3) + 0j, jnp.arange(27).reshape(9, 3) * (0.1 + 0.02j))


KINDS = [
    numbers,
    keys,
    functools.partial(keys, impl="rbg"),
    records,
    without_a_carry,
    empty_arrays,
    no_steps,
    passed_through,
    complex_inputs,
]


def scalar(tree):
    """Of every leaf that has a derivative."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum(jnp.sum(jnp.sin(jnp.real(leaf)).astype(float)) for leaf in leaves)


@pytest.mark.parametrize("kind", KINDS, ids=lambda f: getattr(f, "__name__", "keys_rbg"))
def test_leaves_and_their_types_are_those_of_lax_scan(kind):
    """Run alone and under a gradient, which keeps the types of all that comes out. Single precision
    among the numbers: 1e-5."""

    def outcome(scan):
        def value(a):
            out = kind(scan, a)
            return scalar(out), out

        gradient = jax.value_and_grad(value, has_aux=True)
        return jax.jit(lambda a: (kind(scan, a), gradient(a)))(0.7)

    assert_same(outcome(ours), outcome(lax.scan), rtol=1e-5 if kind is numbers else None)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_narrow_floats_keep_their_type_and_their_gradient(dtype):
    """Cotangents add up in the type of the leaf, as they do in lax.scan, if in another order."""

    def outcome(scan):
        def f(a, init):
            xs = jnp.linspace(0, 0.1, 9, dtype=dtype)
            carry, ys = scan(lambda c, x: (jnp.sin(c * a) + x, c), init, xs)
            return jnp.sum(ys.astype(jnp.float32)) + carry.astype(jnp.float32)

        return jax.value_and_grad(f, (0, 1))(jnp.asarray(0.5, dtype), jnp.asarray(0.1, dtype))

    assert_same(outcome(ours), outcome(lax.scan))


@pytest.mark.usefixtures("single_precision")
def test_single_precision_is_that_of_a_session_without_float64():
    def outcome(scan):
        init = np.float64(1), np.arange(2)
        step = lambda c, x: ((c[0] * 1.1 + x, c[1] + 1), c[0])  # noqa: E731
        loss = lambda s: scan(step, (init[0] * s, init[1]), np.arange(5.0))[0][0]  # noqa: E731
        return scan(step, init, np.arange(5.0)), jax.grad(loss)(2.0)

    assert_same(outcome(ours), outcome(lax.scan))


no_zero = pytest.mark.skipif(jax.__version_info__ < (0, 8, 1), reason="lax.scan refuses unroll=0")


@pytest.mark.parametrize("unroll", [True, False, pytest.param(0, marks=no_zero), 1, 3, 99])
def test_unroll_changes_nothing_but_the_program(unroll):
    def outcome(scan, unroll=unroll):
        loss = lambda a: scan(lambda c, x: (c * a + x, c), 1.0, jnp.arange(5.0), unroll=unroll)[0]  # noqa: E731
        return jax.value_and_grad(loss)(1.1)

    assert_same(outcome(ours), outcome(lax.scan))


def keep(c, x):
    return c, None


MISTAKES = {
    "unequal inputs": lambda scan: scan(keep, 0.0, (jnp.ones(3), jnp.ones(4))),
    "another length": lambda scan: scan(keep, 0.0, jnp.ones(3), 4),
    "no length": lambda scan: scan(keep, 0.0),
    "negative length": lambda scan: scan(lambda c, x: (c, c), 0.0, None, -1),
    "length of no number": lambda scan: scan(keep, 0.0, None, "three"),
    "traced length": lambda scan: jax.jit(lambda n: scan(keep, 0.0, None, n))(3),
    "inputs without an axis": lambda scan: scan(keep, 0.0, 1.0),
    "no function": lambda scan: scan(3, 0.0, None, 3),
    "no pair": lambda scan: scan(lambda c, x: c, 0.0, None, 3),
    "a triple": lambda scan: scan(lambda c, x: (c, 1, 2), 0.0, None, 3),
    "another shape": lambda scan: scan(lambda c, x: (jnp.ones(2), x), jnp.ones(3), None, 3),
    "another type": lambda scan: scan(lambda c, x: (c > 0, x), jnp.ones(3), None, 3),
    "another tree": lambda scan: scan(lambda c, x: ({"b": c["a"]}, x), {"a": 1.0}, None, 3),
    "more leaves": lambda scan: scan(lambda c, x: ((*c, 1), x), (1.0, 2.0), None, 3),
    "text in the carry": lambda scan: scan(keep, "abc", None, 3),
    "text in the inputs": lambda scan: scan(keep, 0.0, ["abc"]),
    "text in the outputs": lambda scan: scan(lambda c, x: (c, "abc"), 0.0, None, 3),
    "negative unroll": lambda scan: scan(keep, 0.0, None, 3, unroll=-1),
    "unroll of no number": lambda scan: scan(keep, 0.0, None, 3, unroll="all"),
    "an error of the step's own": lambda scan: scan(lambda c, x: 1 / 0, 0.0, None, 3),
    "a branch on a value": lambda scan: scan(lambda c, x: (c if c > 0 else -c, x), 0.0, None, 3),
    "too few arguments": lambda scan: scan(lambda c: (c, None), 0.0, None, 3),
    "ranks promoted": lambda scan: scan(
        lambda c, x: (c + jnp.ones(3), x), jnp.ones((2, 3)), None, 3
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("adjoint", [Revolve(2), Periodic(2)], ids=["Revolve", "Periodic"])
def test_mistakes_raise_what_lax_scan_raises(mistake, adjoint):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        MISTAKES[mistake](lax.scan)
    with pytest.raises(type(theirs.value)) as swapped:
        MISTAKES[mistake](functools.partial(diffsim.scan, adjoint=adjoint))
    assert str(swapped.value) == str(theirs.value)
