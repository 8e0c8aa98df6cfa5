"""Where, when and how did the ground break? A seismic event, found from its noisy records.

L-BFGS-B recovers position, time and time function of an event in a known speed. Waveforms half a
period off fit a wrong cycle, so envelopes come first (Bozdağ et al. 2011, Geophys. J. Int. 185)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

from diffsim import Grid, Sampled, simulate
from diffsim.fields import Ricker
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

# Parameters: SI units, positions are (z, x)
TRUTH, TRUE_TIME, FREQUENCY = np.array([2310.0, 9430.0]), 0.60, 6.0
START, START_TIME, START_FREQUENCY = np.array([1600.0, 10300.0]), 0.45, 4.0
KNOTS = 0.025 * np.arange(-14, 15)  # s, of the time function's splines, from the origin time

# Model
speed = np.load(Path(__file__).parents[1] / "cases/data/overthrust_2d.npz")["vp_true"]
grid, layer = Grid(speed.shape, (25.0, 25.0)), Absorbing(20, speed=4000.0, frequency=FREQUENCY)
solver = Wave(grid, dt=2e-3, boundary=((Free(), layer), (layer, layer)))
time = np.arange(1500) * solver.dt
receivers = np.linspace((50.0, 250.0), (50.0, 19750.0), 40)


@jax.jit
def record(position, function):
    params = WaveParams(jnp.asarray(speed, float), position[None])
    # the speed is known: where nobody asks for its image, one in all steps is as exact as any
    how = {"forcing": WaveForcing(function[:, None]), "adjoint": Sampled(every=len(time))}
    return simulate(solver, params, solver.sampler(receivers), steps=len(time), **how)[1]  # Pa


# Misfit: squared difference of what is seen of predicted and of observed data, relative
def misfit(data, see=jnp.asarray):
    return jnp.sum((see(data) - see(observed)) ** 2) / jnp.sum(see(observed) ** 2)


def envelopes(data):  # normalised, since the event's strength is not known yet
    smooth = jnp.sqrt(lowpass(data**2, 2.0) + 1e-3 * jnp.var(data))
    return smooth / jnp.linalg.norm(smooth)


def lowpass(data, corner):
    gain = np.exp(-((np.fft.rfftfreq(len(time), solver.dt)[:, None] / corner) ** 2))
    return jnp.fft.irfft(gain * jnp.fft.rfft(data, axis=0), len(time), axis=0)


# Data, with noise of a tenth of their rms in the band of the signal
rupture = Ricker(FREQUENCY, TRUE_TIME, 1.6e5).make(solver, len(time))  # Pa
true_function = rupture - Ricker(FREQUENCY, TRUE_TIME + 0.12, 0.8e5).make(solver, len(time))
clean = record(jnp.asarray(TRUTH), jnp.asarray(true_function))
noise = lowpass(np.random.default_rng(0).normal(size=clean.shape), 2 * FREQUENCY)
observed = clean + 0.1 * jnp.std(clean) / jnp.std(noise) * noise

# Unknowns, of order one: shifts of position and origin time, and weights of splines. A shift of all
# splines undoes one of the origin time: truth and estimate are compared by their energy's centroid.
wavelength = float(speed[tuple((TRUTH / 25).astype(int))]) / FREQUENCY
a = (np.pi * START_FREQUENCY * KNOTS) ** 2
first = np.concatenate([np.zeros(3), (1 - 2 * a) * np.exp(-a)])
inside = [*(np.array(grid.extent) - START[:, None]) / wavelength, *[(None, None)] * len(first[2:])]


def event(x):
    u = jnp.abs(time[:, None] - (START_TIME + x[2] / FREQUENCY + KNOTS)[None]) / np.ptp(KNOTS[:2])
    splines = jnp.where(u < 1, 2 / 3 - u**2 + u**3 / 2, jnp.clip(2 - u, 0) ** 3 / 6)
    return START + wavelength * x[:2], 1e5 * splines @ x[3:]  # m; Pa, [step]


# Inversion
def descend(x, free, *see):
    whole = lambda y: jnp.concatenate([y, x[free:]])  # the others stay
    gradient = jax.jit(jax.value_and_grad(lambda y: misfit(record(*event(whole(y))), *see)))

    def evaluate(y):
        value, slope = map(np.asarray, gradient(y))
        trail.append((float(value), *np.asarray(event(whole(y))[0])))
        print("{:3}: misfit {:.4f} at z {:.1f} m, x {:.1f} m".format(len(trail), *trail[-1]))
        return float(value), slope.astype(float)

    how = {"method": "L-BFGS-B", "options": {"ftol": 1e-5, "maxcor": 20}}
    return whole(minimize(evaluate, x[:free], jac=True, bounds=inside[:free], **how).x)


trail = []
last = descend(descend(first, 3, envelopes), len(first))

# Results
events = {"truth": (TRUTH, true_function), "start": event(first), "estimate": event(last)}
figure = Figure((11, 11), layout="constrained")
section, curve, wavelet, traces = figure.subplot_mosaic("AA;BC;DD").values()
for (name, (place, f)), style in zip(events.items(), ("k", "b", "r--"), strict=True):
    data = record(jnp.asarray(place), jnp.asarray(f))
    centroid, likeness = np.sum(time * f**2) / np.sum(f**2), np.corrcoef(f, true_function)[0, 1]
    print(f"{name:9}z, x = {place.round(1)} m, at {centroid:.4f} s, correlation {likeness:.4f}")
    wavelet.plot(time, 1e-3 * f, style, label=name)
    shown = np.asarray(observed if name == "truth" else data) / np.abs(observed).max(0)
    traces.plot(time, (1e-3 * receivers[:, 1] + 1.4 * shown)[:, 8:33:6], style)
values, *path = np.array(trail).T
image = section.imshow(speed.astype(float), "Greys_r", extent=(0, 20, 4.65, 0))
figure.colorbar(image, label="P-wave speed (m/s)")
section.plot(*1e-3 * receivers.T[::-1], "kv", label="receivers")
section.plot(1e-3 * path[1], 1e-3 * path[0], "r.-", label="path of the estimate")
section.plot(*1e-3 * TRUTH[::-1], "g*", markersize=14, label="true position")
section.set(xlabel="x (km)", ylabel="depth (km)", xlim=(4.8, 15), ylim=(4.65, -0.1))
curve.semilogy(values, "r.-")
curve.set(xlabel="evaluation: envelopes, then waveforms", ylabel="relative misfit")
wavelet.set(xlabel="time (s)", ylabel="source time function (kPa)", xlim=(0, 1.2))
traces.set(xlabel="time (s)", ylabel="receiver x (km)", title="pressure, scaled; black: observed")
figure.legend(loc="outside upper center", ncols=6)
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/seismic_source_inversion.png", dpi=150)

# Check
assert np.hypot(*(np.array(path)[:, -1] - TRUTH)) < wavelength / 4, "over a quarter wavelength off"
