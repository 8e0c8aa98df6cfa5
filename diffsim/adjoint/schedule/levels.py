"""Multilevel checkpointing: equal stretches within equal stretches, every trip count static.

The forward sweep keeps every k₁-th state; the reversal replays each stretch of k₁ steps and keeps
every k₂-th state of it, replays each of those …, and the last stretches keep the state before every
step. With d levels and trips q_i = k_i / k_(i+1) (k_(d+1) = 1) a run of n steps needs
``n/k₁ + Σ q_i`` states and ``n (1 + Σ (1 - 1/q_i))`` evaluations: two levels reverse
10 000 steps from 65 states with 2.9 evaluations a step. Binomial checkpointing does so with 38, but
in loops of changing length, and those of a known one are what an accelerator runs fastest.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate, count, pairwise
from math import isqrt
from operator import mul
from typing import NamedTuple


class Levels(NamedTuple):
    """Every ``levels[0]``-th state, every ``levels[1]``-th within each stretch, …; every state.

    A length that is no multiple is written in these strides as an amount of money is in coins:
    ``counts[i]`` stretches of ``strides[i]`` steps follow one another, the longest ones first.
    The forward sweep keeps the state before each stretch. Stretches are reversed last to first: one
    of ``strides[i] > 1`` steps is replayed to keep the states before its ``trips[i]`` parts of
    ``strides[i + 1]`` steps, the last of which need not be run; then each part is reversed so.

    Without levels every state is kept; one level is periodic checkpointing.
    """

    length: int  # steps
    levels: tuple[int, ...]  # steps, each a multiple of the next one, all above 1

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps in a stretch, by level; single steps last."""
        return (*self.levels, 1)

    @property
    def trips(self) -> tuple[int, ...]:
        """Parts that a stretch is cut into, by level."""
        return tuple(a // b for a, b in pairwise(self.strides))

    @property
    def counts(self) -> tuple[int, ...]:
        """Stretches of each stride that the run is made of."""
        rests = accumulate(self.levels, lambda rest, stride: rest % stride, initial=self.length)
        return tuple(rest // stride for rest, stride in zip(rests, self.strides, strict=True))

    @property
    def states(self) -> int:
        """States kept at most at one time; the live one comes on top."""
        return max(
            sum(self.counts[: i + 1]) + sum(self.trips[i:])
            for i, count in enumerate(self.counts)
            if count
        )

    def step_evaluations(self, reversal: int) -> int:
        """Step evaluations, where reversing one step evaluates ``reversal`` steps by itself.

        Args:
            reversal: as in `diffsim.adjoint.schedule.plan.Plan.step_evaluations`
        """
        stretches = list(enumerate(zip(self.counts, self.strides, strict=True)))
        replayed = sum(
            count * (stride - stride // trips)
            for i, (count, stride) in stretches
            for trips in self.trips[i:]
        )
        return self.length * (1 + reversal) + replayed


def multilevel(length: int, states: int) -> Levels:
    """The fewest evaluations from so many states (within 2 %); the fewest levels give them.

    Args:
        length: steps in the run, at least 1
        states: states kept at most; e ln(length) are about the fewest that suffice
    """
    fitting = _fitting(length, states)
    if not fitting:
        least = next(more for more in count(states + 1) if _fitting(length, more))
        raise ValueError(
            f"{states} states are too few to reverse {length} steps by multilevel checkpointing: "
            f"at least {least} are needed. Keep more states or use binomial checkpointing."
        )
    return min(fitting, key=lambda plan: (plan.step_evaluations(reversal=0), plan.states))


def _fitting(length: int, states: int) -> list[Levels]:
    """Of the fewest levels for which so many states suffice: every split worth a look."""
    if states >= length:
        return [Levels(length, ())]
    for depth in range(1, length.bit_length()):
        if all_trips := list(_trips(length, states, depth, 2)):
            return [Levels(length, _strides(trips)) for trips in all_trips]
    return []


def _strides(trips: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(accumulate(reversed(trips), mul))[::-1]


def _trips(length: int, states: int, depth: int, least: int) -> Iterator[tuple[int, ...]]:
    """Trips from few to many with ``length // product + sum <= states``.

    Few trips save evaluations: of the last, only the four fewest are tried, since a remainder may
    favour some more. They are the innermost, which run best when they are long.
    """
    if (depth + 1) * length ** (1 / (depth + 1)) > states + 1:  # the least sum for a product
        return
    if depth == 1:
        last = range(least, min(isqrt(length) + 2, length + 1))
        fits = bisect_left(last, True, key=lambda trips: length // trips + trips <= states)
        yield from ((trips,) for trips in last[fits : fits + 4])
        return
    for trips in range(least, states // depth + 1):
        for inner in _trips(length // trips, states - trips, depth - 1, trips):
            yield (trips, *inner)
