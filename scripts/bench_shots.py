"""Gradients of several shots: one after the other, or as a batch.

``python scripts/bench_shots.py`` prints the table of BENCHMARKS.md: value and gradient by the speed
for eight shots, time a shot over that of one alone; in the last column the gradient is that of the
sum of a batch's misfits. Each program is compiled once and run five times, the programs in turn;
the minimum counts.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, least, machine

from diffsim import Grid, Reversible, Revolve, StoreAll, simulate
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

SPACING, DT, SPEED, FREQUENCY = 10.0, 1e-3, 2000.0, 15.0  # m, s, m/s, Hz
SHOTS, RECEIVERS = 8, 100


def shot(n, steps, adjoint):
    """A function of the speed and a source's position: half the squared data."""
    layer = Absorbing(width=20, speed=SPEED, frequency=FREQUENCY)
    grid = Grid(shape=(n, n), spacing=(SPACING, SPACING))
    solver = Wave(grid=grid, dt=DT, order=4, boundary=((Free(), layer), (layer, layer)))
    along = np.linspace(5, n - 6, RECEIVERS).round()
    places = np.stack([np.full(RECEIVERS, 3.0), along], -1) * SPACING
    sampler = solver.sampler(jnp.asarray(places, "float32"))
    a = (np.pi * FREQUENCY * (np.arange(steps) * DT - 0.07)) ** 2
    wavelet = WaveForcing(jnp.asarray(((1 - 2 * a) * np.exp(-a))[:, None], "float32"))

    def misfit(speed, source):
        how = {"steps": steps, "forcing": wavelet, "adjoint": adjoint}
        data = simulate(solver, WaveParams(speed, source[None]), sampler, **how)[1]
        return jnp.sum(data**2) / 2

    return misfit


def row(n, steps, adjoint):
    """Of the table."""
    speed = jnp.full((n, n), SPEED, "float32")
    across = SPACING * n * jnp.arange(1, SHOTS + 1) / (SHOTS + 1)
    sources = jnp.stack([jnp.full(SHOTS, 2 * SPACING), across], -1).astype("float32")
    gradient = jax.value_and_grad(shot(n, steps, adjoint))
    one = compiled(gradient, speed, sources[0])[0]
    in_turn = compiled(lambda v, s: jax.lax.map(partial(gradient, v), s), speed, sources)[0]
    batch = compiled(jax.vmap(gradient, (None, 0)), speed, sources)[0]
    each = jax.vmap(shot(n, steps, adjoint), (None, 0))
    total = compiled(jax.value_and_grad(lambda v, s: jnp.sum(each(v, s))), speed, sources)[0]
    calls = [
        lambda: one(speed, sources[0]),
        lambda: [one(speed, source) for source in sources],
        lambda: in_turn(speed, sources),
        lambda: batch(speed, sources),
        lambda: total(speed, sources),
    ]
    alone, *times = least(calls)
    cells = [f"{n}²", repr(adjoint), f"{alone:.3f}", *(f"{t / SHOTS / alone:.2f}" for t in times)]
    print("|", " | ".join(cells), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Gradients of several shots.")
    parser.add_argument("--small", action="store_true", help="a tiny grid, to try it")
    args = parser.parse_args()
    print(machine())
    print("\n| grid | adjoint | one shot, s | loop in Python | `lax.map` | `vmap` | of their sum |")
    print("|---|---|---|---|---|---|---|")
    for n, steps in [(48, 10)] if args.small else [(256, 400), (512, 400)]:
        for adjoint in Reversible(), Revolve(22), StoreAll():
            row(n, steps, adjoint)


if __name__ == "__main__":
    main()
