"""Schedules on integers alone: a toy machine that knows no physics replays every row."""

import heapq
from itertools import count

import pytest
from checkpoint_schedules import Forward, MultistageCheckpointSchedule, Reverse

from diffsim.adjoint.schedule.plan import binomial, periodic
from diffsim.adjoint.schedule.splits import fewest_advances, longest_chain, split


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
    for length in [*range(1, 150), 1000]:
        assert replay(binomial(length, 1, slots)) == list(reversed(range(length)))


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 40])
def test_evaluations_equal_the_closed_form(slots):
    """t(l, s) + l for every chain: integers, so exactly."""
    for length in [*range(1, 150), 1000]:
        expected = fewest_advances(length, slots) + length
        assert binomial(length, 1, slots).evaluations == expected


def over_all_splits(longest, most_slots):
    """Fewest (advances, rows) by dynamic programming over every split, nothing assumed.

    Of a whole reversal, and of what is left of it after the forward sweep, which keeps states on
    its way and leaves the last block's behind.
    """
    whole, after_sweep = {(1, 0): (0, 1)}, {(1, 0): (0, 0)}
    for slots in range(1, most_slots + 1):
        for length in range(1, longest + 1):
            options = []
            if length <= slots + 1:
                options.append((length - 1, 1, length > 1))
            for left in range(1, length):
                right = length - left, slots - 1
                if right not in whole or (left, slots) not in whole:
                    continue
                advances, rows = (
                    a + b for a, b in zip(whole[right], whole[left, slots], strict=True)
                )
                keeps = length - left > slots  # else the advance and the reversal are one row
                swept = after_sweep[right][1] + whole[left, slots][1]
                options.append((left + advances, rows + keeps, swept))
            if options:
                fewest = min(advances for advances, _, _ in options)
                best = [option for option in options if option[0] == fewest]
                whole[length, slots] = fewest, min(rows for _, rows, _ in best)
                after_sweep[length, slots] = fewest, min(rows for _, _, rows in best)
    return whole, after_sweep


def test_advances_and_then_rows_are_the_fewest_over_all_splits():
    """Both exactly, over the whole reversal and over the part that a plan stores as rows."""
    whole, after_sweep = over_all_splits(110, 10)
    rows = {(1, 0): 1}
    for slots in range(1, 11):
        for length in range(1, 111):
            rows[length, slots] = 1
            if length > slots + 1:
                left = split(length, slots)
                right = length - left
                rows[length, slots] = rows[left, slots] + rows[right, slots - 1] + (right > slots)
            advances = fewest_advances(length, slots)
            assert (advances, rows[length, slots]) == whole[length, slots]
            if length > slots:
                plan = binomial(length, 1, slots)
                assert len(plan.rows) == after_sweep[length, slots][1]


def fewest_evaluations(length, slots, reversal):
    """Dijkstra's search over all that a machine may do: advance, keep, load, drop, reverse.

    A machine is where the live state is, which states are kept, and the blocks not yet reversed.
    The forward sweep comes first and ends with the live state before the last block.
    """
    order = count()
    queue = [(0, next(order), (0, frozenset(), length, False))]
    seen = set()
    while queue:
        cost, _, machine = heapq.heappop(queue)
        if machine in seen:
            continue
        seen.add(machine)
        live, kept, end, swept = machine
        if end == 0:
            return cost
        swept = swept or live == end - 1
        moves = [(0, (state, kept, end, swept)) for state in kept if swept and state < end]
        moves += [(0, (live, kept - {state}, end, swept)) for state in kept]
        if live < end and len(kept) < slots:
            moves.append((0, (live, kept | {live}, end, swept)))
        if live < end - 1:
            moves.append((1, (live + 1, kept, end, swept)))
        if live == end - 1:
            moves.append((reversal, (live, kept, live, swept)))
        for more, after in moves:
            heapq.heappush(queue, (cost + more, next(order), after))
    raise AssertionError("cannot be reversed")


@pytest.mark.parametrize("reversal", [0, 1])
def test_the_same_plan_is_the_best_whether_or_not_a_reversal_evaluates_the_step(reversal):
    """Exhaustive search over all sequences of moves of a machine, not only over recursive splits.

    The plan's forward sweep evaluates the last block too, for the result of the run: one more.
    """
    for slots in (1, 2, 3):
        for length in range(1, 8):
            fewest = fewest_evaluations(length, slots, reversal)
            assert fewest == fewest_advances(length, slots) + reversal * length
            assert binomial(length, 1, slots).step_evaluations(reversal) == fewest + 1


@pytest.mark.parametrize("reversal", [0, 1])
@pytest.mark.parametrize(
    ("length", "block", "slots"), [(1, 8, 2), (97, 8, 3), (64, 8, 2), (50, 1, 4)]
)
def test_steps_are_those_that_a_machine_runs(length, block, slots, reversal):
    """Counted step by step: sweep, advances, replays that leave a block's states, reversals."""
    plan = binomial(length, block, slots)
    steps = plan.length + reversal * plan.tail
    for row in plan.rows:
        steps += (row.advance + row.fill) * plan.block
        for _ in range(row.reverse):
            states = [0]  # loaded or live
            while len(states) < plan.block:
                states.append(states[-1] + 1)
                steps += 1
            steps += reversal * len(states)
    assert plan.step_evaluations(reversal) == steps


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


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 10, 40, 200])
def test_a_plan_of_a_million_blocks_takes_the_fewest_evaluations(slots):
    """By the closed form, at a size that no search reaches."""
    plan = binomial(1_000_000, 1, slots)
    assert plan.evaluations == fewest_advances(1_000_000, slots) + 1_000_000


def test_rows_are_few():
    """They bound the table's size and are what each loop over a plan costs beside the steps."""
    assert len(binomial(1000, 1, 20).rows) == 118
    assert len(binomial(1_000_000, 8, 40).rows) == 16_512
