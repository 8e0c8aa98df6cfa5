"""Sines between walls, or around a periodic axis, are modes of the discrete equations too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import wave

from solvers import stencil
from solvers.wave import Free, Periodic, Rigid, WaveParams

SPEED, SPACING = 1500.0, 10.0  # m/s, m


def eigenvalue(order, waves, staggered=False):
    """``-h² ∂²`` of sines that advance by ``waves`` (rad) from node to node of each axis."""
    total = 0.0
    for kh in waves:
        if staggered:
            weights = enumerate(stencil.FIRST_DIFFERENCE[order])
            total += sum(2 * w * np.sin((j + 0.5) * kh) for j, w in weights) ** 2
        else:
            first, *others = stencil.SECOND_DIFFERENCE[order]
            total -= first + 2 * sum(w * np.cos((j + 1) * kh) for j, w in enumerate(others))
    return total


def after(solver, params, steps, state=None):
    """The pressure on the grid after some steps."""
    coefficients = solver.coefficients(params)
    state = solver.init(params) if state is None else state
    state = jax.lax.fori_loop(0, steps, lambda _, s: solver.step(coefficients, s, None), state)
    halo = solver.order // 2
    return np.asarray(state.pressure)[(slice(halo, -halo),) * solver.grid.ndim]


def product(factors):
    return np.asarray(np.prod(np.meshgrid(*factors, indexing="ij"), axis=0))


@pytest.mark.parametrize("density", [None, 1200.0])
@pytest.mark.parametrize(
    ("shape", "order", "face"),
    [
        ((18,), 2, Free()), ((18,), 4, Rigid()), ((18,), 6, Free()), ((18,), 8, Rigid()),
        ((14, 17), 8, Free()), ((14, 17), 8, Rigid()), ((9, 12, 10), 4, Rigid()),
    ],
)  # fmt: skip
def test_frequency_is_the_discrete_one(shape, order, face, density):
    """``sin²(ω dt / 2) = (c dt)² λ / 4`` exactly, in one to three dimensions, at rest at first.

    After 1000 steps the phase ω t is 150 to 700 rad: a frequency off by 1e-12 shows as 1e-10 or
    more. Round-off of 1e-16 in each step grows to 1e-11 at most. Where a density is given, it is
    the staggered differences whose mode this is.
    """
    solver = wave(shape, SPACING, 1.9e-3, faces=face, order=order, radius=2)
    modes = np.arange(3, 3 + len(shape))
    waves = [np.pi * m / (n - 1) for m, n in zip(modes, shape, strict=True)]  # k h of each axis
    wall = np.sin if isinstance(face, Free) else np.cos
    mode = product([wall(kh * np.arange(n)) for kh, n in zip(waves, shape, strict=True)])
    size = eigenvalue(order, waves, staggered=density is not None)
    phase = 2 * np.arcsin(SPEED * solver.dt / SPACING * size**0.5 / 2)  # ω dt
    density = None if density is None else jnp.full(shape, density)
    params = WaveParams(jnp.full(shape, SPEED), None, density, jnp.asarray(mode))
    assert after(solver, params, 1000) == pytest.approx(mode * np.cos(1000 * phase), abs=1e-10)


@pytest.mark.parametrize(("order", "density"), [(2, None), (8, None), (8, 1200.0)])
def test_wave_around_a_periodic_box_comes_back(order, density):
    """Oblique, a third of a turn along one axis and a quarter along the other each 12 nodes.

    dt is such that a period is 40 steps: after 25 periods the field is what it was, to round-off.
    """
    shape, period = (12, 16), 40
    waves = 2 * np.pi * np.array([2, 3]) / shape
    size = eigenvalue(order, waves, staggered=density is not None)
    turn = 2 * np.pi / period
    dt = 2 * np.sin(turn / 2) * SPACING / (SPEED * size**0.5)
    solver = wave(shape, SPACING, dt, faces=Periodic(), order=order, radius=2)
    phase = waves[0] * np.arange(12)[:, None] + waves[1] * np.arange(16)
    density = None if density is None else jnp.full(shape, density)
    params = WaveParams(jnp.full(shape, SPEED), None, density)
    now, before = (np.pad(np.cos(phase + t), order // 2, mode="wrap") for t in (0, turn))
    state = solver.init(params)._replace(pressure=jnp.asarray(now), previous=jnp.asarray(before))
    seen = after(solver, params, 25 * period, state)
    assert seen == pytest.approx(np.cos(phase), abs=1e-10)
    quarter = after(solver, params, period // 4, state)
    assert quarter == pytest.approx(np.sin(phase), abs=1e-10), "it travels"
