"""A shot in a medium, and what it should look like: shared by the tests of the wave solver."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import hankel2

from diffsim.grid import Grid
from diffsim.simulate import simulate
from solvers.wave import Free, Wave, WaveForcing, WaveParams


def ricker(time, frequency, delay):
    """The second derivative of a Gaussian, its peak of 1 at ``delay`` (s)."""
    arg = (np.pi * frequency * (np.asarray(time) - delay)) ** 2
    return (1 - 2 * arg) * np.exp(-arg)


def wave(shape, spacing, dt, faces=Free(), origin=0.0, **fields):  # noqa: B008
    """A solver with cubic cells and, unless ``faces`` is a tuple, the same face everywhere."""
    ndim = len(shape)
    grid = Grid(shape=shape, spacing=(float(spacing),) * ndim, origin=(float(origin),) * ndim)
    boundary = faces if isinstance(faces, tuple) else ((faces, faces),) * ndim
    return Wave(grid=grid, dt=dt, boundary=boundary, **fields)


def shoot(solver, speed, sources, receivers, wavelets, along=None, **medium):
    """The data ``[step, receiver]`` of sources that fire together, wavelets ``[step, source]``."""
    speed = jnp.broadcast_to(jnp.asarray(speed, float), solver.grid.shape)
    wavelets = jnp.asarray(wavelets)
    observe = solver.sampler(jnp.asarray(receivers, float), along)

    @jax.jit
    def run(params, forcing):
        return simulate(solver, params, observe, steps=len(wavelets), forcing=forcing)[1]

    medium = {name: jnp.asarray(values, float) for name, values in medium.items()}
    params = WaveParams(speed, jnp.asarray(sources, float), **medium)
    return np.asarray(run(params, WaveForcing(wavelets)))


def green_2d(time, wavelet, speed, distance, padding=20):
    """The exact trace in the plane: ``-i/4 H0⁽²⁾(ω r / c)`` times the wavelet's spectrum.

    The wavelet is a function of time. It is sampled ``padding`` times as long as asked for, so that
    what the periodic transform folds back is the far, faint end of the two-dimensional tail.
    """
    dt = time[1] - time[0]
    count = padding * len(time)
    spectrum = np.fft.rfft(wavelet(dt * np.arange(count)))
    omega = 2 * np.pi * np.fft.rfftfreq(count, dt)
    spectrum[0] = 0
    spectrum[1:] *= -0.25j * hankel2(0, omega[1:] * distance / speed)
    return np.fft.irfft(spectrum, count)[: len(time)]
