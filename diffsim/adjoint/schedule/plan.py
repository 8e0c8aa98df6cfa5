"""When to keep which state: binomial checkpointing on integers alone.

The plan with the fewest evaluations is the one of Griewank & Walther (2000, Algorithm 799, ACM TOMS
26); among the many that reach it, one with the fewest rows is taken (`splits`).
"""

from itertools import pairwise
from typing import NamedTuple

from diffsim.adjoint.schedule.splits import fewest_advances as fewest_advances
from diffsim.adjoint.schedule.splits import longest_chain as longest_chain
from diffsim.adjoint.schedule.splits import split


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


class Columns(NamedTuple):
    """Rows by column: a million of them are made, and handed to an array library, at once."""

    start: list[int]
    slot: list[int]
    advance: list[int]
    fill: list[int]
    reverse: list[int]

    def append(self, row: Row) -> None:
        """One more row at the end."""
        for column, value in zip(self, row, strict=True):
            column.append(value)

    def extend(self, rows: "Columns", start: int) -> None:
        """The rows of another reversal, which starts at block ``start`` and one slot higher."""
        self.start.extend([start + block for block in rows.start])
        self.slot.extend([1 + slot for slot in rows.slot])
        for column, values in zip(self[2:], rows[2:], strict=True):
            column.extend(values)


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
    columns: Columns

    @property
    def rows(self) -> tuple[Row, ...]:
        """The reversal, one macro-action after the other."""
        return tuple(map(Row, *self.columns))

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
        return self.blocks + sum(map(sum, self.columns[2:]))

    def step_evaluations(self, reversal: int) -> int:
        """Step evaluations, where reversing one step evaluates ``reversal`` steps by itself.

        Replaying a block of b steps takes b - 1: the state before the first is there, and the one
        after the last is not needed. What reversing costs is the same for every plan, so the same
        plan is the best for all schemes.

        Args:
            reversal: 0 for a one-stage explicit scheme, whose transpose needs the state alone; 1
                for a Runge-Kutta scheme, whose transpose evaluates the stages once more
        """
        advanced = sum(self.columns.advance) + sum(self.columns.fill)
        replayed = sum(self.columns.reverse)
        again = advanced * self.block + replayed * (self.block - 1)
        return self.length + again + reversal * self.length


def _spine(length: int, slots: int) -> list[int]:
    """What is left of a chain after each split, until it is reversed at once."""
    spine = [length]
    while spine[-1] > slots + 1:  # the live state needs no slot
        spine.append(split(spine[-1], slots))
    return spine


def _one_slot(length: int) -> Columns:
    """The reversal of a chain, at least 2 long, with its first state alone."""
    count = length - 2
    advance = [*range(length - 1, 1, -1), 0]
    return Columns(
        [0] * (count + 1), [0] * (count + 1), advance, [0] * count + [1], [1] * count + [2]
    )


def _reversal(length: int, slots: int) -> Columns:
    """All rows, depth first and from the right; a chain's depth is its slot.

    Chains of the same length and number of slots have the same rows, but for where they start: they
    are made once, those with fewer slots first.
    """
    levels = []
    chains = {length}
    for free in range(slots, 1, -1):
        spines = {chain: _spine(chain, free) for chain in chains}
        levels.append((free, spines))
        rights = (a - b for spine in spines.values() for a, b in pairwise(spine))
        chains = {right for right in rights if right > free}
    done = {chain: _one_slot(chain) for chain in chains}
    for free, spines in reversed(levels):
        done = {chain: _along(spine, free, done) for chain, spine in spines.items()}
    return done[length]


def _along(spine: list[int], free: int, done: dict[int, Columns]) -> Columns:
    """The rows of a chain, from those of its right parts."""
    rows = Columns([], [], [], [], [])
    for chain, left in pairwise(spine):
        right = chain - left
        if right <= free:
            rows.append(Row(0, 0, left, right - 1, right))
        else:
            rows.append(Row(0, 0, left, 0, 0))
            rows.extend(done[right], left)
    rows.append(Row(0, 0, 0, spine[-1] - 1, spine[-1]))
    return rows


def binomial(length: int, block: int, slots: int) -> Plan:
    """The plan with the fewest evaluations for so many slots, and the fewest rows for that.

    Args:
        length: steps in the run, at least 1
        block: steps in a block
        slots: states kept at most, at least 1
    """
    block = min(block, length)
    blocks = -(-length // block)
    slots = max(1, min(slots, blocks - 1))
    if blocks == 1:
        return Plan(length, block, slots, {}, Columns([], [], [], [], []))
    columns = _reversal(blocks, slots)
    keep = {0: 0}
    done = columns.reverse.index(next(filter(None, columns.reverse)))
    swept = [Row(*row) for row in zip(*(column[: done + 1] for column in columns), strict=True)]
    for row in swept[:-1]:  # the forward sweep: down to the first block that is reversed
        keep[row.start + row.advance] = row.base
    start, slot = swept[-1].start + swept[-1].advance, swept[-1].base
    fill = swept[-1].fill
    keep |= {start + i: slot + i for i in range(fill)}
    rest = Columns(*(column[done + 1 :] for column in columns))
    if fill:  # the last block is reversed from the forward sweep; these come next
        for column, value in zip(
            rest, (start + fill - 1, slot + fill - 1, 0, 0, fill), strict=True
        ):
            column.insert(0, value)
    return Plan(length, block, slots, keep, rest)


def periodic(length: int, every: int) -> Plan:
    """Keep the state before every ``every``-th step: all blocks, each replayed once."""
    return binomial(length, every, slots=-(-length // every))
