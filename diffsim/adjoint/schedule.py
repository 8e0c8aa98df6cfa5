"""When to keep which state: binomial checkpointing on integers alone.

A chain of ``length`` blocks is reversed with ``slots`` kept states (the first one included). With
``β(s, r) = C(s + r, s)``, the longest chain that s slots reverse when no block is advanced more
than r times, the least number of block advances is ``t(l, s) = r l - β(s + 1, r - 1)``, r the
smallest integer with ``β(s, r) >= l``; the l evaluations that reversing itself needs come on top
(Griewank & Walther 2000, Algorithm 799, ACM TOMS 26, eq. 3 and Theorem 6.1).
"""

from collections.abc import Iterator
from math import comb
from typing import NamedTuple


class Row(NamedTuple):
    """One macro-action of a reversal; all in blocks.

    Load ``slot`` (the state before block ``start``), advance ``advance`` blocks; then either keep
    the state in the next slot (``reverse == 0``), or ``fill`` further slots, advancing one block
    after each, and reverse ``reverse`` blocks: the live one, then those kept in the slots below.
    """

    start: int
    slot: int
    advance: int
    fill: int
    reverse: int

    @property
    def base(self) -> int:
        """The slot that belongs to the state after ``advance``."""
        return self.slot + (self.advance > 0)


class Plan(NamedTuple):
    """How a run of ``length`` steps is remembered.

    The run is cut into ``blocks`` of ``block`` steps, the last of ``tail`` steps. The forward sweep
    keeps the state before block ``j`` in slot ``keep[j]`` and every state of the last block; then
    the last block is reversed, then ``rows`` reverse the others.
    """

    length: int  # steps
    block: int  # steps
    slots: int
    keep: dict[int, int]  # block -> slot
    rows: tuple[Row, ...]

    @property
    def blocks(self) -> int:
        return -(-self.length // self.block)

    @property
    def tail(self) -> int:
        """Steps in the last block, 1 … block."""
        return self.length - (self.blocks - 1) * self.block

    @property
    def evaluations(self) -> int:
        """Block evaluations: the forward sweep, plain advances, and one for each reversed block.

        The last block is not evaluated again: the forward sweep has left its states behind.
        """
        return self.blocks + sum(row.advance + row.fill + row.reverse for row in self.rows)


def longest_chain(slots: int, repeats: int) -> int:
    """β(s, r): blocks that ``slots`` states reverse if none is advanced over ``repeats`` times."""
    return comb(slots + repeats, slots) if min(slots, repeats) >= 0 else 0


def repeats(length: int, slots: int) -> int:
    """The smallest r with β(slots, r) >= length."""
    r = 0
    while longest_chain(slots, r) < length:
        r += 1
    return r


def fewest_advances(length: int, slots: int) -> int:
    """t(l, s): the least number of block advances; the l reversals are not counted."""
    r = repeats(length, slots)
    return r * length - longest_chain(slots + 1, r - 1)


def split(length: int, slots: int) -> int:
    """How far to advance before keeping the next state.

    Every split from ``max(β(s, r-2), l - β(s-1, r))`` to ``min(β(s, r-1), l - β(s-1, r-1))`` is
    optimal; the largest one leaves the fewest rows of all single rules that were tried.
    """
    r = repeats(length, slots)
    return min(longest_chain(slots, r - 1), length - longest_chain(slots - 1, r - 1))


def _rows(length: int, slots: int) -> Iterator[Row]:
    """The whole reversal, depth first and from the right; a chain's depth is its slot."""
    pending = [(0, length, 0, 0)]  # start, length, slot of the state to load, advance
    while pending:
        start, chain, slot, advance = pending.pop()
        free = slots - slot - (advance > 0)
        if chain <= free + 1:  # the live state needs no slot
            yield Row(start, slot, advance, chain - 1, chain)
            continue
        if advance:
            yield Row(start, slot, advance, 0, 0)
            start, slot, advance = start + advance, slot + 1, 0
        left = split(chain, free)
        pending.append((start, left, slot, 0))
        pending.append((start, chain - left, slot, left))


def binomial(length: int, block: int, slots: int) -> Plan:
    """The plan with the fewest evaluations for so many slots.

    Args:
        length: steps in the run, at least 1
        block: steps in a block
        slots: states kept at most, at least 1
    """
    block = min(block, length)
    blocks = -(-length // block)
    slots = max(1, min(slots, blocks - 1))
    rows = list(_rows(blocks, slots))
    keep = {0: 0} if blocks > 1 else {}
    done = 0
    for row in rows:  # the forward sweep: down to the first block that is reversed
        done += 1
        top = row.start + row.advance
        if not row.reverse:
            keep[top] = row.base
            continue
        keep |= {top + i: row.base + i for i in range(row.fill)}
        if row.fill:  # the last block is reversed from the forward sweep; these come next
            last = row.fill - 1
            rows[done - 1] = Row(top + last, row.base + last, 0, 0, row.fill)
            done -= 1
        break
    return Plan(length, block, slots, keep, tuple(rows[done:]))


def periodic(length: int, every: int) -> Plan:
    """Keep the state before every ``every``-th step: all blocks, each replayed once."""
    return binomial(length, every, slots=-(-length // every))
