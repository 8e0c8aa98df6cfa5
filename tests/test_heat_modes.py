"""Sines and cosines are modes of the discrete equations too: each step multiplies them exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heat_case import heat, inside, padded, run
from scipy.special import eval_legendre

from solvers.heat import RKL2, Dirichlet, Explicit, HeatParams, Neumann, Periodic, Theta

CAPACITY, CONDUCTIVITY, SPACING = 2.0, 3.0, 0.1
FACES = {
    "sine": ((Dirichlet(), Dirichlet()), lambda i, m, n: np.sin(np.pi * m * (i + 0.5) / n), 2),
    "cosine": ((Neumann(), Neumann()), lambda i, m, n: np.cos(np.pi * m * (i + 0.5) / n), 2),
    "wave": ((Periodic(), Periodic()), lambda i, m, n: np.cos(2 * np.pi * m * i / n + 0.3), 1),
}


def problem(shape, kinds, scheme, z):
    """Solver, mode and eigenvalue (1/m²), with the step for which ``z = κ dt λ``."""
    mode, eigenvalue = np.ones(shape), 0.0
    for axis, (n, kind) in enumerate(zip(shape, kinds, strict=True)):
        _, function, halves = FACES[kind]
        m = 2 + axis
        eigenvalue += (2 / SPACING * np.sin(np.pi * m / (halves * n))) ** 2
        mode = mode * function(np.arange(n), m, n).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
    dt = z / (CONDUCTIVITY / CAPACITY * eigenvalue)
    lengths = [n * SPACING for n in shape]
    solver = heat(shape, lengths, dt, scheme, tuple(FACES[kind][0] for kind in kinds))
    return solver, jnp.asarray(mode)


def rkl2(z, s):
    """The polynomial of the stages: ``1 - b + b P_s(1 - 4 z / (s² + s - 2))``."""
    b = (s * s + s - 2) / (2 * s * (s + 1))
    return 1 - b + b * eval_legendre(s, 1 - 4 * z / (s * s + s - 2))


@pytest.mark.parametrize(
    ("scheme", "z", "factor"),
    [
        (Explicit(), 0.3, lambda z: 1 - z),
        (RKL2(3), 0.1, lambda z: rkl2(z, 3)),
        (RKL2(9), 1.5, lambda z: rkl2(z, 9)),
        (Theta(1.0, tolerance=1e-15), 40.0, lambda z: 1 / (1 + z)),
        (Theta(0.5, tolerance=1e-15), 40.0, lambda z: (1 - z / 2) / (1 + z / 2)),
        (Theta(0.7, tolerance=1e-15), 0.9, lambda z: (1 - 0.3 * z) / (1 + 0.7 * z)),
    ],
    ids=lambda value: None if callable(value) else repr(value),
)
@pytest.mark.parametrize(
    ("shape", "kinds"),
    [((16,), ["sine"]), ((13, 12), ["cosine", "wave"]), ((12, 11, 14), ["wave", "sine", "cosine"])],
    ids=["1-D", "2-D", "3-D"],
)
def test_amplification_of_a_mode(shape, kinds, scheme, z, factor):
    """To 1e-13: round-off, and residuals of 2e-15 over the smallest eigenvalue, 1."""
    solver, mode = problem(shape, kinds, scheme, z)
    params = HeatParams(jnp.full(shape, CONDUCTIVITY), jnp.full(shape, CAPACITY), mode)
    assert run(solver, params, 1) == pytest.approx(np.asarray(factor(z) * mode), abs=1e-13)


@pytest.mark.parametrize(
    "theta", [0.7, *(pytest.param(theta, marks=pytest.mark.slow) for theta in (0.5, 1.0))]
)
def test_derivative_of_the_amplification_by_the_conductivity(theta):
    """``dA/dκ = -dt λ / (1 + θ z)²`` at every cell, forward and reverse; to 1e-12 of its size."""
    z = 2.5
    solver, mode = problem((13, 12), ["sine", "wave"], Theta(theta, tolerance=1e-15), z)

    def amplified(conductivity):
        params = HeatParams(conductivity, jnp.array(CAPACITY), mode)
        return run(solver, params, 1)

    exact = -z / CONDUCTIVITY / (1 + theta * z) ** 2
    k = jnp.array(CONDUCTIVITY)
    _, forward = jax.jit(lambda k: jax.jvp(amplified, (k,), (jnp.ones(()),)))(k)
    assert forward == pytest.approx(np.asarray(exact * mode), abs=1e-12)
    share = lambda k: jnp.vdot(mode, amplified(k)) / jnp.vdot(mode, mode)  # noqa: E731
    reverse = jax.jit(jax.grad(share))(k)
    assert reverse == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("scheme", "margin"), [(Explicit(), 1.001), (RKL2(5), 1.2)], ids=repr)
def test_the_stable_step_is_exact(scheme, margin):
    """With constant coefficients the shortest wave between cold or periodic faces changes its sign
    and nothing else in a step of forward Euler at the limit. RKL2 damps it there; that its
    polynomial leaves the unit disc comes 20 % later."""
    shape, kinds = (8, 10), ["sine", "wave"]
    solver, _ = problem(shape, kinds, scheme, 1.0)
    params = HeatParams(jnp.full(shape, CONDUCTIVITY), jnp.full(shape, CAPACITY), jnp.zeros(shape))
    sign = jnp.asarray((-1.0) ** np.add.outer(np.arange(8), np.arange(10)))
    limit = solver.stable_dt(params)
    eigenvalue = 8 * CONDUCTIVITY / CAPACITY / SPACING**2
    assert limit == pytest.approx(scheme.reach * 2 / eigenvalue, rel=1e-12)

    def growth(dt):
        timed = heat(shape, (0.8, 1.0), dt, scheme, solver.boundary)
        after = timed.step(timed.coefficients(params), padded(sign), None)
        return float(jnp.abs(inside(timed, after)).max())

    assert growth(0.999 * limit) <= 1
    assert growth(margin * limit) > 1
