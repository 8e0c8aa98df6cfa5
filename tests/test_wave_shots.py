"""Many shots at once, and the linearised wave equation (Born modelling)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, wave

from diffsim import Revolve, StoreAll, simulate
from solvers.wave import Absorbing, Free, WaveForcing, WaveParams

LAYER = Absorbing(width=4, speed=2000.0, frequency=20.0)
STEPS, SPEED = 60, jnp.asarray(2000 + 200 * np.random.default_rng(0).random((30,)))
LINE = wave((30,), 10.0, 2e-3, faces=((Free(), LAYER),), order=4)
SHOTS = jnp.array([[[33.0]], [[71.0]], [[120.0]], [[184.0]], [[213.0]]])  # shot, source, axis
WAVELETS = jnp.asarray(ricker(2e-3 * np.arange(STEPS), 20.0, 0.05)[:, None] * np.ones((5, 1, 1)))


def data(speed, source, wavelet, adjoint):
    observe = LINE.sampler(jnp.array([[15.0], [255.0]]))
    how = {"steps": STEPS, "forcing": WaveForcing(wavelet), "adjoint": adjoint}
    return simulate(LINE, WaveParams(speed, source), observe, **how)[1]


def shot(source, wavelet):
    """The misfit of one shot with silence, and its gradient by speed, source and wavelet."""

    def misfit(*args):
        return jnp.sum(data(*args, StoreAll()) ** 2)

    return jax.value_and_grad(misfit, argnums=(0, 1, 2))(SPEED, source, wavelet)


@functools.cache
def one_by_one():
    program = jax.jit(shot)
    shots = [program(*pair) for pair in zip(SHOTS, WAVELETS, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *shots)


@pytest.mark.parametrize("batch", [None, 2])
def test_shots_together_are_shots_one_by_one(batch):
    """By ``vmap``, or by ``lax.map`` two at a time and the fifth alone; each of 60 steps rounds."""
    if batch is None:
        together = jax.jit(jax.vmap(shot))(SHOTS, WAVELETS)
    else:
        mapped = lambda s, w: jax.lax.map(lambda pair: shot(*pair), (s, w), batch_size=batch)  # noqa: E731
        together = jax.jit(mapped)(SHOTS, WAVELETS)
    for own, alone in zip(*map(jax.tree.leaves, (together, one_by_one())), strict=True):
        np.testing.assert_allclose(own, alone, rtol=0, atol=1e-12 * np.abs(alone).max())


@pytest.mark.parametrize("adjoint", [StoreAll(), Revolve(3)], ids=repr)
def test_born_data_are_the_limit_of_two_runs(adjoint):
    """Forward mode in the speed: linear to round-off, and what differences tend to (ε²: 1e-6)."""
    random = np.random.default_rng(1)
    a, b = (jnp.asarray(20 * random.standard_normal(SPEED.shape)) for _ in range(2))

    @jax.jit
    def run(speed):
        return data(speed, SHOTS[1], WAVELETS[1], adjoint)

    @jax.jit
    def born(change):
        return jax.jvp(run, (SPEED,), (change,))[1]

    scattered = np.asarray(born(a))
    size = np.abs(scattered).max()
    assert size > 0
    difference = (run(SPEED + 1e-3 * a) - run(SPEED - 1e-3 * a)) / 2e-3
    np.testing.assert_allclose(scattered, difference, rtol=0, atol=1e-6 * size)
    combined = 2 * scattered - 3 * np.asarray(born(b))
    np.testing.assert_allclose(born(2 * a - 3 * b), combined, rtol=0, atol=1e-12 * size)
