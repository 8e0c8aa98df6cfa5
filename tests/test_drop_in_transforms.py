"""JAX's transformations, effects and modes of debugging go through a swapped scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback
from outcome import assert_same

import diffsim
from diffsim import Revolve

ours = functools.partial(diffsim.scan, adjoint=Revolve(2, 2))


def chain(scan, a, step=lambda c, a: jnp.sin(c * a)):
    """Nine steps that close over ``a``."""
    return scan(lambda c, x: (step(c, a) + 0.1 * x, c), a, jnp.arange(9.0))


def every_mode(f, a):
    """Derivatives of ``f`` of a scalar to the second order, by hand, in batches and under jit."""
    first = jax.vmap(jax.value_and_grad(f))(jnp.stack([a, 1.1 * a]))
    value, push = jax.linearize(f, a)
    linear = value, push(2.0), jax.linear_transpose(push, a)(2.0)
    return first, linear, jax.hessian(f)(a), jax.jvp(jax.jacfwd(f), (a,), (1.0,))


def nested(scan, a):
    def outer(c, x):
        inner = scan(lambda c, z: (jnp.sin(c * a) + z * x, c), c, jnp.linspace(0, 1, 6))
        return inner[0], inner[1].sum()

    return scan(outer, a, jnp.arange(4.0))[0]


def branches_and_loops(scan, a):
    def step(c, _):
        c = lax.cond(c > 1.0, lambda c: c * a / 2, lambda c: jnp.sin(c) + a, c)
        n = lax.while_loop(lambda n: n < 3 * c, lambda n: n + 1, 0)
        c = c + 0.1 * lax.fori_loop(0, 3, lambda _, v: v * a, c)
        return lax.switch(n % 3, [jnp.sin, jnp.cos, jnp.tanh], c), n

    return scan(step, a, None, 9)[0]


def own_tangent(scan, a):
    @jax.custom_jvp
    def odd(c, a):
        return jnp.sin(c * a)

    odd.defjvp(lambda p, t: (odd(*p), jnp.cos(p[0] * p[1]) * (p[1] * t[0] + p[0] * t[1])))
    return chain(scan, a, odd)[0]


def checkpointed(scan, a):
    inside = jax.checkpoint(lambda c, a: jnp.sin(c * a))
    return jax.checkpoint(lambda a: chain(scan, a, inside)[0])(a * a)


def inside_jit_and_named(scan, a):
    @jax.jit
    def inner(a):
        with jax.named_scope("loop"):
            weights = jax.vmap(lambda b: jnp.cos(a * b))(jnp.arange(3.0))
            carry, ys = scan(lambda c, x: (jnp.tanh(weights @ c) * c, c @ x), weights, jnp.eye(3))
            return jnp.sum(carry) + jnp.sum(ys)

    return inner(a) + inner(2 * a)


def batched_in_part(scan, a):
    """A leaf of the carry that does not vary over the batch must not come out batched."""

    def member(b):
        step = lambda c, x: ((jnp.sin(c[0] * a), c[1] * b), (c[0], x))  # noqa: E731
        return scan(step, (1.0, a), jnp.arange(9.0))

    axes = ((None, 0), (None, None))
    (u, v), (us, _) = jax.jit(jax.vmap(member, out_axes=axes))(jnp.array([0.5, 1.0, 1.1]))
    return u + jnp.sum(v) + jnp.sum(us)


def collective(scan, a):
    """Sums over a named axis of vmap inside the step."""

    def member(b):
        step = lambda c, _: (jnp.sin(c * a) + lax.psum(c * b, "i") / 9, lax.axis_index("i") * c)  # noqa: E731
        return scan(step, b, None, 9)

    carry, ys = jax.vmap(member, axis_name="i")(jnp.array([0.5, 1.0, 1.1]))
    return jnp.sum(carry) + jnp.sum(ys)


def only_the_inputs(scan, a):
    return scan(lambda c, x: (0.9 * c + jnp.sin(x), c * x), 1.0, a * jnp.arange(9.0))[1].sum()


PROGRAMS = [
    nested,
    branches_and_loops,
    own_tangent,
    checkpointed,
    inside_jit_and_named,
    batched_in_part,
    collective,
    only_the_inputs,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_every_derivative_mode_of(program):
    """1e-12: second derivatives add up products in another order."""

    def modes(scan):
        f = functools.partial(program, scan)
        return jax.jit(functools.partial(every_mode, f))(jnp.float64(0.7))

    assert_same(modes(ours), modes(lax.scan), rtol=1e-12)


def test_a_batch_of_gradients_inside_a_named_axis():
    """``vmap(grad)`` with a sum over the batch inside the step, which couples its members."""

    def outcome(scan):
        def f(a):
            return scan(lambda c, _: (jnp.sin(c * a) + lax.psum(c, "i") / 9, None), a, None, 9)[0]

        return jax.vmap(jax.grad(f), axis_name="i")(jnp.array([0.5, 1.0, 1.1]))

    assert_same(outcome(ours), outcome(lax.scan))


def test_an_own_transpose_is_used_and_its_forward_mode_refused_as_by_lax_scan():
    @jax.custom_vjp
    def odd(c, a):
        return c * a

    odd.defvjp(lambda c, a: (c * a, (c, a)), lambda r, bar: (3 * bar * r[1], bar * r[0]))

    def f(scan, a):
        return chain(scan, a, odd)[0]

    both = [
        jax.vmap(jax.value_and_grad(functools.partial(f, s)))(jnp.ones(2)) for s in (ours, lax.scan)
    ]
    assert_same(*both)
    for scan in (ours, lax.scan):
        with pytest.raises(TypeError, match="forward-mode autodiff"):
            jax.jvp(functools.partial(f, scan), (0.7,), (1.0,))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("call", ["debug", "io"])
def test_effects_happen_once_a_step_in_order(call, ordered):
    """Undifferentiated, alone and under jit: what lax.scan logs."""

    def outcome(scan):
        seen = []

        def note(value):
            seen.append(float(value))

        def step(c, a):
            if call == "debug":
                jax.debug.callback(note, c, ordered=ordered)
            else:
                io_callback(note, None, c, ordered=ordered)
            return jnp.sin(c * a)

        last = chain(scan, 0.7, step), jax.jit(lambda a: chain(scan, a, step))(0.7)
        jax.effects_barrier()
        return last, np.array(seen if ordered else sorted(seen))

    assert_same(outcome(ours), outcome(lax.scan))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_step_that_prints_has_a_gradient(ordered, capfd):
    """It prints again each time that it is recomputed, which a gradient of lax.scan does not."""

    def step(c, a):
        jax.debug.print("at {c}", c=c, ordered=ordered)
        return jnp.sin(c * a)

    gradients = [
        jax.jit(jax.grad(lambda a, scan=scan: chain(scan, a, step)[0]))(0.7)
        for scan in (ours, lax.scan)
    ]
    jax.effects_barrier()
    assert_same(*gradients)
    assert capfd.readouterr().out.count("at ") > 2 * 9


def test_a_host_function_in_the_step():
    def outcome(scan):
        def step(c, a):
            shape = jax.ShapeDtypeStruct((), float)
            return jnp.sin(c * a) + jax.pure_callback(np.cos, shape, lax.stop_gradient(c))

        return jax.value_and_grad(lambda a: chain(scan, a, step)[0])(0.7)

    assert_same(outcome(ours), outcome(lax.scan))


@pytest.mark.parametrize("mode", [jax.debug_nans, jax.debug_infs, jax.enable_checks])
def test_modes_that_check_find_nothing_to_complain_about(mode):
    with mode(True):
        got = [jax.jit(jax.hessian(lambda a, s=s: nested(s, a)))(0.7) for s in (ours, lax.scan)]
    assert_same(*got, rtol=1e-12)


def test_a_nan_is_reported_where_lax_scan_reports_it():
    for scan in (ours, lax.scan):
        with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
            chain(scan, 0.7, lambda c, a: jnp.log(c - a))


def test_without_jit_a_step_sees_values():
    """``jax.disable_jit`` is for people who debug: Python branches, and prints of numbers."""

    def outcome(scan):
        with jax.disable_jit():
            f = lambda a: chain(scan, a, lambda c, a: c * a if c > 0.5 else c + a)[0]  # noqa: E731
            return jax.value_and_grad(f)(0.3)

    assert_same(outcome(ours), outcome(lax.scan))


def test_what_cannot_be_had_is_refused_in_a_sentence():
    with pytest.raises(
        NotImplementedError, match=r"reverse mode over reverse mode .* diffsim\.hvp"
    ):
        jax.grad(jax.grad(lambda a: chain(ours, a)[0]))(0.7)


def test_a_reference_made_outside_is_refused():
    if not hasattr(jax, "new_ref"):
        pytest.skip("this jax has no references")
    log = jax.new_ref(jnp.zeros(()))

    def step(c, x):
        log[...] = log[...] + c
        return c, x

    with pytest.raises(NotImplementedError, match=r"jax\.Ref made outside it"):
        ours(step, 1.0, None, 9)
