"""Where to cut a chain of blocks: the binomial numbers behind optimal checkpointing.

A chain of ``length`` blocks is reversed with ``slots`` kept states (the first one included). With
``β(s, r) = C(s + r, s)``, the longest chain that s slots reverse when no block is advanced more
than r times, the least number of block advances is ``t(l, s) = r l - β(s + 1, r - 1)``, r the
smallest integer with ``β(s, r) >= l``; the l evaluations that reversing itself needs come on top
(Griewank & Walther 2000, Algorithm 799, ACM TOMS 26, eq. 3 and Theorem 6.1). Many cuts reach it;
`split` picks one with the fewest rows of a plan among all of them.
"""

from bisect import bisect_left
from collections.abc import Iterator
from math import comb


def longest_chain(slots: int, repeats: int) -> int:
    """β(s, r): blocks that ``slots`` states reverse if none is advanced over ``repeats`` times."""
    return comb(slots + repeats, slots) if min(slots, repeats) >= 0 else 0


def repeats(length: int, slots: int) -> int:
    """The smallest r with β(slots, r) >= length."""
    high = 1
    while longest_chain(slots, high) < length:
        high *= 2
    low = high // 2
    return low + bisect_left(range(low, high), length, key=lambda r: longest_chain(slots, r))


def fewest_advances(length: int, slots: int) -> int:
    """t(l, s): the least number of block advances; the l reversals are not counted."""
    r = repeats(length, slots)
    return r * length - longest_chain(slots + 1, r - 1)


def largest_split(length: int, slots: int) -> int:
    """The farthest that an optimal plan may advance before it keeps the next state.

    Every split from ``max(β(s, r-2), l - β(s-1, r))`` to ``min(β(s, r-1), l - β(s-1, r-1))`` is
    optimal: it cuts a chain between β(s, r-1) and β(s, r) blocks long into one between β(s, r-2)
    and β(s, r-1), which has all slots, and one between β(s-1, r-1) and β(s-1, r).
    """
    r = repeats(length, slots)
    return min(longest_chain(slots, r - 1), length - longest_chain(slots - 1, r - 1))


def split(length: int, slots: int) -> int:
    """How far to advance before keeping the next state, for the fewest rows.

    From r = 3 on the rows of the two parts add up, and so do the `_gains` by which a chain of
    β(s, r-1) blocks grows to ``length``: the best of them are taken, and the left part gets its
    own. For r = 2 the left part grows first, from one block.
    """
    r = repeats(length, slots)
    if r <= 2 or slots == 1:
        return largest_split(length, slots)
    chosen, spare = _fewest_gains(length - longest_chain(slots, r - 1), slots, r)
    of_left = {(rows, blocks): count for rows, blocks, count in _gains(slots, r - 1)}
    grown = sum(
        min(used, of_left[rows, blocks]) * blocks for (rows, blocks), used in chosen.items()
    )
    return longest_chain(slots, r - 2) + grown - spare  # the best gain, over spare, is the left's


def _gains(slots: int, repeats: int) -> Iterator[tuple[int, int, int]]:
    """By what a chain of β(s, r-1) blocks grows to β(s, r): so many rows, for blocks, how often.

    Where the recursion over splits arrives at r = 2 with s slots, a chain of s + 1 blocks, one row,
    grows by s for one row more, then by s - 1, s - 2, … 1 for two rows more (keep, reverse);
    binomials count how often it arrives there. Most blocks for a row come first.
    """
    for blocks in range(slots, 0, -1):
        yield 1, blocks, comb(max(repeats - 3 + slots - blocks, 0), slots - blocks)
        for pair in (2 * blocks, 2 * blocks - 1):
            if pair < slots:
                yield 2, pair, comb(max(repeats - 3 + slots - pair, 0), slots - pair - 1)


def _fewest_gains(extra: int, slots: int, repeats: int) -> tuple[dict[tuple[int, int], int], int]:
    """The gains with the fewest rows that add up to ``extra`` blocks, and blocks too many.

    The best ones by blocks for a row, but for the last row: a gain of two rows is not begun if one
    of a single row does, or if it can take the place of a gain of one row.
    """
    chosen = {}
    for rows, blocks, count in _gains(slots, repeats):
        used = min(count, -(-extra // blocks))
        chosen[rows, blocks] = used
        extra -= used * blocks
        if extra > 0:
            continue
        missing = blocks + extra  # what the last gain is needed for
        if rows == 2 and 2 * missing == blocks:
            chosen[1, missing] -= 1
            return chosen, 0
        if rows == 2 and 2 * missing < blocks:
            chosen[rows, blocks] -= 1
            single = (blocks - 1) // 2
            chosen[1, single] = 1
            return chosen, single - missing
        return chosen, -extra
    raise AssertionError("gains add up to the longest chain")
