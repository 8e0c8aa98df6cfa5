"""What a run is for, and the programs that do it."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from annotated_types import MinLen
from pydantic import InstanceOf

from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scan import Adjoint, StoreAll
from diffsim.blow_up import BlowUp, first_non_finite
from diffsim.fields import Entry, Home
from diffsim.misfit import Misfit
from diffsim.observe import Receivers
from diffsim.progress import Progress, lose, tick
from diffsim.simulate import simulate
from diffsim.solver import Record, Solver, entries, frozen

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """A case as objects and arrays."""

    solver: Solver
    params: Record
    forcing: Record
    truth: dict[str, Any]  # params that made the observed data, those that differ
    observe: Receivers
    steps: int
    adjoint: Adjoint

    def data(self, params: Record, forcing: Record, **how) -> Any:
        """What is observed of a run."""
        how = {"steps": self.steps, "forcing": forcing, "adjoint": self.adjoint, **how}
        return simulate(self.solver, params, self.observe.on(self.solver, params), **how)[1]

    def blow_up(self, name: str) -> BlowUp | None:
        """Where the run for the predicted or the observed data stopped being finite."""
        truth = self.truth if name == "observed" else {}
        params = self.params._replace(**truth)
        return first_non_finite(self.solver, params, steps=self.steps, forcing=self.forcing)


class Outcome(NamedTuple):
    """What a task computed."""

    data: dict[str, np.ndarray]  # predicted, observed: [step, receiver]
    gradient: dict[str, np.ndarray]  # by name of the parameter, as in `entries`
    metrics: dict[str, float]
    lost: tuple[str, ...]  # the data of runs whose last state was not finite


class Timing(NamedTuple):
    """How long a program took, and what XLA plans to allocate for it besides its arguments.

    A program that Python drives compiles its pieces while it runs, and has no such plan.
    """

    compile: float  # s
    run: float  # s
    bytes: float  # nan if not known
    lost: bool  # the last state was not finite


class Task(ABC):
    """What a run is for."""

    @abstractmethod
    def run(self, problem: Problem) -> Outcome:
        """Compute it."""


@frozen
class Forward(Task):
    """Predict the data."""

    def run(self, problem):
        """One forward run."""
        args = problem.params, problem.forcing
        predicted, timing = _timed("forward", problem.data, args, problem.steps)
        metrics = {"compile_s": timing.compile, "forward_s": timing.run}
        lost = ("predicted",) if timing.lost else ()
        return Outcome({"predicted": np.asarray(predicted)}, {}, metrics, lost)


@frozen
class Simulated:
    """Observed data that are a simulation with other parameters.

    Args:
        params: the parameters that differ from the case's own
    """

    params: dict[str, Entry]


@frozen
class Gradient(Task):
    """The misfit between predicted and observed data, and its gradient.

    Args:
        misfit: between the data
        respect_to: names of the parameters
        observed: the data; those of the case's own parameters if a misfit needs none
    """

    misfit: Annotated[InstanceOf[Misfit], Home("diffsim.misfit")]
    respect_to: Annotated[tuple[str, ...], MinLen(1)]
    observed: Annotated[Simulated, Home("diffsim.task")] = Simulated({})

    def run(self, problem):
        """A forward run for the observed data, then misfit, prediction and gradient in one."""
        truth = problem.params._replace(**problem.truth)
        args = truth, problem.forcing
        observed, forward = _timed("forward", problem.data, args, problem.steps)

        def loss(chosen, params, forcing, observed, **how):
            predicted = problem.data(params._replace(**chosen), forcing, **how)
            return self.misfit(predicted, observed, problem.solver.dt), predicted

        chosen = {name: getattr(problem.params, name) for name in self.respect_to}
        args = chosen, problem.params, problem.forcing, observed
        total = problem.adjoint.evaluations(problem.steps)
        reversed_too = 0 if isinstance(problem.adjoint, StoreAll) else problem.steps
        ((misfit, predicted), gradient), backward = _timed(
            "gradient",
            jax.value_and_grad(loss, has_aux=True),
            args,
            total + reversed_too,
            problem.adjoint.compiles,
        )
        metrics = {
            "misfit": float(misfit),
            "gradient_norm": float(
                np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in jax.tree.leaves(gradient)))
            ),
            "compile_s": forward.compile + backward.compile,
            "forward_s": forward.run,
            "gradient_s": backward.run,
            "gradient_over_forward": backward.run / forward.run,
            "evaluations_per_step": total / problem.steps,
            "states_kept": problem.adjoint.states(problem.steps),
            "temporary_bytes": backward.bytes,
            "store_all_bytes": _residual_bytes(loss, args),
        }
        if isinstance(problem.adjoint, Sampled):
            aliased = problem.adjoint.aliased(problem.solver, problem.forcing)  # pyright: ignore
            metrics["image_aliased"] = aliased
        data = {"predicted": np.asarray(predicted), "observed": np.asarray(observed)}
        gradient = {k: np.asarray(g) for k, g in entries(gradient).items()}
        runs = {"observed": forward, "predicted": backward}
        return Outcome(data, gradient, metrics, tuple(k for k, run in runs.items() if run.lost))


def _timed(
    label: str, program: Callable, args: Sequence, total: int, compiles: bool = True
) -> tuple[Any, Timing]:
    """A program's result; it is compiled first, so that compiling and running are timed apart."""
    progress = Progress(label, total)
    start = time.perf_counter()
    program, size = partial(program, tick=tick, watch=lose), np.nan
    if compiles:
        log.info("%s: compiling", label)
        program = jax.jit(program).lower(*args).compile()
        memory = program.memory_analysis()
        size = memory.temp_size_in_bytes if memory else 0
    compile_s = time.perf_counter() - start
    with progress:
        start = time.perf_counter()
        result = jax.block_until_ready(program(*args))
        run_s = time.perf_counter() - start
        jax.effects_barrier()
    return result, Timing(compile_s, run_s, size, progress.lost)


def _residual_bytes(loss: Callable, args: Sequence) -> int:
    """What a gradient that stores all would keep between its passes; nothing is computed."""
    chosen, *others = args

    def transpose(chosen):
        return jax.vjp(lambda c: loss(c, *others, adjoint=StoreAll())[0], chosen)[1]

    residuals = jax.tree.leaves(jax.eval_shape(transpose, chosen))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in residuals)
