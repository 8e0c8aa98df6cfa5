"""Online checkpointing: which states to keep while the number of blocks is not known yet.

At every block the run may end, so the kept states must always be good ones to reverse from. When
the slots are full and a block is begun, the state before the block that has just ended is kept in
exchange for that one whose loss costs the fewest advances if the run ended now; the earliest one
among equals. This is optimal for all n <= (c + 1) (c + 2) / 2 + 1 blocks with c slots, the longest
run for which any online rule can be (exhaustive search for c <= 5; Stumm & Walther 2010, SIAM J.
Sci. Comput. 32(2), reach one block less). Beyond, the evaluations measured are at most 1.11 (two
slots) or 1.06 (three and more) times the optimum of a known length, up to 30 000 blocks; the usual
rule there (Wang, Moin & Iaccarino 2009, SIAM J. Sci. Comput. 31(4)) bounds how often a block is
advanced, not the sum.

Everything is written so that it runs on traced integers as well: arrays of ``slots`` entries and a
table of binomials, of which each decision looks up one row for each slot. The last block, whose
state before it is live when the run ends, needs no slot.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from diffsim.adjoint.schedule.plan import Row
from diffsim.adjoint.schedule.splits import longest_chain, repeats

LARGEST = 2**31 - 1  # 32-bit integer
COLUMNS = 1024  # of the table of binomials: repeats that nobody can afford
Table = Sequence[Sequence[int]]


class Kept(NamedTuple):
    """The states kept so far: the first ``count`` entries, in the order of time.

    Beyond ``count`` stand the free slots.
    """

    blocks: tuple[int, ...]  # the block that begins with the state
    slots: tuple[int, ...]  # where it is; a permutation
    count: int


def empty(slots: int) -> Kept:
    """Nothing is kept."""
    return Kept((0,) * slots, tuple(range(slots)), 0)


def binomials(blocks: int, slots: int) -> Table:
    """``table[s][r] = β(s, r - 1)``, clipped to 32 bits, for s to slots + 1 and r from 0.

    Short chains at the end are advanced more often than in an optimal plan, hence three times the
    repeats. Chains beyond the table are still reversed, with more evaluations than needed.

    Args:
        blocks: the most there can be
        slots: states kept at most
    """
    columns = min(3 * repeats(blocks, slots) + 8, COLUMNS)
    return [
        [min(longest_chain(s, r - 1), LARGEST) for r in range(columns)] for s in range(slots + 2)
    ]


def repeats_of(length: int, slots: int, table: Table) -> int:
    """The smallest r with β(slots, r) >= length."""
    return sum(beta < length for beta in table[slots]) - 1


def advances(length: int, slots: int, table: Table) -> int:
    """t(l, s), the fewest advances that reverse a chain."""
    r = repeats_of(length, slots, table)
    return r * length - table[slots + 1][r]


def given_up(kept: Kept, block: int, table: Table) -> int:
    """Which of the kept states, 1, 2, …, makes room for the one before ``block``.

    To be asked when ``block + 1`` is begun. While a slot is free the answer is that slot's place,
    ``count``; later ``count`` means that the new state itself is not kept. Of the chains that are
    left, those before the state given up have as many slots as they had, the two around it become
    one, and those after it have one slot more.
    """
    slots = len(kept.blocks)
    if kept.count < slots:
        return kept.count
    gaps = [b - a for a, b in pairwise((*kept.blocks, block, block + 1))]
    stay = [advances(gap, slots - i, table) for i, gap in enumerate(gaps[:-2])]
    moved = [advances(gap, slots - i + 1, table) for i, gap in enumerate(gaps) if i >= 2]
    merged = [advances(a + b, slots - i, table) for i, (a, b) in enumerate(pairwise(gaps))]
    before = list(accumulate(stay, initial=0))
    after = list(accumulate(reversed(moved), initial=0))[::-1]
    total = [sum(parts) for parts in zip(before, merged, after, strict=True)]
    return 1 + total.index(min(total))


def keep(kept: Kept, block: int, j: int) -> Kept:
    """Give up the j-th state and keep the one before ``block`` in its slot, the last one now."""
    full = len(kept.blocks)
    if j == full:
        return kept
    last = min(kept.count, full - 1)
    order = [*range(j), *range(j + 1, last + 1), j, *range(last + 1, full)]
    blocks = [kept.blocks[i] for i in order]
    blocks[last] = block
    return Kept(tuple(blocks), tuple(kept.slots[i] for i in order), last + 1)


def split(length: int, slots: int, table: Table) -> int:
    """Where to cut a chain of at least slots + 2 blocks, as `largest_split` does."""
    r = repeats_of(length, slots, table)
    left = min(table[slots][r], length - table[slots - 1][r])
    return length - 1 if slots == 1 else left


def next_row(start: int, rank: int, end: int, slots: int, table: Table) -> Row:
    """The next macro-action of a reversal of which the blocks before ``end`` are left to do.

    The last state kept among these is the one before block ``start``, the ``rank``-th in the order
    of time; the row counts its slots in that order too. After a row that reverses, ``end`` is
    ``start + advance``, and if it did not advance, its state has been used up. After one that does
    not, one more state is kept.
    """
    chain, free = end - start, slots - rank
    if chain <= free + 1:
        return Row(start, rank, 0, chain - 1, chain)
    left = split(chain, free, table)
    right = chain - left
    if right <= free:
        return Row(start, rank, left, right - 1, right)
    return Row(start, rank, left, 0, 0)
