"""What a run leaves: a dataset with units, and numbers about the run itself."""

import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from diffsim.case import Loaded
from diffsim.grid import Grid
from diffsim.solver import entries, quantities
from diffsim.task import Gradient, Outcome

ARRIVED = 0.05  # of a receiver's greatest departure from its first value


def dataset(loaded: Loaded, outcome: Outcome, highest: Any = None) -> xr.Dataset:
    """All that was computed, with the CF conventions' attributes.

    Arrays on the grid have its axes as dimensions; positions ``[source, axis]`` become the
    coordinates ``source_z``, ``source_x``; data are ``[time, receiver]``, and there are observed
    ones if other params made them.

    Args:
        loaded: the case
        outcome: of its task
        highest: ``[*grid.shape]``, the highest that each node saw, if it was asked for
    """
    _, case, problem, _ = loaded
    solver, grid = problem.solver, problem.solver.grid
    attrs: dict[str, Any] = {
        "Conventions": "CF-1.11",
        "title": case.title,
        "solver": repr(solver),
        "adjoint": repr(problem.adjoint),
    }
    if "misfit" in outcome.metrics:
        attrs["misfit"] = outcome.metrics["misfit"]
    result = xr.Dataset(_params(loaded, outcome), _coordinates(grid), attrs)
    result["time"] = ("time", np.arange(problem.steps) * solver.dt, _attrs("time", "s"))
    _add_positions(result, "receivers", problem.observe.places(solver), grid)
    for name, value in entries(problem.params).items():
        if _is_positions(loaded, name, value):
            _add_positions(result, name, np.asarray(value), grid)
    name, units = problem.observe.quantity(solver)
    for key, value in outcome.data.items():
        if key == "predicted" or problem.truth:
            result[key] = (("time", "receiver"), value, _attrs(name, units))
    if highest is not None:
        result["highest"] = (grid.axes, np.asarray(highest), _attrs(f"highest {name}", units))
    if problem.observe.names:
        result.coords["station"] = ("receiver", list(problem.observe.names), _attrs("station", "1"))
    _add_marks(result, name, units)
    if "observed" in result:
        result["residual"] = result["predicted"] - result["observed"]
        result["residual"].attrs = _attrs(name, units)
    return result


def _add_marks(result: xr.Dataset, name: str, units: str):
    """When what a receiver sees first departs from its first value, how high it gets, and when."""
    time, seen = result["time"].values, result["predicted"].values
    departure = np.abs(seen - seen[0])
    departed = departure > ARRIVED * departure.max(axis=0)
    arrival = np.where(departed.any(axis=0), time[departed.argmax(axis=0)], np.nan)
    marks = {
        "arrival_time": (arrival, _attrs("arrival time", "s")),
        "peak": (seen.max(axis=0), _attrs(f"highest {name}", units)),
        "peak_time": (time[seen.argmax(axis=0)], _attrs("time of the peak", "s")),
    }
    for key, (values, attrs) in marks.items():
        result[key] = ("receiver", values, attrs)


def _params(loaded: Loaded, outcome: Outcome) -> dict[str, Any]:
    """Variables for the parameters, those that made the observed data, and the gradients."""
    _, case, problem, _ = loaded
    known, truth = quantities(type(problem.params)), entries(problem.truth)
    found = {}
    for name, value in entries(problem.params).items():
        if value is None or not np.size(value):  # the solver does without
            continue
        long_name, units = known.get(name, (name, "1"))
        dims = _dims(loaded, name, value)
        variable = name.replace(".", "_")
        if not _is_positions(loaded, name, value):
            found[variable] = (dims, np.asarray(value), _attrs(long_name, units))
        if name in truth:
            text = f"{long_name} that made the observed data"
            found[f"observed_{variable}"] = (dims, np.asarray(truth[name]), _attrs(text, units))
        if name in outcome.gradient and isinstance(case.task, Gradient):
            misfit = case.task.misfit
            seen = problem.observe.quantity(problem.solver)
            per = misfit.units(seen.units) + ("" if units == "1" else f"/({units})")
            attrs = _attrs(f"derivative of the {misfit.called} by {long_name}", per)
            found[f"gradient_{variable}"] = (dims, outcome.gradient[name], attrs)
    return found


def _dims(loaded: Loaded, name: str, value: Any) -> tuple[str, ...]:
    grid = loaded.problem.solver.grid
    if np.shape(value) == grid.shape:
        return grid.axes
    if _is_positions(loaded, name, value):
        return name.removesuffix("s"), "axis"
    return tuple(f"{name.replace('.', '_')}_{i}" for i in range(np.ndim(value)))


def _is_positions(loaded: Loaded, name: str, value: Any) -> bool:
    grid, known = loaded.problem.solver.grid, quantities(type(loaded.problem.params))
    metres = name in known and known[name].units == "m"
    return metres and np.shape(value)[1:] == (grid.ndim,) and np.shape(value) != grid.shape


def _coordinates(grid: Grid) -> dict[str, Any]:
    found = {}
    for axis, n, h, origin in zip(grid.axes, grid.shape, grid.spacing, grid.origin, strict=True):
        attrs = _attrs("depth", "m", positive="down") if axis == "z" else _attrs(axis, "m")
        found[axis] = (axis, origin + h * np.arange(n), attrs)
    return found


def _add_positions(result: xr.Dataset, name: str, places: np.ndarray, grid: Grid):
    kind = name.removesuffix("s")
    for axis, place in zip(grid.axes, places.T, strict=True):
        label = f"{kind} {'depth' if axis == 'z' else axis}"
        result.coords[f"{kind}_{axis}"] = (kind, place, _attrs(label, "m"))


def _attrs(long_name: str, units: str, **others: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units, **others}


def metrics(loaded: Loaded, outcome: Outcome) -> dict[str, Any]:
    """Numbers about a run: values, seconds, bytes, versions."""
    problem = loaded.problem
    cells = int(np.prod(problem.solver.grid.shape))
    steps_per_s = problem.steps / outcome.metrics["forward_s"]
    packages = {"diffsim": "diffsim-adjoint", **{p: p for p in ("jax", "jaxlib", "numpy")}}
    return {
        **outcome.metrics,
        "steps": problem.steps,
        "cells": cells,
        "cell_steps_per_s": cells * steps_per_s,
        "peak_rss_bytes": _peak_rss(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: version(package) for name, package in packages.items()},
        "commit": _commit(),
    }


def _peak_rss() -> int:
    """bytes, the most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, marked if it was edited."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
