"""What a case would take, before anything runs: grid, steps, and bytes and seconds by strategy."""

import math
from collections.abc import Callable, Iterator

import jax

from diffsim.adjoint.checkpointed import Revolve
from diffsim.adjoint.fit.choose import Fit, foretell, human
from diffsim.adjoint.fit.forecast import Forecast
from diffsim.adjoint.scan import Adjoint, StoreAll
from diffsim.case import Loaded
from diffsim.task import Gradient, Problem

HEAD = " ", "strategy", "states", "memory", "evaluations/step", "seconds"


def chosen(loaded: Loaded) -> Forecast | None:
    """What `Fit` picks for a case, or None if the case names its strategy itself."""
    adjoint, task = loaded.problem.adjoint, loaded.case.task
    if not (isinstance(adjoint, Fit) and isinstance(task, Gradient)):
        return None
    return adjoint.choose(foretell(*_program(loaded.problem, task)))


def report(loaded: Loaded) -> Iterator[str]:
    """Lines for a user; ``>`` marks what the case would run by, ``-`` what would not fit."""
    problem, task = loaded.problem, loaded.case.task
    solver = problem.solver
    shape = " x ".join(map(str, solver.grid.shape))
    limit = solver.stable_dt(problem.params)
    yield f"grid   {shape} nodes, {math.prod(solver.grid.shape)} cells"
    yield f"steps  {problem.steps} of {solver.dt:g} s, stable up to {limit:.3g} s"
    yield from (f"doubt  {warning}" for warning in loaded.warnings)
    if not isinstance(task, Gradient):
        yield f"{type(task).__name__} differentiates nothing: no strategy is needed"
        return
    yield f"gradient with respect to {', '.join(task.respect_to)}; a few steps are tried:"
    adjoint, budget = problem.adjoint, math.inf
    if isinstance(adjoint, Fit):
        menu = foretell(*_program(problem, task))
        budget = adjoint.bytes
        best = adjoint.choose(menu) if min(each.bytes for each in menu) <= budget else None
    else:
        menu = foretell(*_program(problem, task), own=[adjoint])
        best = menu[0]
    yield from _table(list(_worth_a_row(menu, budget, best)), budget, best)
    if isinstance(adjoint, Fit) and best is None:
        adjoint.choose(menu)  # says why not


def _program(problem: Problem, task: Gradient) -> tuple[Callable[[Adjoint], Callable], tuple]:
    """The case's gradient by a strategy, and its arguments, the observed data as their shape."""

    def by(adjoint):
        def loss(chosen, params, forcing, observed):
            predicted = problem.data(params._replace(**chosen), forcing, adjoint=adjoint)
            return task.misfit(predicted, observed, problem.solver.dt), predicted

        return jax.value_and_grad(loss, has_aux=True)

    chosen = {name: getattr(problem.params, name) for name in task.respect_to}
    given = problem.params, problem.forcing
    observed = jax.eval_shape(lambda *given: problem.data(*given, adjoint=StoreAll()), *given)
    return by, (chosen, *given, observed)


def _worth_a_row(menu: list[Forecast], budget: float, best: Forecast | None) -> Iterator[Forecast]:
    """All, but of `Revolve` the most states that fit, half of them, …, and the fewest."""
    revolves = [each for each in menu if isinstance(each.adjoint, Revolve) and each is not best]
    yield from (each for each in menu if each not in revolves)
    wanted = max((each.states for each in revolves if each.bytes <= budget), default=0)
    fewest = min(revolves, key=lambda each: each.bytes)
    for each in sorted(revolves, key=lambda each: -each.states):
        if each.states <= wanted and each is not fewest:
            yield each
            wanted = each.states // 2
    yield fewest


def _table(rows: list[Forecast], budget: float, best: Forecast | None) -> Iterator[str]:
    cells: list[tuple[str, ...]] = [HEAD]
    for each in rows:
        mark = ">" if each is best else "-" if each.bytes > budget else " "
        seconds = "unknown" if math.isnan(each.seconds) else f"{each.seconds:.3g}"
        words = str(each.states), human(each.bytes), f"{each.evaluations:.2f}", seconds
        cells.append((mark, repr(each.adjoint), *words))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for mark, name, *numbers in cells:
        right = (number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True))
        yield "  ".join([mark, name.ljust(widths[1]), *right])
