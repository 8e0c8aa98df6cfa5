"""Schedules on integers alone: a toy machine that knows no physics replays every row."""

import pytest
from checkpoint_schedules import Forward, MultistageCheckpointSchedule, Reverse

from diffsim.adjoint.schedule import binomial, fewest_advances, longest_chain, periodic


def replay(plan):
    """Run a plan on block numbers instead of states; return the blocks in order of reversal."""
    slots = {}
    for block, slot in plan.keep.items():
        assert 0 <= slot < plan.slots
        assert slot not in slots, "the forward sweep keeps one state a slot"
        slots[slot] = block
    reversed_blocks = [plan.blocks - 1]  # from the states that the forward sweep left behind
    for row in plan.rows:
        state = slots[row.slot]
        assert state == row.start, "the state that a row starts from is there"
        state += row.advance
        if row.reverse == 0:
            slots[row.base] = state
        for i in range(row.fill):
            slots[row.base + i] = state
            state += 1
        assert all(0 <= slot < plan.slots for slot in slots), "never more slots than promised"
        for i in range(row.reverse):
            reversed_blocks.append(state)
            if i + 1 < row.reverse:
                state = slots[row.base + row.fill - 1 - i]
    return reversed_blocks


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 40])
def test_every_block_is_reversed_once_in_order_from_a_state_that_was_there(slots):
    for length in range(1, 150):
        assert replay(binomial(length, 1, slots)) == list(reversed(range(length)))


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 40])
def test_evaluations_equal_the_closed_form(slots):
    """t(l, s) + l for every chain: integers, so exactly."""
    for length in range(1, 150):
        expected = fewest_advances(length, slots) + length
        assert binomial(length, 1, slots).evaluations == expected


def test_closed_form_is_the_optimum_over_all_splits():
    """Dynamic programming over every split point, with nothing assumed about the answer."""
    best = {}
    for slots in range(1, 9):
        for length in range(1, 60):
            options = [0] if length == 1 else []
            if slots == 1:
                options = [length * (length - 1) // 2]
            for first in range(1, length if slots > 1 else 1):
                options.append(first + best[length - first, slots - 1] + best[first, slots])
            best[length, slots] = min(options)
            assert fewest_advances(length, slots) == best[length, slots]


@pytest.mark.parametrize(("length", "slots"), [(10, 3), (50, 4), (100, 10), (250, 7), (500, 20)])
def test_agrees_with_the_checkpoint_schedules_library(length, slots):
    """Multistage checkpointing of the reference library takes as many forward steps as ours."""
    oracle = MultistageCheckpointSchedule(length, 0, slots)
    steps = 0
    for action in oracle:
        if isinstance(action, Forward):
            steps += action.n1 - action.n0
        if isinstance(action, Reverse) and action.n0 == 0:
            break
    assert binomial(length, 1, slots).evaluations == steps


@pytest.mark.parametrize("length", [1, 2, 7, 99, 100, 101])
@pytest.mark.parametrize("every", [1, 3, 10, 200])
def test_periodic_replays_every_block_once(length, every):
    plan = periodic(length, every)
    assert replay(plan) == list(reversed(range(plan.blocks)))
    assert plan.evaluations == 2 * plan.blocks - 1  # the last block is not replayed
    assert (plan.blocks - 1) * plan.block + plan.tail == length


@pytest.mark.parametrize("length", [1, 5, 16, 17, 31, 997])
@pytest.mark.parametrize("block", [1, 4, 8])
def test_a_remainder_that_is_no_whole_block_is_the_last_one(length, block):
    plan = binomial(length, block, 3)
    assert 1 <= plan.tail <= plan.block <= block
    assert (plan.blocks - 1) * plan.block + plan.tail == length
    assert replay(plan) == list(reversed(range(plan.blocks)))


def test_figures_of_the_literature():
    """β(s, r) and evaluations per step at n = 1000, Griewank & Walther 2000 and exact counts."""
    assert longest_chain(3, 2) == 10
    assert [longest_chain(38, 3) >= 10_000, longest_chain(37, 3) >= 10_000] == [True, False]
    per_step = {s: round(binomial(1000, 1, s).evaluations / 1000, 2) for s in (10, 20, 44)}
    assert per_step == {10: 4.64, 20: 3.75, 44: 2.95}


def test_a_million_steps_are_planned_at_once():
    """The number of rows, which bounds planning time and the table's size, stays far below n."""
    assert len(binomial(1_000_000, 8, 40).rows) < 25_000
