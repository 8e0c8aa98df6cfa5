"""Where, when and how did the ground break? A seismic event, found from its noisy records.

L-BFGS-B recovers position, origin time and time function of an event in the Overthrust model, with
gradients through the wave solver; the speed is taken as known. Waveforms off by more than half a
period are drawn to a wrong cycle, so smoothed envelopes, which have none, are fitted first, for
position and origin time (Bozdağ, Trampert & Tromp 2011, Geophys. J. Int. 185); then waveforms, for
all unknowns. Takes about a minute on two cores.
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
options = argparse.ArgumentParser(description="Locate a seismic event.")
options.add_argument("--seed", type=int, default=0, help="of the noise")
options.add_argument("--start", type=float, nargs=2, default=(1600.0, 10300.0), help="z x (m)")
options.add_argument("--stride", type=int, default=1, help="of the nodes and steps that are used")
options.add_argument("--figure", type=Path, default=Path("runs/seismic_source_inversion.png"))
options = options.parse_args()
TRUTH, TRUE_TIME, FREQUENCY = np.array([2310.0, 9430.0]), 0.60, 6.0
START, START_TIME, START_FREQUENCY = np.array(options.start), 0.45, 4.0
NOISE = 0.1  # rms, relative to the data's
KNOTS = 0.025 * np.arange(-14, 15)  # s, from the origin time
SMOOTHING = 2.0  # Hz, corner of the envelopes' low-pass

# Model
archive = np.load(Path(__file__).resolve().parents[1] / "cases/data/overthrust_2d.npz")
speed = jnp.asarray(archive["vp_true"][:: options.stride, :: options.stride], float)
grid = Grid(speed.shape, (25.0 * options.stride,) * 2)
layer = Absorbing(width=20, speed=4000.0, frequency=FREQUENCY)
solver = Wave(grid, 2e-3 * options.stride, ((Free(), layer), (layer, layer)))
steps = round(3.0 / solver.dt)
time = np.arange(steps) * solver.dt
receivers = np.linspace((50.0, 250.0), (50.0, 19750.0), 40)


@jax.jit
def record(position, function):
    """Pressure ``[step, receiver]``."""
    params, forcing = WaveParams(speed, position[None]), WaveForcing(function[:, None])
    observe, adjoint = solver.sampler(receivers), Revolve(checkpoints=24)
    run = simulate(solver, params, observe, steps=steps, forcing=forcing, adjoint=adjoint)
    return run[1]


# Data, with noise in the band of the signal: most of white noise would lie outside
def lowpass(data, corner):
    """Data ``[step, receiver]`` through a Gaussian filter."""
    gain = np.exp(-((np.fft.rfftfreq(steps, solver.dt)[:, None] / corner) ** 2))
    return jnp.fft.irfft(gain * jnp.fft.rfft(data, axis=0), steps, axis=0)


rupture = Ricker(FREQUENCY, TRUE_TIME, 1.6e5).make(solver, steps)  # Pa
arrest = Ricker(FREQUENCY, TRUE_TIME + 0.12, 0.8e5).make(solver, steps)
clean = record(jnp.asarray(TRUTH), jnp.asarray(rupture - arrest))
noise = lowpass(np.random.default_rng(options.seed).normal(size=clean.shape), 2 * FREQUENCY)
observed = clean + NOISE * jnp.std(clean) / jnp.std(noise) * noise

# Misfit and gradient. Unknowns, of order one: shifts of position and origin time, then weights of
# cubic splines. Shifting the splines undoes shifting the origin time, so neither is determined
# alone: truth and estimate are compared by the centroid of the function's energy, in absolute time.
wavelength = float(speed[tuple((TRUTH / grid.spacing).astype(int))]) / FREQUENCY
a = (np.pi * START_FREQUENCY * KNOTS) ** 2
first = np.concatenate([np.zeros(3), (1 - 2 * a) * np.exp(-a)])


def position(x):
    """Of the event, m."""
    return START + wavelength * x[:2]


def function(x):
    """Source time function ``[step]``, Pa."""
    knots = START_TIME + x[2] / FREQUENCY + KNOTS
    u = jnp.abs(time[:, None] - knots[None]) / (KNOTS[1] - KNOTS[0])
    return 1e5 * jnp.where(u < 1, 2 / 3 - u**2 + u**3 / 2, jnp.clip(2 - u, 0) ** 3 / 6) @ x[3:]


def predict(x):
    """Pressure ``[step, receiver]``."""
    return record(position(x), function(x))


def envelopes(data):
    """Smooth amplitudes, normalised since the event's strength is not known yet."""
    smooth = jnp.sqrt(lowpass(data**2, SMOOTHING) + 1e-3 * jnp.var(data))
    return smooth / jnp.linalg.norm(smooth)


def waveforms(data):
    """All that there is."""
    return data


def misfit(data, see=waveforms):
    """Squared difference of what is seen of predicted and of observed data, relative."""
    return jnp.sum((see(data) - see(observed)) ** 2) / jnp.sum(see(observed) ** 2)


# Inversion
def descend(x, see, free):
    """The iterates and their misfits; only the first ``free`` unknowns move."""

    def whole(y):
        return jnp.concatenate([y, x[free:]])

    def keep(intermediate_result):
        y, value = whole(intermediate_result.x), float(intermediate_result.fun)
        trail.append((y, value))
        place = "z {:.1f} m, x {:.1f} m".format(*position(y))
        print(f"{see.__name__} {len(trail) - 1:3}: misfit {value:.4f} at {place}", flush=True)

    def evaluate(y):
        return [np.asarray(value, float) for value in gradient(y)]

    gradient = jax.jit(jax.value_and_grad(lambda y: misfit(predict(whole(y)), see)))
    trail = [(x, float(evaluate(x[:free])[0]))]
    bounds = [*(np.array(grid.extent) - START[:, None]) / wavelength] + [(None, None)] * (free - 2)
    how = {"method": "L-BFGS-B", "options": {"ftol": 1e-5, "maxcor": 20}, "callback": keep}
    minimize(evaluate, x[:free], jac=True, bounds=bounds, **how)
    return trail


coarse = descend(first, envelopes, free=3)
fine = descend(coarse[-1][0], waveforms, free=len(first))
last = fine[-1][0]

# Results
events = {"truth": (TRUTH, rupture - arrest, clean)}
for name, x in (("start", first), ("estimate", last)):
    events[name] = (position(x), np.asarray(function(x)), predict(x))
print("\n           z (m)    x (m)  time (ms)  peak (Hz)  correlation  misfit")
for name, (place, f, data) in events.items():
    centroid = 1e3 * np.sum(time * f**2) / np.sum(f**2)
    peak = np.argmax(np.abs(np.fft.rfft(f, 2**16))) / (2**16 * solver.dt)
    likeness = np.corrcoef(f, rupture - arrest)[0, 1]
    print(f"{name:8}{place[0]:8.1f}{place[1]:9.1f}{centroid:11.1f}{peak:11.2f}", end="")
    print(f"{likeness:13.4f}{misfit(data):8.4f}")

# Figure
with rc_context(STYLE):
    figure = Figure((10, 11), layout="constrained")
    panels = figure.subplot_mosaic("AA;BC;DD", height_ratios=[1.3, 0.9, 1.2])
    section, history, wavelet, records = (panels[name] for name in "ABCD")
    (top, bottom), (left, right) = 1e-3 * np.array(grid.extent)
    image = section.imshow(
        speed, "Greys_r", extent=(left, right, bottom, top), vmin=1500, vmax=6500
    )
    figure.colorbar(image, label="P-wave speed (m/s)")
    section.plot(*1e-3 * receivers.T[::-1], "kv", label="receivers")
    section.plot(*1e-3 * START[::-1], "o", color="tab:blue", markersize=10, label="start")
    section.plot(*1e-3 * TRUTH[::-1], "k*", markersize=22, markeredgecolor="white", label="truth")
    count = 0
    for trail, label, colour in ((coarse, "envelopes", "orange"), (fine, "waveforms", "red")):
        path, values = 1e-3 * np.array([position(x) for x, _ in trail]), [v for _, v in trail]
        section.plot(*path.T[::-1], ".-", color=colour, label=f"path, {label}")
        numbers = count + np.arange(len(trail))
        history.semilogy(numbers, values, ".-", color=colour, label=label)
        count = numbers[-1]
    history.axhline(float(misfit(clean)), color="grey", linestyle="--", label="noise")
    shown = slice(8, 33, 6)
    scale, offset = 1.4 / np.abs(observed).max(0), np.tile(receivers[:, 1] / 1e3, (steps, 1))
    for (name, (_, f, data)), colour in zip(events.items(), ("k", "tab:blue", "r"), strict=True):
        line = {"color": colour, "linewidth": 3 if name == "truth" else 1.2}
        wavelet.plot(time, 1e-3 * f, label=name, **line)
        traces = offset + scale[None] * np.asarray(observed if name == "truth" else data)
        records.plot(time, traces[:, shown], **line)
    section.set(xlabel="x (km)", ylabel="depth (km)", xlim=(4.8, 15), ylim=(bottom, -0.15))
    history.set(xlabel="iteration", ylabel="relative misfit")
    wavelet.set(xlabel="time (s)", ylabel="source time function (kPa)", xlim=(0, 1.2))
    records.set(xlabel="time (s)", ylabel="receiver x (km)", xlim=(0, time[-1]))
    records.set_title("pressure, scaled to the observed peaks; black: observed")
    section.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, columnspacing=1.2)
    for axes in (history, wavelet):
        axes.legend(loc="upper right")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure)

# Check
if (error := float(np.linalg.norm(position(last) - TRUTH))) > wavelength / 4:
    raise SystemExit(f"{error:.0f} m off, more than a quarter of the wavelength {wavelength:.0f} m")
