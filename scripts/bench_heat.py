"""Explicit heat conduction in two dimensions against py-pde; then schemes against each other.

``python scripts/bench_heat.py`` (py-pde comes with the extra ``bench``) prints the tables of
BENCHMARKS.md. First the speed: an insulated square of constant conductivity at the explicit limit,
float32, all programs in turn, the minimum of five rounds; the gradient is that of the squared
temperature at 100 places by the conductivity of each cell. Then the time to a given error, float64:
two modes of a square held at 0 decay to a quarter and less, compared with the exact decay of the
same modes on the same grid, so that the error is that of the time steps alone.
"""

import argparse
import math
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, least, machine

from diffsim import Grid, Revolve, StoreAll, simulate
from solvers.heat import RKL2, Dirichlet, Explicit, Heat, HeatParams, Neumann, Theta

STEPS = {512: 800, 1024: 200, 2048: 60}
ALLOWED = 1e-3  # error over the largest temperature at the end
END = 0.05  # of the time in which heat crosses the square
MODES = ((1, 1, 1.0), (3, 2, 0.5))  # half waves along each axis, amplitude
ADJOINTS = Revolve(22), StoreAll()


def square(n, dt, scheme, face):
    """A solver on the unit square."""
    grid = Grid(shape=(n, n), spacing=(1 / n, 1 / n), origin=(0.5 / n, 0.5 / n))
    return Heat(grid=grid, dt=dt, boundary=((face, face), (face, face)), scheme=scheme)


def limit(n):
    """s, the longest explicit step for a diffusivity of 1 m²/s."""
    return 1 / (4 * n**2)


def run(n, steps):
    """The parameters, and what maps them to the data and the final temperature by an adjoint."""
    solver = square(n, 0.9 * limit(n), Explicit(), Neumann())
    random = np.random.default_rng(0)
    start = jnp.asarray(random.random((n, n)), "float32")
    places = jnp.asarray(random.uniform(0.1, 0.9, (100, 2)), "float32")
    sampler = solver.sampler(places)

    def data(params, adjoint):
        state, seen = simulate(solver, params, sampler, steps=steps, adjoint=adjoint)
        return seen, state.temperature[1:-1, 1:-1]

    # arrays that a program closes over would be constants, which XLA folds at length
    return HeatParams(conductivity=jnp.ones((n, n), "float32"), capacity=1.0, initial=start), data


def py_pde(start, n, steps):
    """py-pde's run of the same: a call that returns the final temperature; and compile seconds."""
    import pde  # pyright: ignore[reportMissingImports]
    from pde.solvers import EulerSolver  # pyright: ignore[reportMissingImports]

    grid = pde.CartesianGrid([[0, 1], [0, 1]], [n, n])
    field = pde.ScalarField(grid, np.asarray(start), dtype=np.float32)
    equation = pde.DiffusionPDE(1.0, bc={"derivative": 0})
    dt = 0.9 * limit(n)
    begin = time.perf_counter()
    stepper = EulerSolver(equation, backend="numba").make_stepper(field, dt)
    stepper(field.copy(), 0, 2 * dt)
    compiling = time.perf_counter() - begin

    def call():
        end = field.copy()
        stepper(end, 0, steps * dt)
        return end.data

    return call, compiling


def speed(n, steps):
    """Rows of the first table."""
    params, data = run(n, steps)
    forward, compile_s = compiled(lambda params: data(params, StoreAll()), params)
    calls, names, compiling = [lambda: forward(params)], ["forward run"], [compile_s]
    for adjoint in ADJOINTS:

        def loss(conductivity, params, adjoint=adjoint):
            return jnp.sum(data(params._replace(conductivity=conductivity), adjoint)[0] ** 2) / 2

        program, compile_s = compiled(jax.value_and_grad(loss), params.conductivity, params)
        calls.append(lambda program=program: program(params.conductivity, params))
        names.append(f"gradient, `{adjoint!r}`")
        compiling.append(compile_s)
    note = ""
    try:
        call, compile_s = py_pde(params.initial, n, steps)
        gap = np.max(np.abs(call() - np.asarray(forward(params)[1])))
        calls, compiling = [*calls, call], [*compiling, compile_s]
        names.append(f"py-pde {version('py-pde')}, forward run (differs by {gap:.0e})")
    except ImportError as error:
        note = f"| {n}² | py-pde: {error} | | | | |"
    seconds = least(calls)
    for name, second, compile_s in zip(names, seconds, compiling, strict=True):
        cells = [f"{n}²", name, f"{second:.3f}", f"{n * n * steps / second / 1e6:.0f}"]
        print("|", " | ".join([*cells, f"{second / seconds[0]:.2f}", f"{compile_s:.1f}"]), "|")
    if note:
        print(note)


def modes(n, t):
    """The temperature at a time, exact but for the grid."""
    x = (np.arange(n) + 0.5) / n
    total = 0.0
    for i, j, amplitude in MODES:
        rate = sum(4 * n**2 * math.sin(math.pi * k / (2 * n)) ** 2 for k in (i, j))
        shape = np.outer(np.sin(i * math.pi * x), np.sin(j * math.pi * x))
        total = total + amplitude * math.exp(-rate * t) * shape
    return total


def error_and_time(n, scheme, steps, part):
    """The error at the end, and the seconds of a run, of which only a part is done."""
    solver = square(n, END / steps, scheme, Dirichlet())
    start = jnp.asarray(modes(n, 0))
    params = HeatParams(conductivity=jnp.ones((n, n)), capacity=1.0, initial=start)
    some = math.ceil(steps * part)
    nothing = lambda state: ()
    program, _ = compiled(
        lambda params: simulate(solver, params, nothing, steps=some)[0].temperature, params
    )
    wanted = modes(n, some * solver.dt)
    end = np.asarray(program(params))[1:-1, 1:-1]
    seconds = least([lambda: program(params)], rounds=2)[0] * steps / some
    return np.max(np.abs(end - wanted)) / np.max(wanted), seconds


def stages(n, steps):
    """The fewest stages of RKL2 that so many steps need."""
    wanted = END / steps / limit(n)
    return next(s for s in range(3, 10_000, 2) if RKL2(s).reach >= wanted)


def cheapest(n, kind):
    """Of a scheme: the fewest steps that stay within the error allowed, the error, the seconds."""
    tries = [3, 5, 8, 12, 20, 30, 50, 80, 120]
    if kind == "explicit":
        tries = [math.ceil(factor * END / limit(n)) for factor in (1, 1.5, 2, 3, 5, 8)]
    for steps in tries:
        scheme = Explicit() if kind == "explicit" else Theta(0.5, tolerance=1e-8)
        scheme = RKL2(stages(n, steps)) if kind == "RKL2" else scheme
        part = min(1, 2000 / steps)
        error, seconds = error_and_time(n, scheme, steps, part)
        if error <= ALLOWED:
            return steps, scheme, error, seconds
    raise RuntimeError(f"{kind} at {n}² stays above the error {ALLOWED}")


def to_an_error(sizes):
    """The second table."""
    print(f"\nTime to an error of {ALLOWED:g} in 2-D, float64 (explicit runs that are longer than "
          "2000 steps: 2000 measured, scaled)\n")  # fmt: skip
    print("| n² | scheme | steps | step over explicit limit | error | s | explicit's time / its |")
    print("|---|---|---|---|---|---|---|")
    for n in sizes:
        explicit = None
        for kind in ("explicit", "RKL2", "implicit"):
            steps, scheme, error, seconds = cheapest(n, kind)
            explicit = explicit or seconds
            cells = [f"{n}²", f"`{scheme!r}`", f"{steps}", f"{END / steps / limit(n):.0f}"]
            cells += [f"{error:.0e}", f"{seconds:.3f}", f"{explicit / seconds:.1f}"]
            print("|", " | ".join(cells), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Heat conduction: speed, and schemes.")
    parser.add_argument("--sizes", default="512,1024,2048", help="cells an axis, for the speed")
    parser.add_argument("--schemes", default="64,128,256,512,1024", help="the same, for schemes")
    parser.add_argument("--small", action="store_true", help="tiny grids, to try it")
    args = parser.parse_args()
    sizes, schemes = ([int(n) for n in v.split(",") if n] for v in (args.sizes, args.schemes))
    print(machine())
    if sizes:
        print("\nExplicit, 2-D, order 2, float32\n")
        print("| n² | | s | Mpt/s | over the forward run | compile, s |\n|---|---|---|---|---|---|")
    for n in [64] if args.small else sizes:
        speed(n, 40 if args.small else STEPS.get(n, 100))
    if schemes:
        jax.config.update("jax_enable_x64", True)
        to_an_error([32] if args.small else schemes)


if __name__ == "__main__":
    main()
