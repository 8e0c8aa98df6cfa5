"""Where, when and how did the ground break? A seismic event, found from its noisy records.

L-BFGS-B recovers position, origin time and time function of an event in the Overthrust model, with
gradients through the wave solver; the speed is taken as known. Waveforms off by more than half a
period are drawn to a wrong cycle, so smoothed envelopes, which have none, are fitted first, for
position and origin time (Bozdağ, Trampert & Tromp 2011, Geophys. J. Int. 185); then waveforms, for
all unknowns. Takes about two minutes on two cores.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.optimize import minimize

from diffsim import Grid, Revolve, simulate
from diffsim.fields import Ricker
from diffsim.plot.style import STYLE
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

# Parameters: SI units, positions are (z, x)
options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
options.add_argument("--seed", type=int, default=0, help="of the noise")
options.add_argument("--start", type=float, nargs=2, default=(1600.0, 10300.0), help="z x (m)")
options.add_argument("--stride", type=int, default=1, help="of the nodes and steps that are used")
options.add_argument("--figure", type=Path, default=Path("runs/seismic_source_inversion.png"))
options = options.parse_args()
TRUTH, TRUE_TIME, FREQUENCY = np.array([2310.0, 9430.0]), 0.60, 6.0
START, START_TIME, START_FREQUENCY = np.array(options.start), 0.45, 4.0
NOISE = 0.1  # rms, relative to the data's
KNOTS = 0.025 * np.arange(-14, 15)  # s, from the origin time

# Model
archive = np.load(Path(__file__).resolve().parents[1] / "cases/data/overthrust_2d.npz")
speed = jnp.asarray(archive["vp_true"][:: options.stride, :: options.stride], float)
grid = Grid(speed.shape, (25.0 * options.stride,) * 2)
layer = Absorbing(width=20, speed=4000.0, frequency=FREQUENCY)
solver = Wave(grid, 2e-3 * options.stride, ((Free(), layer), (layer, layer)))
time = np.arange(round(3.0 / solver.dt)) * solver.dt
receivers = np.linspace((50.0, 250.0), (50.0, 19750.0), 40)


@jax.jit
def record(position, function):
    """Pressure ``[step, receiver]``."""
    params, forcing = WaveParams(speed, position[None]), WaveForcing(function[:, None])
    observe, adjoint = solver.sampler(receivers), Revolve(checkpoints=24)
    run = simulate(solver, params, observe, steps=len(time), forcing=forcing, adjoint=adjoint)
    return run[1]


# Data, with noise in the band of the signal: most of white noise would lie outside
def ricker(frequency, delay, amplitude=1.0):
    """Source time function ``[step]``."""
    return Ricker(frequency, delay, amplitude).make(solver, len(time))


def lowpass(data, corner):
    """Data ``[step, receiver]`` through a Gaussian filter."""
    gain = np.exp(-((np.fft.rfftfreq(len(data), solver.dt)[:, None] / corner) ** 2))
    return jnp.fft.irfft(gain * jnp.fft.rfft(data, axis=0), len(data), axis=0)


true_function = ricker(FREQUENCY, TRUE_TIME, 1.6e5) - ricker(FREQUENCY, TRUE_TIME + 0.12, 0.8e5)
clean = record(jnp.asarray(TRUTH), jnp.asarray(true_function))
noise = lowpass(np.random.default_rng(options.seed).normal(size=clean.shape), 2 * FREQUENCY)
observed = clean + NOISE * jnp.std(clean) / jnp.std(noise) * noise

# Misfit and gradient. Unknowns, of order one: shifts of the position and of the origin time, weights
# of cubic splines. To shift the splines undoes a shift of the origin time, so neither is determined
# alone: truth and estimate are compared by the centroid of the function's energy, in absolute time.
wavelength = float(speed[tuple((TRUTH / grid.spacing).astype(int))]) / FREQUENCY
first = np.concatenate([np.zeros(3), np.interp(KNOTS + 0.5, time, ricker(START_FREQUENCY, 0.5))])


def position(x):
    """Of the event, m."""
    return START + wavelength * x[:2]


def function(x):
    """Source time function ``[step]``, Pa."""
    knots = START_TIME + x[2] / FREQUENCY + KNOTS
    u = jnp.abs(time[:, None] - knots[None]) / (KNOTS[1] - KNOTS[0])
    return 1e5 * jnp.where(u < 1, 2 / 3 - u**2 + u**3 / 2, jnp.clip(2 - u, 0) ** 3 / 6) @ x[3:]


def envelope(data):
    """Smoothed and normalised, since the amplitude is not known yet."""
    smooth = jnp.sqrt(lowpass(data**2, 2.0) + 1e-3 * jnp.var(data))
    return smooth / jnp.linalg.norm(smooth)


def misfit(x, see):
    """Of what is seen of the data, relative to its energy."""
    target = see(observed)
    return jnp.sum((see(record(position(x), function(x))) - target) ** 2) / jnp.sum(target**2)


# Inversion
def descend(x, see, free):
    """The iterates and their misfits; only the first ``free`` unknowns move."""
    gradient = jax.jit(jax.value_and_grad(lambda y: misfit(jnp.concatenate([y, x[free:]]), see)))
    trail = [(x, float(misfit(x, see)))]
    minimize(
        lambda y: [np.asarray(value, float) for value in gradient(y)],
        x[:free],
        jac=True,
        method="L-BFGS-B",
        bounds=[*(np.array(grid.extent) - START[:, None]) / wavelength] + [(None, None)] * (free - 2),
        callback=lambda intermediate_result: trail.append(
            (np.r_[intermediate_result.x, x[free:]], intermediate_result.fun)
        ),
        options={"ftol": 1e-3, "maxcor": 20},
    )
    return trail


coarse = descend(first, envelope, free=3)
fine = descend(coarse[-1][0], jnp.positive, free=len(first))
last = fine[-1][0]


# Results
def summary(name, position, function, misfit):
    """A line of numbers that can be compared."""
    function = np.asarray(function)
    peak = np.argmax(np.abs(np.fft.rfft(function, 2**16))) / (2**16 * solver.dt)
    centroid = np.sum(time * function**2) / np.sum(function**2)
    alike = np.corrcoef(function, true_function)[0, 1]
    print(
        f"{name:9}{position[0]:9.1f}{position[1]:9.1f}{1e3 * centroid:10.1f}{peak:9.2f}"
        f"{alike:12.4f}{misfit:9.4f}"
    )


print(f"{'':12}z (m)    x (m) time (ms) peak (Hz) correlation  misfit")
summary("truth", TRUTH, true_function, float(jnp.sum((clean - observed) ** 2) / jnp.sum(observed**2)))
summary("start", START, function(first), float(misfit(first, jnp.positive)))
summary("estimate", position(last), function(last), fine[-1][1])
