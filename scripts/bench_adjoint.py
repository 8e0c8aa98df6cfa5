"""The engine against what JAX and its ecosystem offer, on the same steps and in one run.

``python scripts/bench_adjoint.py`` (needs the extra ``bench``) prints the tables of BENCHMARKS.md
and draws ``bench_adjoint.png``; ``--quick`` takes a small case only. Every program computes the
same loss and gradient: the squared data of a wave or shallow water run, by the speed or the bed.
It is compiled once and run five times, all in turn; the minimum counts. Memory is what XLA plans
for temporaries. Evaluations are calls of the step, counted on the host with a step of one number;
each transpose calls it once too.

Nested ``jax.checkpoint`` is the usual scan over checkpointed scans, at the split of least memory.
"""

import argparse
import functools
import json
import math
import time
from typing import Any, NamedTuple

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from timing import machine

import diffsim
from diffsim import Grid, Periodic, Reversible, Revolve, StoreAll
from diffsim.body import step_of
from solvers.shallow_water import ShallowWater, ShallowWaterParams, Wall
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

ROUNDS = 5
ROOM = 12e9  # bytes that a program may plan for


class Case(NamedTuple):
    """``loss(loop, variable)``: the run by any loop of ``lax.scan``'s signature."""

    title: str
    loss: Any
    variable: jax.Array
    cells: int
    steps: int
    reversible: bool


def wave(nodes, steps):
    """A shot over a random medium with a free surface and three absorbing layers."""
    layer = Absorbing(width=20, speed=3500.0, frequency=8.0)
    grid = Grid(shape=(nodes, nodes), spacing=(25.0, 25.0))
    solver = Wave(grid=grid, dt=2e-3, order=8, boundary=((Free(), layer), (layer, layer)))
    speed = 3000 + 500 * np.random.default_rng(0).random(grid.shape)
    across = 25.0 * (nodes - 1)
    a = (np.pi * 8 * (np.arange(steps) * solver.dt - 0.2)) ** 2
    places = np.stack([np.full(50, 25.0), np.linspace(0.1, 0.9, 50) * across], 1)
    arrays = speed, [[50.0, across / 2]], places, ((1 - 2 * a) * np.exp(-a))[:, None]
    speed, sources, places, wavelet = (jnp.asarray(v, "float32") for v in arrays)
    title = f"wave, {nodes}² nodes and layers, order 8, {steps} steps"

    def parts(speed):
        return WaveParams(speed, sources), solver.sampler(places)

    forcing = WaveForcing(wavelet)
    return Case(title, _loss(solver, parts, forcing, steps), speed, nodes**2, steps, True)


def flood(cells, steps):
    """A hump of water over a rough bed that is partly dry."""
    grid = Grid(shape=(cells, cells), spacing=(10.0, 10.0))
    solver = ShallowWater(grid=grid, dt=0.2, boundary=((Wall(), Wall()), (Wall(), Wall())))
    y, x = np.meshgrid(*[np.linspace(-1, 1, cells)] * 2, indexing="ij")
    bed = 6 * (x**2 + y**2) + 0.3 * np.sin(9 * x) * np.cos(7 * y) - 3
    stage = np.maximum(bed, 2 * np.exp(-8 * (x**2 + y**2)))
    bed, stage = jnp.asarray(bed, "float32"), jnp.asarray(stage, "float32")
    across = 10.0 * cells
    places = jnp.asarray([[0.4 * across, 0.5 * across], [0.5 * across, 0.6 * across]], "float32")
    title = f"shallow water, {cells}² cells, second order, half dry, {steps} steps"

    def parts(bed):
        return ShallowWaterParams(bed=bed, stage=stage), solver.sampler(places)

    return Case(title, _loss(solver, parts, None, steps), bed, cells**2, steps, False)


def _loss(solver, parts, forcing, steps):
    def loss(loop, variable):
        params, observe = parts(variable)
        if loop.undoes:  # how a step is undone is between the solver and `simulate`
            how = {"steps": steps, "forcing": forcing, "adjoint": loop.undoes}
            return jnp.sum(diffsim.simulate(solver, params, observe, **how)[1] ** 2)
        coefficients, step = solver.coefficients(params), step_of(solver)

        def f(state, forcing_n):
            return step(coefficients, state, forcing_n), observe(state)

        _, data = loop.scan(f, solver.init(params), forcing, steps)
        return jnp.sum(data**2)

    return loss


class Loop(NamedTuple):
    """A way to run and to differentiate ``scan(f, init, xs, length)``."""

    name: str
    family: str
    scan: Any
    slots: int | None = None
    undoes: Reversible | None = None


def ours(adjoint, family, slots=None):
    """One of the strategies."""
    scan = functools.partial(diffsim.scan, adjoint=adjoint)
    undoes = adjoint if isinstance(adjoint, Reversible) else None
    return Loop(f"`{adjoint!r}`", family, scan, slots, undoes)


def nested(inner):
    """A scan over checkpointed scans of ``inner`` steps; a remainder is run first."""

    def scan(f, init, xs, length):
        def stretch(carry, xs, steps):
            return jax.checkpoint(lambda c, x: jax.lax.scan(f, c, x, steps, unroll=2))(carry, xs)

        outer, head = divmod(length, inner)
        carry, first = stretch(init, jax.tree.map(lambda x: x[:head], xs), head)
        rest = jax.tree.map(lambda x: x[head:].reshape(outer, inner, *x.shape[1:]), xs)
        carry, ys = jax.lax.scan(lambda c, x: stretch(c, x, inner), carry, rest, outer)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b.reshape(-1, *b.shape[2:])]), first, ys)
        return carry, ys

    return Loop(f"nested `jax.checkpoint`, {inner} steps", "nested jax.checkpoint", scan)


def equinox(slots):
    """Equinox's checkpointed scan."""

    def scan(f, init, xs, length):
        return eqxi.scan(f, init, xs, length, kind="checkpointed", checkpoints=slots)

    return Loop(f"equinox, {slots} checkpoints", "equinox", scan, slots)


class Discrete(diffrax.AbstractSolver):
    """Any step as a diffrax solver; the vector field is the step."""

    term_structure = diffrax.ODETerm
    interpolation_cls = diffrax.LocalLinearInterpolation

    def order(self, terms):
        """Unknown."""
        return None

    def init(self, terms, t0, t1, y0, args):
        """Nothing to prepare."""
        return None

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step of whatever the term's vector field does."""
        y1 = terms.vf(t0, y0, args)
        return y1, None, {"y0": y0, "y1": y1}, solver_state, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return terms.vf(t0, y0, args)


def diffrax_loop(slots):
    """Diffrax's recursive checkpointing; the squared data is summed in the state."""

    def scan(f, init, xs, length):
        def vector_field(t, y, args):
            state, total = y
            n = jnp.round(t).astype(int)
            state, seen = f(state, jax.tree.map(lambda x: x[n], xs))
            return state, total + jnp.sum(seen**2)

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field), Discrete(), 0, length, 1,
            (init, jnp.zeros((), jax.tree.leaves(init)[0].dtype)),
            max_steps=length,
            saveat=diffrax.SaveAt(t1=True, fn=lambda t, y, args: y[1]),
            stepsize_controller=diffrax.ConstantStepSize(),
            adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=slots),
        )  # fmt: skip
        return None, jnp.sqrt(jnp.asarray(solution.ys))

    return Loop(f"diffrax, {slots} checkpoints", "diffrax", scan, slots)


def loops(case, slots, best_split):
    """All that compete."""
    stretch = max(2, round(math.sqrt(case.steps / 2)))
    rows = [Loop("`grad(lax.scan)`", "store all", jax.lax.scan), ours(StoreAll(), "store all")]
    rows += [nested(best_split), ours(Periodic(stretch), "Periodic")]
    rows += [ours(Revolve(s), "Revolve", s) for s in slots]
    rows += [ours(Reversible(), "Reversible")] if case.reversible else []
    rows += [equinox(s) for s in slots] + [diffrax_loop(slots[len(slots) // 2])]
    return rows


def compiled(loop, case):
    """The compiled value and gradient, its bytes and compile seconds; None if beyond the room."""
    program = jax.value_and_grad(functools.partial(case.loss, loop))
    start = time.perf_counter()
    program = jax.jit(program).lower(case.variable).compile()
    seconds = time.perf_counter() - start
    size = program.memory_analysis().temp_size_in_bytes  # pyright: ignore
    return (program if size < ROOM else None), size, seconds


def evaluations(loop, steps):
    """Step evaluations of one gradient, per step."""
    calls = []

    def f(carry, _):
        jax.debug.callback(lambda _: calls.append(1), carry)
        return jnp.sin(carry), carry

    if loop.undoes:
        return 2.0  # forward, and back in one sweep with the transpose
    jax.grad(lambda u: jnp.sum(loop.scan(f, u, jnp.zeros(steps), steps)[1]))(0.3)
    jax.effects_barrier()
    return len(calls) / steps


def fastest(programs, variable, rounds):
    """The least seconds of each program, the programs in turn."""
    times = np.full((rounds, len(programs)), np.inf)
    for i in range(-1, rounds):
        for j, program in enumerate(programs):
            start = time.perf_counter()
            jax.block_until_ready(program(variable))
            if i >= 0:
                times[i, j] = time.perf_counter() - start
    return times.min(axis=0)


def best_split(case):
    """The steps in a stretch for which nested checkpoints take the least memory."""
    root = math.sqrt(case.steps)
    splits = [max(2, round(root * factor)) for factor in (0.15, 0.25, 0.4, 0.7, 1.0)]
    return min(splits, key=lambda inner: compiled(nested(inner), case)[1])


def measure(case, slots, rounds=ROUNDS):
    """One table, and its rows as records."""
    competitors = loops(case, slots, best_split(case))
    built = [compiled(loop, case) for loop in competitors]
    forward = jax.jit(functools.partial(case.loss, competitors[0])).lower(case.variable).compile()
    fits = [i for i, (program, *_) in enumerate(built) if program is not None]
    seconds = fastest([forward, *(built[i][0] for i in fits)], case.variable, rounds)
    taken = dict(zip(fits, seconds[1:], strict=True))
    exact = built[0][0](case.variable)[1] if built[0][0] else None
    print(f"\n{case.title}; forward run {seconds[0]:.2f} s, "
          f"{case.cells * case.steps / seconds[0] / 1e6:.0f} Mpt/s\n")  # fmt: skip
    print("| loop | s | gradient/forward | temporaries, MB | evaluations/step | compile, s |")
    print("|---|---|---|---|---|---|")
    records = []
    for i, (loop, (program, size, compiling)) in enumerate(zip(competitors, built, strict=True)):
        record = {"case": case.title, "loop": loop.name, "family": loop.family, "bytes": size}
        record |= {"slots": loop.slots, "seconds": taken.get(i), "compile_s": compiling}
        record |= {"evaluations": evaluations(loop, case.steps)}
        if exact is not None and program is not None:
            gap = jnp.max(jnp.abs(program(case.variable)[1] - exact)) / jnp.max(jnp.abs(exact))
            record |= {"difference": float(gap)}
        records.append(record)
        second = f"{taken[i]:.2f}" if i in taken else "does not fit"
        ratio = f"{taken[i] / seconds[0]:.1f}" if i in taken else ""
        cells = [loop.name, second, ratio, f"{size / 1e6:.0f}"]
        cells += [f"{record['evaluations']:.2f}", f"{compiling:.1f}"]
        print("|", " | ".join(cells), "|", flush=True)
    worst = max((r.get("difference", 0) for r in records), default=0)
    print(f"\nlargest difference between the gradients: {worst:.0e} of the largest value")
    return records


STYLE = {"Revolve": "C0o-", "Reversible": "C3*", "Periodic": "C2s", "store all": "kX",
         "nested jax.checkpoint": "C1D", "equinox": "C4^--", "diffrax": "C5v"}  # fmt: skip


def draw(records, path):
    """Memory against time, one panel a case."""
    titles = list(dict.fromkeys(record["case"] for record in records))
    figure, panels = plt.subplots(
        1, len(titles), figsize=(5 * len(titles), 4.5), layout="constrained", squeeze=False
    )
    for panel, title in zip(panels[0], titles, strict=True):
        for family, style in STYLE.items():
            rows = [r for r in records if r["case"] == title and r["family"] == family]
            rows = [r for r in rows if r["seconds"] is not None]
            sizes, seconds = [r["bytes"] / 1e6 for r in rows], [r["seconds"] for r in rows]
            if rows:
                panel.plot(sizes, seconds, style, label=family, markersize=6)
        panel.set(xscale="log", yscale="log", xlabel="temporaries (MB)", title=title)
        panel.grid(alpha=0.3, which="both", linewidth=0.4)
    panels[0, 0].set_ylabel("one value and gradient (s)")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=140)


def main():
    parser = argparse.ArgumentParser(description="The engine against its peers.")
    parser.add_argument("--quick", action="store_true", help="a small wave case only")
    parser.add_argument("--out", default="bench_adjoint", help="stem of the .png and .jsonl")
    args = parser.parse_args()
    print(machine())
    if args.quick:
        records = measure(wave(64, 200), [5, 20], rounds=2)
    else:
        records = measure(wave(256, 1000), [5, 10, 20, 50, 100, 200])
        records += measure(wave(256, 10_000), [5, 20, 50, 200], rounds=3)
        records += measure(flood(128, 1000), [5, 20, 50, 200], rounds=3)
    with open(f"{args.out}.jsonl", "w") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in records)
    draw(records, f"{args.out}.png")


if __name__ == "__main__":
    main()
