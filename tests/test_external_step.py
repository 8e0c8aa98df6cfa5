"""A step outside JAX is a step like any other."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import diags_array, eye_array
from scipy.sparse.linalg import splu

from diffsim import Periodic, Revolve, StoreAll, external_step, scan

STRATEGIES = [StoreAll(), Revolve(3), Periodic(4)]
each_strategy = pytest.mark.parametrize("adjoint", STRATEGIES, ids=repr)
N, STEPS = 12, 30


class String(NamedTuple):
    now: np.ndarray
    past: np.ndarray
    step: np.ndarray  # rides along


def second_difference(u):
    padded = np.pad(u, [(0, 0)] * (u.ndim - 1) + [(1, 1)])
    return padded[..., 2:] - 2 * u + padded[..., :-2]


def leapfrog(courant, u):
    new = 2 * u.now - u.past + courant**2 * second_difference(u.now)
    return String(new, u.now, u.step + 1)


def leapfrog_vjp(args, bar):
    courant, u = args
    now = 2 * bar.now + second_difference(courant**2 * bar.now) + bar.past
    slope = 2 * courant * second_difference(u.now) * bar.now
    return slope, String(now, -bar.now, None)


def leapfrog_jvp(args, dots):
    (courant, u), (courant_dot, dot) = args, dots
    new = 2 * dot.now - dot.past + courant**2 * second_difference(dot.now)
    return String(new + 2 * courant * courant_dot * second_difference(u.now), dot.now, None)


def leapfrog_in_jax(courant, u):
    padded = jnp.pad(u.now, 1)
    bend = padded[2:] - 2 * u.now + padded[:-2]
    return String(2 * u.now - u.past + courant**2 * bend, u.now, u.step + 1)


def example(dtype=float):
    random = np.random.default_rng(3)
    courant = random.uniform(0.4, 0.6, N).astype(dtype)
    u = random.standard_normal((2, N)).astype(dtype)
    return courant, String(*u, np.array(0))


def registered(**changed):
    how = {"forward": leapfrog, "vjp": leapfrog_vjp, "jvp": leapfrog_jvp, "example": example()}
    return external_step(**{**how, **changed})


def misfit_of(step, adjoint):
    """Of a loop over the step: receivers, the last state and the integer all count."""

    def misfit(courant, u, push):
        def f(u, push):
            u = step(courant, u._replace(now=u.now + push))
            return u, (u.now[3] + u.step, u.step)

        u, (seen, count) = scan(f, u, push, adjoint=adjoint)
        return jnp.sum(jnp.sin(seen)) + jnp.sum(u.now * u.past) + jnp.sum(seen * count)

    return misfit


PUSH = jnp.sin(jnp.arange(STEPS * N)).reshape(STEPS, N) / 10


def gradient(step, adjoint, transform=jax.jit):
    courant, u = example()
    smooth = lambda c, now, push: misfit_of(step, adjoint)(c, u._replace(now=now), push)  # noqa: E731
    return transform(jax.grad(smooth, (0, 1, 2)))(courant, u.now, PUSH)


def assert_same(one, other, rtol):
    """Relative to each leaf's largest entry."""
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(np.asarray(b)).max())


@each_strategy
def test_gradient_is_that_of_the_step_in_jax(adjoint):
    """The same arithmetic in NumPy: only sums are ordered otherwise, 30 steps of round-off."""
    ours = gradient(registered(jvp=None), adjoint)
    assert_same(ours, gradient(leapfrog_in_jax, StoreAll()), 1e-12)


def test_gradient_outside_jit():
    """As above, with a jvp that reverse mode has no use for."""
    ours = gradient(registered(), Revolve(3), transform=lambda f: f)
    assert_same(ours, gradient(leapfrog_in_jax, StoreAll()), 1e-12)


@each_strategy
def test_forward_mode_is_that_of_the_step_in_jax(adjoint):
    """As above."""
    courant, u = example()
    dots = np.cos(np.arange(N))

    def slope(step, adjoint):
        f = lambda c: misfit_of(step, adjoint)(c, u, PUSH)  # noqa: E731
        return jax.jit(lambda c, d: jax.jvp(f, (c,), (d,)))(courant, dots)

    assert_same(slope(registered(), adjoint), slope(leapfrog_in_jax, StoreAll()), 1e-12)


@pytest.mark.parametrize("batched", [False, True])
def test_vmap_of_gradient(batched):
    """A batch of models, one shared initial state; the code sees members, or the whole batch."""
    shapes = []

    def forward(courant, u):
        shapes.append(courant.shape)
        return leapfrog(courant, u)

    courants = np.stack([example()[0] * f for f in (0.5, 0.8, 1.0)])

    def gradients(step, adjoint):
        f = jax.grad(lambda c: misfit_of(step, adjoint)(c, example()[1], PUSH))
        return jax.jit(jax.vmap(f))(courants)

    step = registered(forward=forward, batched=batched)
    shapes.clear()
    ours = gradients(step, Revolve(3))
    assert_same(ours, gradients(leapfrog_in_jax, StoreAll()), 1e-12)
    assert set(shapes) == {(3, N) if batched else (N,)}


def test_jacobians_of_both_modes_agree():
    """vmap of the transpose and vmap of the tangent: two ways to the same numbers."""
    step, (courant, u) = registered(), example()
    f = lambda c: step(c, u).now  # noqa: E731
    assert_same(jax.jacrev(f)(courant), jax.jacfwd(f)(courant), 1e-14)
    f = lambda now: step(courant, u._replace(now=now)).now  # noqa: E731
    assert_same(jax.jacrev(f)(u.now), jax.jacfwd(f)(u.now), 1e-14)


def test_reverse_evaluates_the_step_no_more_often_than_planned():
    """The primal in a step's transpose is dead code, in a callback too."""
    calls = []

    def forward(courant, u):
        calls.append(1)
        return leapfrog(courant, u)

    step = registered(forward=forward)
    for adjoint in (StoreAll(), Revolve(3, 2)):
        calls.clear()
        jax.block_until_ready(gradient(step, adjoint))
        assert len(calls) <= adjoint.evaluations(STEPS)


MATRIX = -diags_array([np.ones(N - 1), -2 * np.ones(N), np.ones(N - 1)], offsets=[-1, 0, 1])


def implicit(conductivity, u):
    """Implicit Euler: ``(I + diag(k) A) new = u``."""
    return _factored(conductivity).solve(u)


def implicit_vjp(args, bar):
    """The transposed solve; ``∂new/∂k`` is minus the solve of ``A new``."""
    conductivity, u = args
    factors = _factored(conductivity)
    adjoint = factors.solve(bar, trans="T")
    return -adjoint * (MATRIX @ factors.solve(u)), adjoint


def _factored(conductivity):
    return splu((eye_array(N) + diags_array(conductivity) @ MATRIX).tocsc())


def test_implicit_step_by_a_sparse_solver():
    """Condition number about 3, 30 solves: digits lost are few."""
    k, u = np.linspace(0.2, 0.8, N), np.sin(np.arange(N))
    dense = jnp.asarray(MATRIX.toarray())
    in_jax = lambda k, u: jnp.linalg.solve(jnp.eye(N) + k[:, None] * dense, u)  # noqa: E731
    foreign = external_step(implicit, implicit_vjp, example=(k, u))

    def gradient(step, adjoint):
        def misfit(k, u):
            u, seen = scan(lambda u, _: (step(k, u), u[2]), u, None, STEPS, adjoint=adjoint)
            return jnp.sum(u**2) + jnp.sum(seen**3)

        return jax.jit(jax.grad(misfit, (0, 1)))(k, u)

    assert_same(gradient(foreign, Revolve(3)), gradient(in_jax, StoreAll()), 1e-12)


def test_single_precision_and_scalars():
    """Registered and run in float32: agreement to a few of its 1e-7."""
    square = external_step(
        lambda x, a: a * x**2,
        lambda args, bar: (2 * args[1] * args[0] * bar, np.sum(args[0] ** 2 * bar)),
        example=(np.linspace(1, 2, 5, dtype="f"), np.float32(0.3)),
    )
    f = lambda x, a: jnp.sum(square(x, a) ** 2)  # noqa: E731
    x, a = np.linspace(-1, 2, 5, dtype="f"), np.float32(0.7)
    ours = jax.grad(f, (0, 1))(x, a)
    assert all(bar.dtype == np.float32 for bar in ours)
    assert_same(ours, (4 * a**2 * x**3, np.sum(2 * a * x**4)), 1e-6)


def test_complex_arrays():
    """JAX's transpose does not conjugate; ``|z|²`` takes complex arrays to real ones."""
    z, k = np.exp(1j * np.arange(4.0)), np.linspace(1, 2, 4)
    foreign = external_step(
        lambda z, k: (1j * k * z**2, np.abs(z) ** 2),
        lambda args, bars: (
            2j * args[1] * args[0] * bars[0] + 2 * args[0].conj() * bars[1],
            np.real(1j * args[0] ** 2 * bars[0]),
        ),
        example=(z, k),
    )

    def f(step):
        def misfit(z, k):
            turned, size = step(z, k)
            return jnp.sum(jnp.real(turned) ** 3) + jnp.sum(size * jnp.imag(turned))

        return jax.grad(misfit, (0, 1))(z, k)

    in_jax = lambda z, k: (1j * k * z**2, jnp.abs(z) ** 2)  # noqa: E731
    assert_same(f(foreign), f(in_jax), 1e-14)


def test_linear_in_its_tangents():
    """``∂⟨J v, w⟩/∂v = Jᵀ w``: the derivative is differentiated in what it is linear in."""
    step, (courant, u) = registered(), example()
    f = lambda c: step(c, u).now  # noqa: E731
    w = np.sin(np.arange(N))
    ours = jax.grad(lambda v: jnp.vdot(jax.jvp(f, (courant,), (v,))[1], w))(np.ones(N))
    assert_same(ours, jax.vjp(f, courant)[1](w)[0], 1e-15)


# --- what is refused


def change(scale_slope=1.0, scale_now=1.0):
    def vjp(args, bar):
        slope, u = leapfrog_vjp(args, bar)
        return scale_slope * slope, u._replace(now=scale_now * u.now)

    return vjp


@pytest.mark.parametrize("jvp", [None, leapfrog_jvp])
@pytest.mark.parametrize(
    ("vjp", "where"),
    [
        (change(scale_slope=-1), "args[0]"),
        (change(scale_slope=0), "args[0]"),
        (change(scale_now=1 + 1e-6), "args[1].now"),
        (change(scale_now=np.nan), "args[1].now"),
    ],
)
def test_wrong_vjp(vjp, where, jvp):
    with pytest.raises(ValueError, match=re.escape(f"{where}: vjp is not the transpose of diff")):
        registered(vjp=vjp, jvp=jvp)


def test_wrong_vjp_of_a_small_argument():
    """Beside one of 1e9 times its influence, and in single precision with a 1 % error."""
    for dtype, error in ((float, 1e-6), (np.float32, 1e-2)):
        example = np.full(3, 1e9, dtype), np.full(3, 1e-3, dtype)
        vjp = lambda args, bar, error=error: (bar, (1 + error) * bar)  # noqa: E731
        with pytest.raises(ValueError, match=re.escape("args[1]")):
            external_step(lambda x, y: x - 1e9 + y, vjp, example=example)


def test_wrong_jvp():
    jvp = lambda args, dots: leapfrog_jvp(args, (1.01 * dots[0], dots[1]))  # noqa: E731
    with pytest.raises(
        ValueError, match=r"args\[0\]: vjp is not the transpose of jvp: .* 1\.5e-08"
    ):
        registered(jvp=jvp)


def test_wrong_batches():
    """A sum over all members in the vjp: right alone, wrong together."""
    with pytest.raises(ValueError, match="vjp of a batch differs from that of member 0"):
        external_step(
            lambda x, a: a[..., None] * x,
            lambda args, bar: (args[1][..., None] * bar, np.sum(args[0] * bar) + 0 * args[1]),
            example=(np.ones(3), np.array(2.0)),
            batched=True,
        )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"vjp": lambda args, bar: bar.now}, "what vjp gave is a .*: give a .*String"),
        (
            {"vjp": lambda args, bar: (args[0][1:], bar)},
            r"what vjp gave\[0\] is float64\[11\]: give float64\[12\]",
        ),
        (
            {"jvp": lambda args, dots: dots[1]._replace(past=dots[1].past.astype("f"))},
            r"what jvp gave\.past is float32\[12\]: give float64\[12\]",
        ),
    ],
)
def test_wrong_results(changed, says):
    with pytest.raises(TypeError, match=says):
        registered(**changed)


def test_wrong_arguments():
    step, (courant, u) = registered(), example()
    with pytest.raises(
        TypeError, match=r"leapfrog: args\[0\] is float64\[11\]: give float64\[12\]"
    ):
        step(courant[1:], u)
    with pytest.raises(TypeError, match=r"args\[1\]\.step is float64\[\]: give int64\[\]"):
        step(courant, u._replace(step=1.0))
    with pytest.raises(TypeError, match="leapfrog: args is a"):
        step(courant)


def test_arguments_are_read_only():
    def forward(x):
        x *= 2
        return x

    with pytest.raises(ValueError, match="read-only"):
        external_step(forward, lambda args, bar: (2 * bar,), example=(np.ones(3),))


def test_errors_of_the_code_are_readable():
    """The last line says which function of which step failed, how and where."""

    def forward(depth):
        if depth[0] < 0:
            raise ArithmeticError("negative depth in cell 0")
        return depth**2

    step = external_step(forward, lambda args, bar: (2 * args[0] * bar,), example=(np.ones(3),))
    f = lambda depth: scan(lambda d, _: (step(d) - 1, None), depth, None, 9, adjoint=Revolve(2))[0]  # noqa: E731
    says = (
        r"forward of the external step forward failed: ArithmeticError: negative depth in cell 0 "
        r"\(.*test_external_step\.py:\d+\)"
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match=says):
        jax.block_until_ready(jax.jit(f)(np.zeros(3)))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_forward_mode_without_jvp(transform):
    step, (courant, u) = registered(jvp=None), example()
    f = lambda c: step(c, u).now  # noqa: E731
    with pytest.raises(NotImplementedError, match="needs a derivative that leapfrog has not"):
        transform(lambda c: jax.jvp(f, (c,), (c,)))(courant)
    with pytest.raises(NotImplementedError, match="needs a derivative that leapfrog has not"):
        transform(jax.jacfwd(f))(courant)


def test_second_derivatives():
    f = lambda c: misfit_of(registered(), Revolve(3))(c, example()[1], PUSH)  # noqa: E731
    with pytest.raises(NotImplementedError, match="leapfrog has no second derivative"):
        jax.jvp(jax.grad(f), (example()[0],), (np.ones(N),))


def test_arrays_of_many_megabytes_pass():
    """Callbacks on large arrays have locked up where they waited for JAX: 8 MB, 20 steps."""
    big = np.linspace(0, 1, 10**6)
    halve = external_step(lambda x: 0.5 * x, lambda _, bar: (0.5 * bar,), example=(big,))
    f = lambda x: jnp.sum(scan(lambda x, _: (halve(x), None), x, None, 20, adjoint=Revolve(2))[0])  # noqa: E731
    np.testing.assert_array_equal(jax.jit(jax.grad(f))(jnp.cos(big)), np.full(10**6, 0.5**20))
