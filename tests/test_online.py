"""``diffsim.while_loop``: the gradient of a loop whose number of steps shows only at run time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffsim import Online, while_loop
from diffsim.adjoint.online import Stopped
from diffsim.adjoint.schedule.online import binomials, empty, given_up, keep, next_row

WEIGHT = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)))
ADJOINTS = [Online(1, 1), Online(2, 3), Online(3, 1), Online(4, 2), Online(50)]


def system(weight, state, steps, adjoint=None):
    """Chaotic enough that a wrong state is seen; a branch and an integer ride along."""

    def body(carry):
        u, n = carry
        u = lax.cond(n % 3 == 0, lambda u: 2 * u, jnp.sin, u)
        return jnp.tanh(weight @ u), n + 1

    if adjoint is None:
        return lax.scan(lambda c, _: (body(c), None), (state, 0), None, steps)[0][0]
    carry = while_loop(lambda c: c[1] < steps, body, (state, 0), max_steps=10**6, adjoint=adjoint)
    return carry[0]


def loss(*args):
    return jnp.sum(jnp.cos(system(*args)))


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_gradients_are_those_of_a_scan_of_the_same_length(adjoint):
    """One compiled program for all lengths, 0 and those that fill no block included; round-off."""
    gradient = jax.jit(jax.grad(lambda w, u, n: loss(w, u, n, adjoint), argnums=(0, 1)))
    state = jnp.ones(3)
    for steps in (0, 1, 2, 3, 7, 8, 9, 31, 64):
        ours = gradient(WEIGHT, state, steps)
        theirs = jax.grad(loss, argnums=(0, 1))(WEIGHT, state, steps)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_every_derivative_mode():
    """Forward mode, forward over reverse, and a batch whose members stop at different steps."""
    state, adjoint = jnp.ones(3), Online(3, 2)

    def ours(w):
        return loss(w, state, 30, adjoint)

    def theirs(w):
        return loss(w, state, 30)

    for mode in (
        lambda f: jax.jvp(f, (WEIGHT,), (WEIGHT.T,)),
        lambda f: jax.jvp(jax.grad(f), (WEIGHT,), (WEIGHT.T,)),
        lambda f: jax.grad(lambda w: jax.jvp(f, (w,), (WEIGHT.T,))[1])(WEIGHT),
    ):
        both = jax.jit(lambda mode=mode: (mode(ours), mode(theirs)))()
        for a, b in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    states, steps = jnp.stack([state, 2 * state, -state]), np.array([3, 17, 8])
    each = jax.vmap(lambda u, n: jax.grad(loss, argnums=1)(WEIGHT, u, n, adjoint))
    batch = jax.jit(each)(states, steps)
    for a, u, n in zip(batch, states, steps, strict=True):
        b = jax.grad(loss, argnums=1)(WEIGHT, u, int(n))
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def planned(steps, slots, block):
    """Step evaluations that the integer rule plans; a block's last state needs no evaluation."""
    blocks = -(-steps // block)
    table = binomials(10**6 // block, slots)
    kept = empty(slots)
    for index in range(blocks - 1):
        kept = keep(kept, index, given_up(kept, index, table))
    total = steps + (steps - (blocks - 1) * block) - 1
    end, starts = blocks - 1, list(kept.blocks[: kept.count])
    while end:
        row = next_row(starts[-1], len(starts) - 1, end, slots, table)
        total += block * (row.advance + row.fill) + (block - 1) * row.reverse
        if not row.reverse:
            starts.append(row.start + row.advance)
            continue
        end = row.start + row.advance
        if not row.advance:
            starts.pop()
    return total


@pytest.mark.parametrize(
    ("steps", "slots", "block"), [(1, 1, 1), (9, 2, 1), (40, 3, 1), (64, 4, 2), (61, 3, 4)]
)
def test_steps_evaluated_are_those_of_the_online_rule(steps, slots, block):
    """A counter on the host: what the integers say, and one for each step that is transposed."""
    calls = []

    def body(carry):
        jax.debug.callback(lambda _: calls.append(1), carry)
        u, n = carry
        return jnp.sin(u), n + 1

    def last(u):
        adjoint = Online(slots, block)
        return while_loop(lambda c: c[1] < steps, body, (u, 0), max_steps=10**6, adjoint=adjoint)[0]

    jax.grad(last)(0.3)
    jax.effects_barrier()
    assert len(calls) == planned(steps, slots, block) + steps


def test_the_bound_on_the_steps_costs_no_memory():
    """The same temporaries for 10³ and 10⁹ steps at most, to the table of binomials (8 KB)."""

    def temporary(max_steps):
        def last(u):
            return jnp.sum(
                while_loop(
                    lambda u: jnp.sum(u) > 1,
                    lambda u: 0.9 * jnp.sin(u),
                    u,
                    max_steps=max_steps,
                    adjoint=Online(6, 4),
                )
            )

        compiled = jax.jit(jax.grad(last)).lower(jnp.ones((50, 50))).compile()
        assert not re.findall(r"\[6,50,50\]\S* copy\(", compiled.as_text())
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(10**3), temporary(10**9)
    assert abs(many - few) < 8192
    assert few < (6 + 2 * 4 + 6) * 50 * 50 * 8


def test_an_adaptive_integrator():
    """Bogacki–Shampine steps of exponential decay, as large as the error allows: the derivative of
    the result by the rate is ``-t u`` to the tolerance (1e-8 a step, some 200 steps: 1e-5)."""

    def solve(rate):
        def f(u):
            return -rate * u

        def body(carry):
            t, u, h = carry
            h = jnp.minimum(h, 1.0 - t)
            k1 = f(u)
            k2 = f(u + h / 2 * k1)
            k3 = f(u + 3 * h / 4 * k2)
            new = u + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
            k4 = f(new)
            error = jnp.abs(h * (-5 / 72 * k1 + k2 / 12 + k3 / 9 - k4 / 8)) / 1e-8
            good = error <= 1
            factor = jnp.clip(0.9 * jnp.maximum(error, 1e-6) ** (-1 / 3), 0.3, 3.0)
            return jnp.where(good, t + h, t), jnp.where(good, new, u), h * factor

        init = jnp.array(0.0), jnp.array(1.0), jnp.array(1e-3)
        adjoint = Online(5, 4)
        return while_loop(lambda c: c[0] < 1.0, body, init, max_steps=10_000, adjoint=adjoint)[1]

    value, slope = jax.jit(jax.value_and_grad(solve))(2.0)
    np.testing.assert_allclose(value, np.exp(-2), rtol=1e-6)
    np.testing.assert_allclose(slope, -np.exp(-2), rtol=1e-5)


def test_a_loop_that_is_cut_off_says_so():
    with pytest.warns(Stopped, match=r"stopped after max_steps=5"):
        while_loop(lambda n: n < 9, lambda n: n + 1, 0, max_steps=5, adjoint=Online(2))
        jax.effects_barrier()


def test_mistakes():
    def run(body=lambda u: u, **how):
        how = {"max_steps": 5, "adjoint": Online(2), **how}
        return while_loop(lambda u: u < 1, body, 0.0, **how)

    with pytest.raises(ValueError, match="max_steps=0: give a positive number"):
        run(max_steps=0)
    with pytest.raises(TypeError, match=r"cannot run a while_loop: give Online"):
        run(adjoint="online")
    with pytest.raises(TypeError, match="pytree structure"):
        run(body=lambda u: (u, u))
