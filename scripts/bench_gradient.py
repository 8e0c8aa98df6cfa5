"""What a gradient costs: seconds, bytes and compilation, by strategy and by number of steps.

``python scripts/bench_gradient.py`` prints the tables of BENCHMARKS.md. Each program is compiled
once and run five times, the programs in turn; the minimum counts. Memory is what XLA plans for
temporaries, which is where states are kept.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, least, machine

from diffsim import Grid, Periodic, Revolve, StoreAll, simulate
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams


def shot(shape, steps, receivers=100):
    """One shot over a random medium: a loss of the speed for each strategy, and the speed."""
    layer = Absorbing(width=20, speed=4000.0, frequency=8.0)
    grid = Grid(shape=shape, spacing=(25.0, 25.0))
    solver = Wave(grid=grid, dt=2e-3, order=8, boundary=((Free(), layer), (layer, layer)))
    speed = 3000 + 500 * np.random.default_rng(0).random(shape)
    across = 25.0 * (shape[1] - 1)
    sources = np.array([[50.0, across / 2]])
    places = np.stack([np.full(receivers, 25.0), np.linspace(0.1, 0.9, receivers) * across], 1)
    a = (np.pi * 8 * (np.arange(steps) * solver.dt - 0.2)) ** 2
    wavelet = ((1 - 2 * a) * np.exp(-a))[:, None]
    arrays = speed, sources, places, wavelet
    speed, sources, places, wavelet = (jnp.asarray(array, "float32") for array in arrays)

    def loss(speed, adjoint):
        params = WaveParams(speed, sources)
        _, data = simulate(
            solver, params, solver.sampler(places),
            steps=steps, forcing=WaveForcing(wavelet), adjoint=adjoint,
        )  # fmt: skip
        return jnp.sum(data**2)

    return loss, speed


def strategies(shape, steps):
    """Table: one gradient by each strategy."""
    loss, speed = shot(shape, steps)
    adjoints = [StoreAll(), Periodic(round(steps**0.5)), Revolve(48), Revolve(24), Revolve(12)]
    programs, compile_s = zip(
        compiled(lambda v: loss(v, StoreAll()), speed),
        *(compiled(jax.value_and_grad(lambda v, a=a: loss(v, a)), speed) for a in adjoints),
        strict=True,
    )
    seconds = least([functools.partial(program, speed) for program in programs])
    rate = np.prod(shape) * steps / seconds[0] / 1e6
    print(f"\n{shape[0]} × {shape[1]} nodes and layers, {steps} steps, order 8, float32; "
          f"forward run {seconds[0]:.2f} s, {rate:.0f} Mpt/s\n")  # fmt: skip
    print("| strategy | gradient/forward | s | temporaries, MB | evaluations/step | compile, s |")
    print("|---|---|---|---|---|---|")
    rows = zip(adjoints, programs[1:], seconds[1:], compile_s[1:], strict=True)
    for adjoint, program, second, compiling in rows:
        adjoint = adjoint.suited(walks=True)
        cells = [f"`{adjoint!r}`", f"{second / seconds[0]:.2f}", f"{second:.2f}"]
        cells += [f"{program.memory_analysis().temp_size_in_bytes / 1e6:.0f}"]
        cells += [f"{adjoint.evaluations(steps) / steps:.2f}", f"{compiling:.1f}"]
        print("|", " | ".join(cells), "|")


def compile_time():
    """Table: compiling a wave gradient through Revolve, by number of steps."""
    print("\n| steps | compile, s |\n|---|---|")
    for steps in (100, 1000, 10_000, 100_000):
        loss, speed = shot((64, 64), steps, receivers=5)
        _, seconds = compiled(jax.grad(lambda v, loss=loss: loss(v, Revolve(24))), speed)
        print(f"| {steps} | {seconds:.1f} |")


if __name__ == "__main__":
    print(machine())
    strategies((187, 801), 1000)
    strategies((512, 512), 500)
    compile_time()
