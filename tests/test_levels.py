"""Multilevel checkpointing on integers alone: a toy machine reverses stretches of known length."""

from itertools import combinations_with_replacement
from math import prod

import pytest

from diffsim.adjoint.schedule.levels import Levels, multilevel

PLANS = [
    Levels(1, ()),
    Levels(9, ()),
    Levels(100, (10,)),
    Levels(7, (10,)),
    Levels(1000, (100, 10)),
    Levels(1003, (100, 10)),
    Levels(996, (60, 12)),
    Levels(259, (60, 20, 4)),
    Levels(19, (60, 20, 4)),
]


class Machine:
    """Counts what it evaluates and keeps, and remembers in which order it reversed."""

    def __init__(self, plan):
        self.plan = plan
        self.evaluated = self.most = 0
        self.reversed_steps = []

    def run(self):
        kept = []
        start = 0
        for stride, count in zip(self.plan.strides, self.plan.counts, strict=True):
            for _ in range(count):
                kept.append((start, stride))
                start += stride
        self.evaluated += start
        self.reverse(kept, 0)

    def reverse(self, kept, others):
        """Reverse stretches, given by the state before each, last to first."""
        kept = list(kept)
        while kept:
            self.most = max(self.most, others + len(kept))
            start, stride = kept[-1]
            if stride == 1:
                self.reversed_steps.append(start)
            else:
                part = self.plan.strides[self.plan.strides.index(stride) + 1]
                parts = [(start + i, part) for i in range(0, stride, part)]
                self.evaluated += stride - part
                self.reverse(parts, others + len(kept))
            kept.pop()


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_every_step_is_reversed_once_in_order_with_states_and_evaluations_as_promised(plan):
    machine = Machine(plan)
    machine.run()
    assert machine.reversed_steps == list(reversed(range(plan.length)))
    assert machine.most == plan.states
    assert machine.evaluated == plan.step_evaluations(reversal=0)
    assert machine.evaluated + plan.length == plan.step_evaluations(reversal=1)


def by_hand(length, trips):
    """States and evaluations from the definition, for the run and each of its remainders."""
    strides = [prod(trips[i:]) for i in range(len(trips) + 1)]
    evaluations = rest = length
    for i, stride in enumerate(strides):
        replays = sum(stride - stride // parts for parts in trips[i:])
        evaluations += rest // stride * replays
        rest %= stride
    return length // strides[0] + sum(trips), evaluations


@pytest.mark.parametrize("length", [2, 3, 10, 31, 64, 100, 257])
def test_split_has_the_fewest_evaluations_of_all(length):
    """Against every multiset of trips up to six levels, in ascending order.

    Within 2 %: a remainder may favour trips beyond those that are tried.
    """
    for states in range(2 if length == 2 else 3, min(length, 24) + 1):
        options = [
            by_hand(length, trips)
            for depth in range(7)
            for trips in combinations_with_replacement(range(2, states), depth)
            if sum(trips) < states and prod(trips) <= length
        ]
        fitting = [evaluations for kept, evaluations in options if kept <= states]
        if not fitting:
            with pytest.raises(ValueError, match="too few"):
                multilevel(length, states)
            continue
        plan = multilevel(length, states)
        assert plan.states <= states
        assert min(fitting) <= plan.step_evaluations(0) <= 1.02 * min(fitting)


def test_two_levels_reverse_ten_thousand_steps_from_65_states():
    """3 n^(1/3) states for less than three evaluations a step; one level needs 2 n^(1/2)."""
    assert len(multilevel(10_000, 65).levels) == 2
    assert multilevel(10_000, 65).step_evaluations(0) < 3 * 10_000
    assert len(multilevel(10_000, 200).levels) == 1
    assert multilevel(10_000, 200).step_evaluations(0) < 2 * 10_000
    assert len(multilevel(10_000, 199).levels) == 2


def test_too_few_states_are_refused_with_the_least_that_suffice():
    with pytest.raises(ValueError, match="at least 37 are needed"):
        multilevel(1_000_000, 9)
    assert multilevel(1_000_000, 37).states == 37
