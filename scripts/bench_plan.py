"""What the planner foretells against what happens: bytes and seconds, every solver and strategy.

``python scripts/bench_plan.py`` prints a table and the worst errors. Each solver's own example is
put on a larger grid and run for longer. Bytes are what XLA plans for arguments, results and
temporaries of the gradient with respect to everything; seconds are the least of a few runs.
"""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import zoom

import solvers
from diffsim import Grid, Multilevel, Periodic, Reversible, Revolve, StoreAll, simulate
from diffsim.adjoint.fit.choose import foretell
from diffsim.adjoint.fit.trial import planned_bytes

CELLS, STEPS, ROUNDS = 9000, 200, 5
FEW, SOME = 2, 12  # slots of Revolve that are looked at, besides the most


def enlarged(cls, cells, steps):
    """A solver's example on about so many finer cells, for so many shorter steps."""
    solver, params, forcing = cls.example()
    old = solver.grid
    shape = (round(cells ** (1 / old.ndim)),) * old.ndim
    finer = [m / n for m, n in zip(old.shape, shape, strict=True)]
    spacing = tuple(h * f for h, f in zip(old.spacing, finer, strict=True))
    grid = Grid(shape=shape, spacing=spacing, origin=old.origin)

    def resampled(leaf):
        leaf = np.asarray(leaf)
        rest = leaf.ndim - old.ndim
        if rest < 0 or leaf.shape[rest:] != old.shape:
            return jnp.asarray(leaf)
        factors = (1,) * rest + tuple(np.divide(grid.shape, old.shape))
        return jnp.asarray(zoom(leaf, factors, order=1))

    params = jax.tree.map(resampled, params)
    forcing = jax.tree.map(lambda f: jnp.resize(resampled(f), (steps, *f.shape[1:])), forcing)
    # as stable as the example, whether the limit goes with the spacing or with its square
    dt = solver.dt * min(finer) ** 2
    return dataclasses.replace(solver, grid=grid, dt=dt), params, forcing


def gradient(cls, cells, steps):
    """``(adjoint -> value_and_grad of a loss of everything, its arguments)``."""
    solver, params, forcing = enlarged(cls, cells, steps)
    low, high = np.array(solver.grid.extent).T
    observe = solver.sampler(low + (high - low) * np.array([[0.31], [0.64]]))

    def by(adjoint):
        def loss(params, forcing):
            how = {"steps": steps, "forcing": forcing, "adjoint": adjoint}
            return jnp.sum(simulate(solver, params, observe, **how)[1] ** 2)

        return jax.value_and_grad(loss, argnums=(0, 1))

    return by, (params, forcing)


def reality(program, args):
    """Bytes and seconds of a program, and the seconds that compiling took."""
    start = time.perf_counter()
    compiled = jax.jit(program).lower(*args).compile()
    compiling = time.perf_counter() - start
    jax.block_until_ready(compiled(*args))
    seconds = np.inf
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        seconds = min(seconds, time.perf_counter() - start)
    return planned_bytes(compiled), seconds, compiling


def looked_at(menu):
    """One of each strategy, and a few of `Revolve`."""
    eights = [f for f in menu if isinstance(f.adjoint, Revolve) and f.adjoint.block == 8]
    fours = [f for f in menu if isinstance(f.adjoint, Revolve) and f.adjoint.block == 4]
    levels = [f for f in menu if isinstance(f.adjoint, Multilevel)][:2]
    plain = [f for f in menu if isinstance(f.adjoint, StoreAll | Periodic | Reversible)]
    few = [f for f in eights if f.adjoint.checkpoints in (FEW, SOME)]
    return [*plain, *levels, *few, eights[-1], fours[0]]


def compare(cls, cells=CELLS, steps=STEPS):
    """Rows of the table for one solver, and its relative errors."""
    by, args = gradient(cls, cells, steps)
    start = time.perf_counter()
    menu = foretell(by, args)
    print(f"| {cls.__name__} | planned in {time.perf_counter() - start:.1f} s |", flush=True)
    errors = []
    for forecast in looked_at(menu):
        size, seconds, compiling = reality(by(forecast.adjoint), args)
        error = forecast.bytes / size - 1, forecast.seconds / seconds - 1
        errors.append(error)
        name = repr(forecast.adjoint)
        cells = [cls.__name__, f"`{name}`", str(forecast.states), f"{forecast.evaluations:.2f}"]
        cells += [f"{forecast.bytes / 1e6:.2f}", f"{size / 1e6:.2f}", f"{100 * error[0]:+.0f} %"]
        cells += [f"{forecast.seconds:.3f}", f"{seconds:.3f}", f"{100 * error[1]:+.0f} %"]
        print("|", " | ".join([*cells, f"{compiling:.1f}"]), "|", flush=True)
    return errors


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    names = sys.argv[1:] or solvers.__all__
    print("| solver | strategy | states | evaluations/step | MB foretold | MB | error "
          "| s foretold | s | error | compile, s |")  # fmt: skip
    print("|" + "---|" * 11)
    worst = np.abs(np.concatenate([compare(getattr(solvers, name)) for name in names])).max(axis=0)
    print(f"\nworst errors: bytes {100 * worst[0]:.0f} %, seconds {100 * worst[1]:.0f} %")
