"""The strategy that picks another one: the fastest whose gradient fits in so much memory."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import field
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import jax
import psutil
from jax.custom_derivatives import SymbolicZero
from pydantic import AfterValidator, ByteSize, InstanceOf, TypeAdapter

from diffsim.adjoint.fit.forecast import Forecast, basis_of, forecast, strategies
from diffsim.adjoint.fit.outside import outside
from diffsim.adjoint.fit.trial import Loop, planned_bytes
from diffsim.adjoint.scan import Adjoint, StoreAll
from diffsim.adjoint.steps import Split
from diffsim.adjoint.trail import run
from diffsim.solver import frozen

log = logging.getLogger(__name__)
SHARE = 0.9  # of the free memory: forecasts err by some per cent


def _checked(memory: str | int) -> str | int:
    if memory == "free":
        return memory
    size = TypeAdapter(ByteSize).validate_python(memory)
    if size <= 0:
        raise ValueError("memory must be more than 0 bytes")
    return memory


@frozen
class Fit(Adjoint):
    """The strategy with the fastest gradient that fits in so much memory.

    When a loop is differentiated, a few steps of it are compiled and timed on this machine, and
    what each strategy would take is worked out (`diffsim.adjoint.fit`); one line in the log
    says what was chosen and why. A trial takes some seconds; loops of the same program share it.
    Counted are the loop's arguments, results and all that is kept between, within 10 %; what a loss
    does around the loop comes on top. Under ``jax.vmap`` it is the memory for one example. Steps
    are timed on the loop's own first values, or on ones where these are not known yet, as under
    ``jax.jit``; steps that call the host are not timed, and the fewest evaluations count.

    Args:
        memory: ``"2 GB"``, ``"500 MB"``, ``"2 GiB"``, bytes, or ``"free"``: nine tenths of what is
            free on the device when the loop is differentiated
        folder: for states on disk, if that is faster than what fits in memory; `Disk` says what it
            must be. Outside ``jax.jit`` only, as is the memory of a device's host
    """

    memory: Annotated[str | int, AfterValidator(_checked)]
    folder: Path | None = None

    def loop(self, step, consts, carry, xs, length):
        """Undecided until it is differentiated."""
        return undecided(self.pick, step, consts, carry, xs, length)

    def pick(self, loop: Loop) -> Adjoint:
        """The strategy for a loop."""
        basis = basis_of(loop)
        menu = [forecast(adjoint, loop, basis) for adjoint in strategies(loop)]
        return self.choose(menu + outside(loop, basis, self.folder)).adjoint

    def states(self, length):
        raise TypeError(f"{self!r} has chosen nothing yet: ask the strategy that it chooses")

    def evaluations(self, length):
        raise TypeError(f"{self!r} has chosen nothing yet: ask the strategy that it chooses")

    def choose(self, menu: list[Forecast]) -> Forecast:
        """The fastest that fits; where nothing was timed, the one with the fewest evaluations.

        Raises:
            ValueError: if none fits; it says how much memory is needed at least
        """
        budget = self.bytes
        fitting = [each for each in menu if each.bytes <= budget]
        if not fitting:
            least = min(menu, key=lambda each: each.bytes)
            raise ValueError(
                f"memory={self.memory!r} is {human(budget)}, but the smallest gradient of "
                f"this loop takes {least.bytes} bytes ({human(least.bytes)}), by "
                f"{least.adjoint!r}: give that much, or make the problem smaller"
            )
        best = min(fitting, key=_cost)
        log.info(
            "%r takes %r: %s of %s, %.2f evaluations a step, %.3g s; the fastest of %d that fit",
            self, best.adjoint, human(best.bytes), human(budget), best.evaluations, best.seconds,
            len(fitting),
        )  # fmt: skip
        return best

    @property
    def bytes(self) -> int:
        """The budget."""
        return _free() if self.memory == "free" else _parsed(self.memory)


def foretell(
    by: Callable[[Adjoint], Callable], args: Sequence[Any], own: Sequence[Adjoint] = ()
) -> list[Forecast]:
    """What every strategy would take for a program, all that is around its loop included.

    Nothing but short trials is run. What is around the loop is what the whole program, compiled
    with `StoreAll`, takes more than the loop.

    Args:
        by: gives a program that differentiates one loop by a strategy
        args: of the program, arrays or shapes of arrays
        own: strategies that the list shall begin with
    """
    asked = _Asked(own=tuple(own))
    jax.eval_shape(by(asked), *args)
    if not asked.found:
        raise ValueError("the program differentiates no loop: there is nothing to plan")
    (stored,) = {each.bytes for each in asked.found if isinstance(each.adjoint, StoreAll)}
    around = planned_bytes(jax.jit(by(StoreAll())).lower(*args).compile()) - stored
    return [each._replace(bytes=each.bytes + around) for each in asked.found]


@frozen
class _Asked(Fit):
    """Stands for a strategy where only the forecasts are wanted."""

    memory: str = "free"
    own: tuple[InstanceOf[Adjoint], ...] = ()
    found: InstanceOf[list[Forecast]] = field(default_factory=list)

    def pick(self, loop):
        basis = basis_of(loop)
        adjoints = *self.own, *strategies(loop)
        self.found[:] = [forecast(adjoint, loop, basis) for adjoint in adjoints]
        return StoreAll()


def undecided(pick: Callable[[Loop], Adjoint], step, consts, carry, xs, length: int):
    """A loop whose strategy is picked when, and only if, it is differentiated."""
    cuts = len(consts), len(consts) + len(carry)

    def parts(args):
        return list(args[: cuts[0]]), list(args[cuts[0] : cuts[1]]), list(args[cuts[1] :])

    def flat(out):
        return (*out[0], *out[1])

    @jax.custom_jvp
    def call(*args):
        return flat(run(length, step, *parts(args)))

    def call_jvp(primals, tangents):
        moves = tuple(not isinstance(tangent, SymbolicZero) for tangent in tangents)
        adjoint, moving = pick(Loop(step, *parts(primals), length, moves)), Split(moves)
        rest = moving.rest(primals)

        def smooth(*moved):
            return flat(adjoint.loop(step, *parts(moving.join(moved, rest)), length))

        return jax.jvp(smooth, moving.of(primals), moving.of(tangents))

    call.defjvp(call_jvp, symbolic_zeros=True)
    out = call(*consts, *carry, *xs)
    return list(out[: len(carry)]), list(out[len(carry) :])


def human(size: int) -> str:
    """bytes in words, such as 2.0GB"""
    return ByteSize(size).human_readable(decimal=True)


def _parsed(memory: str | int) -> int:
    return int(TypeAdapter(ByteSize).validate_python(memory))


def _free() -> int:
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(SHARE * (statistics["bytes_limit"] - statistics["bytes_in_use"]))
    return int(SHARE * psutil.virtual_memory().available)


def _cost(each: Forecast):
    """What is to be small: seconds, or evaluations if they are not known; then bytes."""
    return each.evaluations if isnan(each.seconds) else each.seconds, each.bytes
