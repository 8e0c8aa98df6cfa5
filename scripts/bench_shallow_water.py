"""Shallow water of second order that wets and dries: speed, gradient, and an error beside PyClaw's.

``python scripts/bench_shallow_water.py`` prints the tables of BENCHMARKS.md. The water of a
parabolic bowl, most of it dry, swells and sinks (Thacker 1981, J. Fluid Mech. 107: exact). First
the cost of a step in float32, all programs in turn, the minimum of five rounds; the gradient is
that of the squared water level at 100 places by the bed. Then half a period at each tool's longest
step, and the error of the depth at its end.

PyClaw (``pip install clawpack``, which needs a Fortran compiler) runs its classic scheme with the
augmented solver of GeoClaw, split by axes, one thread, float64: on coarse grids its steps are
longer than ours.
"""

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, least, machine

from diffsim import Grid, Revolve, StoreAll, simulate
from solvers.shallow_water import ShallowWater, ShallowWaterParams, Wall

STEPS = {512: 60, 1024: 20}
ADJOINTS = Revolve(22), StoreAll()
GRAVITY = 9.81  # m/s²
SIDE, RADIUS, DEPTH, SWELL = 3000.0, 1000.0, 10.0, 0.22  # m, m, m, 1
OMEGA = math.sqrt(8 * GRAVITY * DEPTH) / RADIUS  # 1/s


def bowl(n):
    """The elevation of the bed at the centres of n² cells, and their squared radii over a²."""
    x = (np.arange(n) + 0.5) * SIDE / n - SIDE / 2
    radii = (x[:, None] ** 2 + x**2) / RADIUS**2
    return DEPTH * (radii - 1), radii


def depth(n, t):
    """The exact depth."""
    bed, radii = bowl(n)
    swell = 1 - SWELL * math.cos(OMEGA * t)
    level = math.sqrt(1 - SWELL**2) / swell - 1 - radii * ((1 - SWELL**2) / swell**2 - 1)
    return np.maximum(DEPTH * level - bed, 0)


def ours(n):
    """The solver at its longest step but for a tenth, and its parameters."""
    grid = Grid(shape=(n, n), spacing=(SIDE / n,) * 2, origin=(SIDE / (2 * n),) * 2)
    faces = ((Wall(), Wall()), (Wall(), Wall()))
    bed = bowl(n)[0]
    bed, stage = (jnp.asarray(v, "float32") for v in (bed, bed + depth(n, 0)))
    params = ShallowWaterParams(bed=bed, stage=stage)
    dt = 0.9 * ShallowWater(grid=grid, dt=1.0, boundary=faces).stable_dt(params)
    return ShallowWater(grid=grid, dt=dt, boundary=faces), params


def still(solver, state):
    """What GeoClaw does before a step: no depth is negative, films under its tolerance stand."""
    np.maximum(state.q[0], 0, out=state.q[0])
    state.q[1:] *= state.q[0] >= state.problem_data["dry_tolerance"]


@contextlib.contextmanager
def silent():
    """Drops what a process prints: the Riemann solver reports each negative depth that it meets."""
    sys.stdout.flush()
    screen = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(screen, 1)
        os.close(screen)


def pyclaw(n):
    """PyClaw's solver and solution of the same."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it writes a log
        from clawpack import pyclaw, riemann  # pyright: ignore[reportMissingImports]
    solver = pyclaw.ClawSolver2D(riemann.sw_aug_2D)
    solver.dimensional_split = 1
    solver.order = 2
    solver.limiters = pyclaw.limiters.tvd.MC
    solver.fwave = True
    solver.num_waves, solver.num_eqn = 3, 3
    solver.cfl_max, solver.cfl_desired = 1.0, 0.9
    solver.before_step = still
    for side in ("bc_lower", "bc_upper", "aux_bc_lower", "aux_bc_upper"):
        getattr(solver, side)[:] = [pyclaw.BC.extrap] * 2
    half = SIDE / 2
    domain = pyclaw.Domain([pyclaw.Dimension(-half, half, n, name=name) for name in "xy"])
    state = pyclaw.State(domain, 3, num_aux=1)
    state.problem_data.update(grav=GRAVITY, dry_tolerance=1e-3, sea_level=0.0)
    state.aux[0] = bowl(n)[0]
    state.q[0], state.q[1:] = depth(n, 0), 0.0
    solution = pyclaw.Solution(state, domain)
    solver.dt = 0.5 * SIDE / n / math.sqrt(GRAVITY * 1.5 * DEPTH)
    solver.setup(solution)
    return solver, solution


def speed(n, steps):
    """Rows of the first table."""
    solver, params = ours(n)
    places = np.random.default_rng(0).uniform(0.2, 0.8, (100, 2)) * SIDE
    sampler = solver.sampler(jnp.asarray(places, "float32"))

    def data(params, adjoint):
        return simulate(solver, params, sampler, steps=steps, adjoint=adjoint)[1]

    forward, compile_s = compiled(lambda params: data(params, StoreAll()), params)
    calls, names, compiling = [lambda: forward(params)], ["forward run"], [compile_s]
    for adjoint in ADJOINTS:

        def loss(bed, params, adjoint=adjoint):
            return jnp.sum(data(params._replace(bed=bed), adjoint) ** 2) / 2

        # an array that a program closes over would be a constant, which XLA folds at length
        program, compile_s = compiled(jax.value_and_grad(loss), params.bed, params)
        calls.append(lambda program=program: program(params.bed, params))
        names.append(f"gradient, `{adjoint!r}`")
        compiling.append(compile_s)
    seconds = least(calls)
    for name, second, compile_s in zip(names, seconds, compiling, strict=True):
        cells = [f"{n}²", name, f"{second:.3f}", f"{n * n * steps / second / 1e6:.1f}"]
        print("|", " | ".join([*cells, f"{second / seconds[0]:.2f}", f"{compile_s:.1f}"]), "|")


def half_period_of_ours(n):
    """Seconds, steps, and the depth at the end."""
    solver, params = ours(n)
    steps = math.ceil(math.pi / OMEGA / solver.dt)
    solver = ShallowWater(grid=solver.grid, dt=math.pi / OMEGA / steps, boundary=solver.boundary)
    program, _ = compiled(
        lambda params: simulate(solver, params, lambda _: (), steps=steps)[0].depth, params
    )
    seconds = least([lambda: program(params)], rounds=2)[0]
    return seconds, steps, np.asarray(program(params))


def half_period_of_pyclaw(n):
    """The same."""
    times = []
    for _ in range(2):
        solver, solution = pyclaw(n)
        start = time.perf_counter()
        with silent():
            status = solver.evolve_to_time(solution, math.pi / OMEGA)
        times.append(time.perf_counter() - start)
    return min(times), status["numsteps"], solution.state.q[0]


def to_an_error(sizes):
    """The second table: the error is the mean one over the mean depth."""
    print("\n| n² | | s | steps | Mcell-steps/s | error |\n|---|---|---|---|---|---|")
    for n in sizes:
        exact = depth(n, math.pi / OMEGA)
        for name, run in (("ours", half_period_of_ours), ("PyClaw", half_period_of_pyclaw)):
            try:
                seconds, steps, end = run(n)
            except ImportError as error:
                print(f"| {n}² | {name} is not installed: {error} | | | | |")
                continue
            error = np.abs(end - exact).mean() / exact.mean()
            rate = n * n * steps / seconds / 1e6
            cells = [f"{n}²", name, f"{seconds:.2f}", f"{steps}", f"{rate:.1f}", f"{error:.2e}"]
            print("|", " | ".join(cells), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Shallow water: speed, and PyClaw.")
    parser.add_argument("--sizes", default="512,1024", help="cells an axis, for the speed")
    parser.add_argument("--errors", default="64,128,256,512", help="the same, for the error")
    parser.add_argument("--small", action="store_true", help="tiny grids, to try it")
    args = parser.parse_args()
    sizes, errors = ([int(n) for n in v.split(",") if n] for v in (args.sizes, args.errors))
    print(machine())
    if sizes:
        print("\n| n² | | s | Mcell-steps/s | over the forward run | compile, s |")
        print("|---|---|---|---|---|---|")
    for n in [48] if args.small else sizes:
        speed(n, 10 if args.small else STEPS.get(n, 40))
    to_an_error([48] if args.small else errors)


if __name__ == "__main__":
    main()
