"""Run a case: check it, compute, and leave a folder of results.

``python -m diffsim.run case.yaml`` writes ``case.yaml``, ``metrics.json``, ``result.nc``,
``run.log`` and figures into ``runs/case``. Exit codes: 0, 1 if the run failed, 2 for a mistake in
the input.
"""

import argparse
import json
import logging
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from platformdirs import user_cache_path

from diffsim import planned, plot, result
from diffsim.adjoint.checkpointed import Checkpointed
from diffsim.adjoint.sampled import Sampled
from diffsim.case import CaseError, Loaded, load
from diffsim.observe import highest
from diffsim.task import Gradient, Outcome, Problem

log = logging.getLogger("diffsim")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the case that the command line names; give the exit code."""
    parser = argparse.ArgumentParser("python -m diffsim.run", description=__doc__)
    return execute(arguments(parser).parse_args(argv))


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what ``run`` takes from the command line."""
    add = plan_arguments(parser).add_argument
    add("--out", type=Path, metavar="DIR", help="for the results; runs/<case> if absent")
    add("--force", action="store_true", help="write over the results of an earlier run")
    return parser


def plan_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what ``plan`` takes from the command line."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("case", type=Path, help="the YAML file")
    add("-s", dest="overrides", metavar="PATH=VALUE", action="append", default=[],
        help="override a value, such as solver.dt=1e-3; repeatable")  # fmt: skip
    add("--debug", action="store_true", help="show tracebacks")
    return parser


def plan(args: argparse.Namespace) -> int:
    """Print what a case would take; give the exit code."""
    _keep_programs()
    try:
        loaded = load(args.case, args.overrides)
        with _precision(loaded.case.precision):
            for line in planned.report(_on_device(loaded)):
                print(line, flush=True)
    except Exception as error:
        return _refused(args, error)
    return 0


def _refused(args: argparse.Namespace, error: Exception) -> int:
    if args.debug:
        raise error
    where = f"{args.case}: {type(error).__name__}: {error}; --debug shows where"
    print(error if isinstance(error, CaseError) else where, file=sys.stderr)
    return 2


def execute(args: argparse.Namespace) -> int:
    """Load, run, write; errors become a line on stderr and an exit code."""
    _keep_programs()
    try:
        loaded = load(args.case, args.overrides)
        folder = _folder(args)
    except Exception as error:
        return _refused(args, error)
    with _logged(folder / "run.log"):
        try:
            _run(loaded, folder)
        except KeyboardInterrupt:
            log.error("interrupted: nothing more is written to %s", folder)
            return 130
        except Exception as error:
            if args.debug:
                raise
            log.error("%s: %s; --debug shows where", type(error).__name__, error)
            return 1
    return 0


def _keep_programs():
    """Let JAX keep compiled programs for later runs, unless the user told it where already."""
    config: Any = jax.config
    if config.jax_compilation_cache_dir is None:
        # a program is for one kind of CPU, and machines may share a home
        folder = user_cache_path("diffsim", appauthor=False) / platform.node()
        config.update("jax_compilation_cache_dir", str(folder))
        # small ones, too: they are few
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _folder(args: argparse.Namespace) -> Path:
    folder = args.out or Path("runs") / args.case.stem
    if (folder / "metrics.json").exists() and not args.force:
        raise CaseError(f"{folder} holds a run: give another --out, or --force to write over it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.log").touch()
    except OSError as error:
        raise CaseError(f"{folder} cannot be used: {error.strerror}: give another --out") from error
    return folder


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Show what is logged, and keep it in a file."""
    shown, kept = logging.StreamHandler(sys.stdout), logging.FileHandler(path, "w", "utf-8")
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    for handler in (shown, kept):
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in (shown, kept):
            log.removeHandler(handler)
        kept.close()


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", name == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _run(loaded: Loaded, folder: Path):
    loaded.document.write(folder / "case.yaml")
    for warning in loaded.warnings:
        log.warning("warning: %s", warning)
    with _precision(loaded.case.precision):
        loaded = _on_device(loaded)
        foretold = planned.chosen(loaded)
        if foretold is not None:
            problem = loaded.problem._replace(adjoint=foretold.adjoint)
            loaded = loaded._replace(problem=problem)
        outcome = loaded.case.task.run(loaded.problem)
        level = _highest(loaded.problem)
    if foretold is not None:
        expected = {"predicted_bytes": foretold.bytes, "predicted_s": foretold.seconds}
        outcome = outcome._replace(metrics=outcome.metrics | expected)
    data = result.dataset(loaded, outcome, level)
    data.to_netcdf(folder / "result.nc", engine="scipy")
    metrics = result.metrics(loaded, outcome)
    finite = {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in metrics.items()
    }
    (folder / "metrics.json").write_text(json.dumps(finite, indent=2) + "\n")
    _refuse_non_finite(loaded, outcome)
    _draw(data, loaded, folder)
    _summarise(loaded, data, metrics, folder)


def _highest(problem: Problem) -> jax.Array | None:
    if not problem.observe.highest:
        return None
    log.info("highest: compiling and running")
    run = problem.solver, problem.params, problem.forcing, problem.steps
    return highest(problem.observe, *run)


def _on_device(loaded: Loaded) -> Loaded:
    """The case with its arrays as JAX's, of its precision."""
    problem, dtype = loaded.problem, loaded.case.precision
    values = problem.params, problem.forcing, problem.truth
    with np.errstate(over="ignore"):  # the run tells of infinities, with their place
        params, forcing, truth = jax.tree.map(lambda a: jnp.asarray(a, dtype), values)
    problem = problem._replace(params=params, forcing=forcing, truth=truth)
    return loaded._replace(problem=problem)


def _refuse_non_finite(loaded: Loaded, outcome: Outcome):
    for name, values in outcome.data.items():
        if name in outcome.lost or not np.isfinite(values).all():
            with _precision(loaded.case.precision):
                found = loaded.problem.blow_up(name)
            raise FloatingPointError(
                f"the {name} data: {found}" if found else
                f"the {name} data are not finite, but the states are: look at the receivers"
            )  # fmt: skip
    for name, values in {"misfit": outcome.metrics.get("misfit", 0.0), **outcome.gradient}.items():
        if not np.isfinite(values).all():
            what = "misfit" if name == "misfit" else f"gradient with respect to {name}"
            raise FloatingPointError(
                f"the {what} is not finite, but the run is: look at the scale of the data, at an "
                "adjoint that explodes, and at roots and quotients at zero"
            )


def _draw(data: xr.Dataset, loaded: Loaded, folder: Path):
    adjoint, steps = loaded.problem.adjoint, loaded.problem.steps
    plan = adjoint.plan(steps) if isinstance(adjoint, Checkpointed) else None
    for name, figure in plot.figures(data, plan).items():
        figure.savefig(folder / f"{name}.png", dpi=150)


def _summarise(loaded: Loaded, data: xr.Dataset, metrics: dict, folder: Path):
    """Say what a user wants to know at once."""
    mega = {name: value / 1e6 for name, value in metrics.items() if name.endswith("_bytes")}
    lines = {"run": "{steps} steps of {cells} cells, compiled in {compile_s:.1f} s"}
    lines["forward"] = "{forward_s:.3g} s, {cell_steps_per_s:.3g} cell steps/s"
    if isinstance(task := loaded.case.task, Gradient):
        seen = loaded.problem.observe.quantity(loaded.problem.solver)
        lines[task.misfit.called] = f"{{misfit:.6g}} {task.misfit.units(seen.units)}"
        lines["gradient"] = (
            "{gradient_s:.3g} s, {gradient_over_forward:.1f} forward runs, "
            "{evaluations_per_step:.2f} evaluations a step, norm {gradient_norm:.6g}"
        )
        kept = "{temporary_bytes:.3g} MB" if loaded.problem.adjoint.compiles else "store"
        lines["memory"] = (
            f"{kept}, {{states_kept}} states kept; "
            "to store all would take {store_all_bytes:.3g} MB"
        )
    if isinstance(adjoint := loaded.problem.adjoint, Sampled) and "image_aliased" in metrics:
        lines["image"] = (
            f"of one step in {adjoint.every}; about {{image_aliased:.1g}} of it is an alias, by "
            "the forcing's spectrum"
        )
    lines["process"] = "{peak_rss_bytes:.3g} MB at most"
    log.info("%s", loaded.case.title)
    for name, line in lines.items():
        log.info("  %-9s %s", name, line.format(**{**metrics, **mega}))
    for name, value in data.data_vars.items():
        if str(name).startswith("gradient_") and value.ndim == 0:
            at = data[str(name).removeprefix("gradient_")]
            where = f"{at.attrs['long_name']} at {at.item():.6g} {at.attrs['units']}"
            log.info("  %-9s %s: %.4g %s", "by", where, value.item(), value.attrs["units"])
    for station in data["station"].values if "station" in data else ():
        log.info("  %-9s %s", "station", _seen_at(data, str(station)))
    log.info("  %-9s %s", "results", folder)


def _seen_at(data: xr.Dataset, station: str) -> str:
    """What one station saw, in words."""
    scale, unit = plot.time_unit(float(data["time"][-1]))
    seen = data.sel(receiver=data["station"] == station)
    arrival, when = (scale * seen[name].values[0] for name in ("arrival_time", "peak_time"))
    if np.isnan(arrival):
        return f"{station}: nothing arrives"
    peak = f"{seen['peak'].values[0]:.4g} {seen['peak'].attrs['units']}"
    return f"{station}: arrives at {arrival:.4g} {unit}, at most {peak} at {when:.4g} {unit}"


if __name__ == "__main__":
    sys.exit(main())
