"""A case: what to run, in a YAML file.

One rule: a mapping with ``type`` is an object; ``type`` names a class, the other keys its fields.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, InstanceOf

from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scan import Adjoint, StoreAll
from diffsim.case.document import CaseError, Document, Route, suggestion
from diffsim.case.objects import fields, made, unknown
from diffsim.case.records import arrays
from diffsim.fields import Count, Entry, Home, Values
from diffsim.observe import Receivers
from diffsim.solver import Remark, RetracingSolver, Solver, entries, frozen, quantities
from diffsim.task import Gradient, Problem, Task

TRUTH = ("task", "observed", "params")


@frozen
class Case:
    """What to run.

    Args:
        solver: the discretised PDE
        params: its parameters by name, SI units; a record's as a mapping of its fields
        observe: what is seen
        steps: number of steps of ``solver.dt``
        task: what the run is for
        forcing: the solver's time series by name
        adjoint: how a gradient remembers the past
        title: for figures and results
        precision: of all arrays
    """

    solver: Annotated[InstanceOf[Solver], Home("solvers")]
    params: dict[str, Entry]
    observe: Annotated[Receivers, Home("diffsim.observe")]
    steps: Count
    task: Annotated[InstanceOf[Task], Home("diffsim.task")]
    forcing: dict[str, Values] = Field(default_factory=dict)
    adjoint: Annotated[InstanceOf[Adjoint], Home("diffsim")] = StoreAll()
    title: str = ""
    precision: Literal["float32", "float64"] = "float32"


class Loaded(NamedTuple):
    """A checked case: as written, as objects, as arrays."""

    document: Document
    case: Case
    problem: Problem
    warnings: list[str]


def load(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a case and check it, words and physics.

    Args:
        path: of the YAML file
        overrides: such as ``"solver.dt=1e-3"``, checked as the file is

    Raises:
        CaseError: with all the mistakes that were found, each with its place
    """
    document = Document(path, overrides)
    values, guessed = fields(document, document.data, Case, (), ())
    case = made(document, document.data, Case, values, guessed, ())
    problem, warnings = None, []
    sound = {name for name in ("solver", "steps") if name in values and document.clean(name)}
    if len(sound) == 2:
        problem, warnings = _problem(document, values)
    if document.mistakes or problem is None:
        raise CaseError("\n".join(map(str, document.mistakes)))
    return Loaded(document, case, problem, warnings)


def _problem(document: Document, values: dict[str, Any]) -> tuple[Problem | None, list[str]]:
    """The arrays of a case whose solver and number of steps are in order, and doubts about them.

    Other sections may hold mistakes: what depends on none of them is checked all the same.
    """
    solver, steps = values["solver"], int(values["steps"])
    params = _params(document, solver, steps, values.get("params"))
    forcing = _forcing(document, solver, steps, values.get("forcing"), params)
    _check_places(document, solver, values.get("observe"))
    task, truth = values.get("task"), {}
    if isinstance(task, Gradient):
        _names(document, task.respect_to, solver, ("task", "respect_to"))
        for i, name in enumerate(task.respect_to if params else ()):
            if getattr(params, name, ()) is None:
                text = f"the case leaves {name} out: give params.{name}, or leave it out here too"
                document.mistake(("task", "respect_to", i), text)
        _names(document, task.observed.params, solver, TRUTH)
        given, own = task.observed.params, params and params._asdict()
        truth = arrays(document, given, solver.Params, solver, steps, TRUTH, own)
    if params is None or not document.clean("forcing"):
        return None, []
    _check_motion(document, solver, values.get("observe"), params)
    remarks = solver.check(params, forcing)
    adjoint = values.get("adjoint", StoreAll())
    if isinstance(adjoint, Sampled) and isinstance(task, Gradient):
        remarks += adjoint.remarks(solver, forcing)
    if truth and document.clean("task"):
        remarks += _of_truth(solver.check(params._replace(**truth), forcing), remarks, truth)
    warnings = _noted(document, remarks)
    if document.clean():
        _check_shapes(document, truth, params)
    if not document.clean():
        return None, warnings
    adjoint = adjoint.suited(isinstance(solver, RetracingSolver))
    return Problem(solver, params, forcing, truth, values["observe"], steps, adjoint), warnings


def _check_shapes(document: Document, truth: dict, params: Any):
    """Note params of the observed data that are shaped otherwise than the case's own."""
    known = entries(params)
    for name, value in entries(truth).items():
        own = np.shape(known.get(name, value))
        if np.shape(value) != own:
            text = f"shape {np.shape(value)}, but params.{name} has {own}: give the same shape"
            document.mistake((*TRUTH, *name.split(".")), text)


def _noted(document: Document, remarks: list[Remark]) -> list[str]:
    """Note what forbids a run; give the rest with its place."""
    for remark in remarks:
        if remark.fatal:
            document.mistake(tuple(remark.where.split(".")), remark.text)
    doubts = [(r, document.place(tuple(r.where.split(".")))) for r in remarks if not r.fatal]
    return [f"{place} {remark.where}: {remark.text}" for remark, (*_, place) in doubts]


def _params(document: Document, solver: Solver, steps: int, given: Any):
    """The solver's record of parameters, or None if one is missing or wrong."""
    if not isinstance(given, dict):
        return None
    kind, known = solver.Params, quantities(solver.Params)
    guessed = _names(document, given, solver, ("params",))
    for name in kind._fields:
        if name not in given and name not in kind._field_defaults and name not in guessed:
            quantity = f" ({known[name].name}, {known[name].units})" if name in known else ""
            document.mistake(("params", name), f"{type(solver).__name__} needs this{quantity}")
    values = arrays(document, given, kind, solver, steps, ("params",))
    return kind(**values) if document.clean("params") else None


def _forcing(document: Document, solver: Solver, steps: int, given: Any, params: Any):
    """The solver's record of time series; one series serves all positions of its name."""
    if not given or not isinstance(given, dict):
        return None
    if solver.Forcing is None:
        document.mistake(("forcing",), f"{type(solver).__name__} takes no forcing: leave it out")
        return None
    names, refusal = solver.Forcing._fields, f"{type(solver).__name__} has no forcing"
    guessed = unknown(document, given, names, refusal, ("forcing",))
    values = arrays(document, given, solver.Forcing, solver, steps, ("forcing",))
    for name, series in values.items():
        route, positions = ("forcing", name), np.asarray(getattr(params, name, 0.0))
        if positions.shape == solver.grid.shape:
            positions = np.asarray(0.0)  # a field by the same name: no positions
        if positions.ndim == 2 and series.ndim == 1:
            values[name] = series = np.repeat(series[:, None], len(positions), axis=1)
        if series.shape[:1] != (steps,):
            text = f"shape {series.shape}, but steps is {steps}: give one time slice a step"
            document.mistake(route, text)
        elif positions.ndim == 2 and series.shape[1:] != positions.shape[:1]:
            text = f"{series.shape[1:]} series for the {len(positions)} positions in params.{name}"
            document.mistake(route, f"{text}: give one each, or one for all")
    for name in set(names) - set(given) - guessed - set(solver.Forcing._field_defaults):
        document.mistake(("forcing", name), f"{type(solver).__name__} needs this")
    return solver.Forcing(**values) if document.clean("forcing") else None


def _check_places(document: Document, solver: Solver, receivers: Any):
    """Note receivers out of place."""
    if not isinstance(receivers, Receivers):
        return
    route: Route = ("observe", "positions")
    try:
        places = receivers.places(solver)
    except ValueError as error:
        document.mistake(route, str(error))
        return
    if len(outside := np.flatnonzero(solver.grid.outside(places))):
        first = int(outside[0])
        document.mistake(
            (*route, first),
            f"{len(outside)} of {len(places)} receivers are outside the grid {solver.grid.extent} "
            f"m: number {first} at {places[first].tolist()} m is the first",
        )


def _check_motion(document: Document, solver: Solver, receivers: Any, params: Any):
    """Note a motion that the solver does not have, or not of these params."""
    if not isinstance(receivers, Receivers) or receivers.along is None:
        return
    try:
        receivers.at(np.array([[low for low, _ in solver.grid.extent]]), solver, params)
    except ValueError as error:
        document.mistake(("observe", "along"), str(error))


def _names(document: Document, given: Any, solver: Solver, route: Route) -> set[str]:
    refusal = f"{type(solver).__name__} has no parameter"
    if isinstance(given, dict):
        return unknown(document, given, solver.Params._fields, refusal, route)
    for i, name in enumerate(given):
        if name not in solver.Params._fields:
            text = f"{refusal} {name!r}; {suggestion(name, solver.Params._fields)}"
            document.mistake((*route, i), text)
    return set()


def _of_truth(remarks: list[Remark], known: list[Remark], truth: dict) -> list[Remark]:
    """What is said of the observed data's params alone, at their place in a case."""
    own = []
    for remark in (r for r in remarks if r not in known):
        section, _, name = remark.where.partition(".")
        if section == "params" and name.split(".")[0] in truth:
            remark = remark._replace(where=".".join((*TRUTH, name)))
        own.append(remark._replace(text=f"with the params of the observed data: {remark.text}"))
    return own
