"""Online checkpointing on integers alone: at every block the run might end and be reversed."""

from itertools import pairwise

import pytest

from diffsim.adjoint.schedule.online import advances, binomials, empty, given_up, keep, next_row
from diffsim.adjoint.schedule.splits import fewest_advances, longest_chain

SLOTS = [1, 2, 3, 4, 5, 8, 12]


def sweeps(slots, longest):
    """What is kept when a run ends after 1, 2, … blocks."""
    table = binomials(longest, slots)
    kept = empty(slots)
    for blocks in range(1, longest + 1):
        yield blocks, kept
        j = given_up(kept, blocks - 1, table)
        kept = keep(kept, blocks - 1, j)


def evaluations(kept, blocks, slots):
    """Of the sweep, of reversing each gap in the best way, and one for each block."""
    gaps = [b - a for a, b in pairwise((*kept, blocks - 1))]
    again = sum(fewest_advances(gap, slots - i) for i, gap in enumerate(gaps))
    return blocks - 1 + again + blocks


def reverse(kept, blocks, slots, table):
    """Run the reversal on a machine with real slots; return evaluations and order of blocks.

    The last block is reversed from the live state; a state that is read must be there.
    """
    memory = dict(zip(kept.slots[: kept.count], kept.blocks[: kept.count], strict=True))
    starts = list(kept.blocks[: kept.count])
    order, done, end = [blocks - 1], blocks, blocks - 1
    while end:
        rank = len(starts) - 1
        row = next_row(starts[-1], rank, end, slots, table)
        state = memory[kept.slots[row.slot]]
        assert state == row.start == starts[-1]
        state += row.advance
        done += row.advance + row.fill + row.reverse
        if not row.reverse:
            memory[kept.slots[row.base]] = state
            starts.append(state)
            continue
        for i in range(row.fill):
            memory[kept.slots[row.base + i]] = state
            state += 1
        for i in range(row.reverse):
            order.append(state)
            if i + 1 < row.reverse:
                state = memory[kept.slots[row.base + row.fill - 1 - i]]
        assert set(memory) <= set(range(slots))
        end = starts[-1] + row.advance
        if not row.advance:
            starts.pop()
    return done, order


@pytest.mark.parametrize("slots", SLOTS)
def test_a_run_that_ends_anywhere_is_reversed_from_what_was_kept(slots):
    """In order, from states that are there, with as many evaluations as the gaps need at least."""
    table = binomials(150, slots)
    for blocks, kept in sweeps(slots, 150):
        done, order = reverse(kept, blocks, slots, table)
        assert order == list(reversed(range(blocks)))
        assert done == evaluations(kept.blocks[: kept.count], blocks, slots)


@pytest.mark.parametrize("slots", SLOTS)
def test_slots_hold_different_states_and_each_is_in_one(slots):
    """A slot is overwritten only by the state of the block that has just ended."""
    memory = {}
    for blocks, kept in sweeps(slots, 300):
        assert sorted(kept.slots) == list(range(slots))
        assert kept.count == min(blocks - 1, slots)
        now = dict(zip(kept.slots[: kept.count], kept.blocks[: kept.count], strict=True))
        assert list(now.values()) == sorted(set(now.values()))
        changed = {slot for slot in now if now[slot] != memory.get(slot)}
        assert all(now[slot] == blocks - 2 for slot in changed)
        assert len(changed) <= 1
        memory = now


@pytest.mark.parametrize("slots", SLOTS)
def test_optimal_as_long_as_any_online_rule_is_and_near_it_beyond(slots):
    """Equal to the optimum of a known length up to (c+1)(c+2)/2 + 1 blocks, exactly.

    Beyond, the largest ratio was measured: 1.102 with two slots (at 35 blocks), 1.051 with three
    (at 92), less with more; one slot leaves nothing to choose.
    """
    for blocks, kept in sweeps(slots, 300):
        ours = evaluations(kept.blocks[: kept.count], blocks, slots)
        best = fewest_advances(blocks, slots) + blocks
        if slots == 1 or blocks <= longest_chain(slots, 2) + 1:
            assert ours == best
        else:
            assert best <= ours < (1.105 if slots == 2 else 1.055) * best


def longest_optimal_run(slots, longest):
    """Up to how many blocks some online rule is optimal whenever the run ends; all are tried."""
    reachable = {(): None}
    for blocks in range(1, longest + 1):
        best = fewest_advances(blocks, slots) + blocks
        optimal = [kept for kept in reachable if evaluations(kept, blocks, slots) == best]
        if not optimal:
            return blocks - 1
        reachable = {}
        for kept in optimal:
            more = (*kept, blocks - 1)
            if len(more) <= slots:
                reachable[more] = None
            for j in range(1, len(more)):
                reachable[more[:j] + more[j + 1 :]] = None
    raise AssertionError("no end was found")


@pytest.mark.parametrize("slots", [2, 3, 4, 5])
def test_no_online_rule_is_optimal_for_longer(slots):
    """Exhaustive: every state may be kept or not, any other may be given up for it."""
    assert longest_optimal_run(slots, 60) == longest_chain(slots, 2) + 1


def test_table_gives_the_closed_form_within_32_bits():
    for slots in (2, 5, 20):
        table = binomials(2000, slots)
        assert all(0 <= beta < 2**31 for row in table for beta in row)
        for free in range(2, slots + 1):
            for length in (1, 2, 3, 10, 99):
                assert advances(length, free, table) == fewest_advances(length, free)


def test_a_bound_far_beyond_the_run_costs_no_memory_and_changes_nothing():
    """A table for 10⁹ blocks serves a run of 200 as well as one made for it."""
    for slots in (2, 5):
        wide = binomials(10**9, slots)
        assert len(wide) * len(wide[0]) < 10_000
        kept = empty(slots)
        for blocks, narrow in sweeps(slots, 200):
            assert kept == narrow
            kept = keep(kept, blocks - 1, given_up(kept, blocks - 1, wide))
