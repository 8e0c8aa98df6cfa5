"""What absorbing layers and receivers add to a step of the wave, forth and back.

``python scripts/bench_step.py`` prints the table of BENCHMARKS.md: fields of as many nodes with and
without layers, then with more and more receivers: each anywhere between nodes, all in a line along
a row of nodes, each on a node. Each program is compiled once and run five times, the programs in
turn; the minimum counts. Back is what a gradient by ``Reversible()`` takes beyond a forward run.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, least, machine

from diffsim import Grid, Reversible, simulate
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

SPACING, DT, SPEED, FREQUENCY = 10.0, 1e-3, 2000.0, 15.0  # m, s, m/s, Hz
# nodes of the field, order, width of the layers, steps
FLAT = (552, 552), 8, 20, 400
WIDE = (1064, 1064), 8, 20, 100
DEEP = (148, 148, 148), 4, 10, 40


def placed(shape, receivers, where):
    """Of receivers, as fractional node numbers ``[receiver, axis]``."""
    nodes = np.random.default_rng(0).uniform(0.2, 0.8, (receivers, len(shape))) * np.array(shape)
    if where == "in a line":
        nodes[:, :-1] = np.array(shape[:-1]) // 4
        nodes[:, -1] = np.linspace(0.2, 0.8, receivers) * shape[-1]
    return np.round(nodes) if where == "on nodes" else nodes


def programs(shape, order, width, steps, receivers, where):
    """A forward run and a gradient by the speed, and what they take."""
    layer = Absorbing(width=width, speed=SPEED, frequency=FREQUENCY) if width else Free()
    shape = tuple(n - 2 * width for n in shape)
    grid = Grid(shape=shape, spacing=(SPACING,) * len(shape))
    solver = Wave(grid=grid, dt=DT, order=order, boundary=((layer, layer),) * len(shape))
    extent = SPACING * (np.array(shape) - 1)
    sampler = solver.sampler(jnp.asarray(placed(shape, receivers, where) * SPACING, "float32"))
    source = jnp.asarray(extent[None] / 2, "float32")
    a = (np.pi * FREQUENCY * (np.arange(steps) * DT - 0.05)) ** 2
    wavelet = WaveForcing(jnp.asarray(((1 - 2 * a) * np.exp(-a))[:, None], "float32"))
    speed = jnp.full(shape, SPEED, "float32")

    def loss(speed):
        params = WaveParams(speed, source)
        how = {"steps": steps, "forcing": wavelet, "adjoint": Reversible(drift=np.inf)}
        return jnp.sum(simulate(solver, params, sampler, **how)[1] ** 2)

    return [partial(compiled(f, speed)[0], speed) for f in (loss, jax.value_and_grad(loss))]


def rows(shape, order, width, steps):
    """Of the table."""
    many = [(width, 1000, where) for where in ("anywhere", "in a line", "on nodes")]
    kinds = (0, 1, "anywhere"), (width, 1, "anywhere"), (width, 100, "anywhere"), *many
    calls = [call for kind in kinds for call in programs(shape, order, kind[0], steps, *kind[1:])]
    forth, both = 1e6 / steps * least(calls).reshape(-1, 2).T
    back = both - forth
    for i, (w, n, where) in enumerate(kinds):
        words = f"{w} cells" if w else "none"
        cells = [" × ".join(map(str, shape)), f"{order}", words, f"{n} {where}", f"{forth[i]:.0f}"]
        cells += [f"{forth[i] / forth[0]:.2f}", f"{back[i]:.0f}", f"{back[i] / back[0]:.2f}"]
        print("|", " | ".join(cells), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description="A wave step with layers and receivers.")
    parser.add_argument("--small", action="store_true", help="a tiny grid, to try it")
    args = parser.parse_args()
    print(machine())
    print("\n| nodes | order | layers | receivers | forth, µs | over none | back, µs | over none |")
    print("|---|---|---|---|---|---|---|---|")
    for problem in [((48, 48), 4, 6, 10)] if args.small else [FLAT, WIDE, DEEP]:
        rows(*problem)


if __name__ == "__main__":
    main()
