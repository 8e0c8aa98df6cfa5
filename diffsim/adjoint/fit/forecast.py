"""What each strategy would take for a loop: bytes and seconds, before anything long runs.

A few steps of three or four gradients are compiled and timed (`diffsim.adjoint.fit.trial`). From
there it is counting: a kept state more is one state more, exactly, and a step more brings its
inputs, results and their cotangents. With ``a`` seconds to evaluate a step and ``p`` to transpose
one, a gradient of n steps by checkpoints takes ``a E + p n``, where E is the strategy's own number
of evaluations; the loads of states are in ``p``.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from math import inf, isqrt
from typing import NamedTuple

from diffsim.adjoint.checkpointed import BLOCK, WALKED, Periodic, Revolve
from diffsim.adjoint.fit.trial import Loop, forward, gradient, size
from diffsim.adjoint.multilevel import Multilevel
from diffsim.adjoint.reversible import Reversible
from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scan import Adjoint, StoreAll
from diffsim.adjoint.schedule.plan import fewest_advances
from diffsim.linear import inexact

BLOCKS = BLOCK, BLOCK // 2  # steps in a block of `Revolve`: for speed, and for the least memory
AT_ONCE = 64  # slots up to here are all looked at, then every 4 % more
FEW, MANY = 24, 96  # steps on trial, at least and at most: too few to be watched for growth
STATES_ON_TRIAL = 16_000_000  # bytes
STORED_ON_TRIAL = 64_000_000  # bytes, enough to be beyond a processor's caches


class Forecast(NamedTuple):
    """What a gradient by a strategy would take."""

    adjoint: Adjoint
    states: int  # kept at once
    bytes: int  # on the device: arguments, results and all that is kept between
    evaluations: float  # of a step, for each step; its transpose is not counted
    seconds: float  # nan if a trial must not be run
    host: int = 0  # bytes of the host's memory, if that is not the device's
    disk: int = 0  # bytes of files


class Basis(NamedTuple):
    """What a loop's checkpointed gradients are made of."""

    state: int  # bytes
    kept: Callable[[int], int]  # bytes, while a block of so many steps is reversed
    replayed: int  # bytes, the same of a step where states are kept
    rest: int  # bytes, all but states
    evaluation: float  # s a step
    transpose: float  # s a step


def strategies(loop: Loop) -> Iterator[Adjoint]:
    """All that are worth a look, each with as many states as it may want.

    They do not depend on the memory there is, so more of it never means a slower choice.
    """
    length = loop.length
    yield StoreAll()
    precise = all(leaf.dtype.itemsize >= 8 for leaf in loop.carry if inexact(leaf))
    if (loop.step.undo or loop.step.retrace) and precise:  # in float32 a walk back drifts
        yield Reversible()
    yield Periodic(isqrt(length) + isqrt(length) % 2)  # the fewest states
    for levels in range(1, 5):
        least = (levels + 1) * length ** (1 / (levels + 1))
        yield Multilevel(checkpoints=round(1.1 * least) + levels)
    blocks = BLOCKS if loop.step.unroll else (*BLOCKS, 1)  # a stretch has blocks of its own
    for block in (WALKED, *blocks) if loop.step.retrace else blocks:
        for slots in _ladder(-(-length // block) - 1):
            yield Revolve(slots, block)


def forecast(adjoint: Adjoint, loop: Loop, basis: Basis) -> Forecast:
    """What a strategy would take on the device."""
    match adjoint:
        case StoreAll():
            return _store_all(loop)
        case Reversible():
            return _reversible(adjoint, loop)
        case Sampled():
            return _sampled(adjoint, loop)
        case Periodic() | Revolve():
            return _by_blocks(adjoint, loop, basis)
        case Multilevel():
            plan, evaluations = adjoint.plan(loop.length), adjoint.evaluations(loop.length)
            inner = plan.trips[-1] if plan.levels else plan.length
            kept = plan.states - inner, inner * basis.replayed
            return _from_basis(adjoint, plan.states, *kept, evaluations, loop, basis)
    raise TypeError(f"nothing is known of what {adjoint!r} takes: give a strategy of diffsim")


def basis_of(loop: Loop) -> Basis:
    """From trials of `Revolve` with a slot for each block, and of the run alone."""
    state, each = size(loop.carry), cache(loop.kept)
    steps = _steps_on_trial(loop.length, state, STATES_ON_TRIAL)
    adjoint = Revolve(checkpoints=steps, block=BLOCKS[0])
    plan, tried = adjoint.plan(steps), gradient(loop, adjoint, steps)
    whole = steps - steps % plan.block
    evaluation = forward(loop, whole, plan.block).seconds / whole
    kept = plan.slots * state + each(plan.block)  # the last block's make room for others'
    return Basis(
        state,
        each,
        size(loop.replayed),
        tried.bytes - kept + (loop.length - steps) * _traffic(loop),
        evaluation,
        (tried.seconds - evaluation * plan.step_evaluations(reversal=0)) / steps,
    )


def _steps_on_trial(length: int, each: int, budget: int) -> int:
    steps = min(max(budget // max(each, 1), FEW), MANY)
    return min(steps - steps % BLOCKS[0], length)


def _traffic(loop: Loop) -> int:
    """bytes that come and go with one step: inputs, results, and their cotangents."""
    moved = loop.moves[-len(loop.xs) :] if loop.xs else ()
    ways = [1 + moving for moving in moved]
    ins = sum(way * size([x]) for way, x in zip(ways, loop.xs, strict=True))
    outs = sum((1 + inexact(y)) * size([y]) for y in loop.results[1])
    return (ins + outs) // loop.length


def _by_blocks(adjoint: Periodic | Revolve, loop: Loop, basis: Basis) -> Forecast:
    """In closed form: to make thousands of plans would take too long."""
    suited = adjoint.suited(loop.step.retrace is not None)
    if isinstance(suited, Revolve):
        block, slots = suited.block or BLOCK, suited.checkpoints
    else:
        block, slots = suited.every, loop.length
    block = min(block, loop.length)
    blocks = -(-loop.length // block)
    slots = max(1, min(slots, blocks - 1))
    again = fewest_advances(blocks, slots) - (blocks - 1)  # blocks, besides the forward sweep
    evaluations = loop.length + again * block + (blocks - 1) * (block - 1)
    inside = basis.kept(block) if suited.walk else block * basis.replayed
    states = slots + (2 if suited.walk else block)
    return _from_basis(adjoint, states, slots, inside, evaluations, loop, basis)


def _ladder(most: int) -> Iterator[int]:
    """1, 2, …, ``most``, with gaps of 4 %."""
    slots = 1
    while slots < most:
        yield slots
        slots += 1 + slots // AT_ONCE * 2
    yield max(most, 1)


def _from_basis(adjoint, states, whole, replayed, evaluations, loop, basis: Basis) -> Forecast:
    """From states kept whole, and the bytes kept while a block is reversed."""
    total = basis.rest + whole * basis.state + replayed
    seconds = basis.evaluation * evaluations + basis.transpose * loop.length
    return Forecast(adjoint, states, total, evaluations / loop.length, seconds)


def _store_all(loop: Loop) -> Forecast:
    """Two trials show what a step leaves behind."""
    few = min(FEW, loop.length)
    small = gradient(loop, StoreAll(), few)
    each = small.bytes // few  # at most
    steps = min(max(STORED_ON_TRIAL // max(each, 1), 2 * few), MANY * 4, loop.length)
    large = gradient(loop, StoreAll(), steps) if steps > few else small
    each = (large.bytes - small.bytes) / (steps - few) if steps > few else each
    total = large.bytes + round(each * (loop.length - steps))
    return Forecast(StoreAll(), loop.length, total, 1.0, large.seconds * loop.length / steps)


def _reversible(adjoint: Reversible, loop: Loop) -> Forecast:
    steps = _steps_on_trial(loop.length, size(loop.carry), STATES_ON_TRIAL)
    parts = adjoint.parts(loop.length)
    steps -= steps % parts if steps < loop.length else 0
    # made-up values may drift: no one's worry, and a trial must not call the host
    tried = gradient(loop, replace(adjoint, stretches=parts, drift=inf), steps)
    more = loop.walked(loop.length) - loop.walked(steps)
    total = tried.bytes + (loop.length - steps) * _traffic(loop) + more
    seconds = tried.seconds * loop.length / steps
    states, evaluations = adjoint.states(loop.length), adjoint.evaluations(loop.length)
    return Forecast(adjoint, states, total, evaluations / loop.length, seconds)


def _sampled(adjoint: Sampled, loop: Loop) -> Forecast:
    exposure = size(loop.exposure)
    steps = _steps_on_trial(loop.length, exposure // adjoint.every, STATES_ON_TRIAL)
    steps = min(max(steps - steps % adjoint.every, adjoint.every), loop.length)
    tried = gradient(loop, adjoint, steps)
    states, evaluations = adjoint.states(loop.length), adjoint.evaluations(loop.length)
    more = (states - adjoint.states(steps)) * exposure
    total = tried.bytes + (loop.length - steps) * _traffic(loop) + more
    seconds = tried.seconds * loop.length / steps
    return Forecast(adjoint, states, total, evaluations / loop.length, seconds)
