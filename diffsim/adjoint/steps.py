"""A step of a loop, and its leaves.

States, parameters and inputs are flat lists of arrays here. Leaves without a derivative (integers,
keys) and parameters that nobody differentiates are told apart by a `Split` and never get a
cotangent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from diffsim.adjoint.blind import Blind
from diffsim.adjoint.restarts import NO_RESTARTS, Restarts
from diffsim.adjoint.scaling import Scaling
from diffsim.linear import inexact

Leaves = list[Any]
Bars = tuple[Leaves, Leaves, Leaves]  # of the differentiated consts, carry, xs


@dataclass(frozen=True)
class Step:
    """One step of a loop, and how to undo it if that is known."""

    call: Callable[[Leaves, Leaves, Leaves], tuple[Leaves, Leaves]]  # consts, carry, x -> carry, y
    # the same, and what `undo` or `retrace` needs besides the new carry
    keeping: Callable[[Leaves, Leaves, Leaves], tuple[Leaves, Leaves, Leaves]] | None = None
    undo: Callable[[Leaves, Leaves, Leaves, Leaves], Leaves] | None = None  # … carry, x, kept
    # both undone and transposed, as (consts, carry, x, kept, carry_bar, total, scale) -> carry
    # before it, bars, those of consts added to the total; what is handed on as ``look(consts,
    # carry, x, scale)`` sees it
    retrace: Callable[[Leaves, Leaves, Leaves, Leaves, Leaves, Leaves, Leaves], tuple] | None = None
    look: Callable[[Leaves, Leaves, Leaves, Leaves], tuple[Leaves, Leaves]] | None = None
    # what a walk back starts afresh from, given the consts; nothing if None
    afresh: Callable[[Leaves], Restarts] | None = None
    # in which its adjoint runs, given the consts; there is one if there is `retrace`
    scaling: Callable[[Leaves], Scaling] | None = None
    # transposed with no carry at hand, given the consts; the cotangents of those by their number
    blind: Callable[[Leaves], Blind] | None = None
    # the step before it is looked at, and its transpose, as (consts, carry, x, carry_bar, total) ->
    # bars, those of consts added to the total
    forth: Callable[[Leaves, Leaves, Leaves], Leaves] | None = None
    accumulate: Callable[[Leaves, Leaves, Leaves, Leaves, Leaves], tuple] | None = None
    # steps in a loop's body: with an even number two levels in time swap their buffers in place;
    # False for one that is a stretch of steps itself
    unroll: int | bool = 2
    # a batch of runs is best done one after the other
    in_turn: bool = False

    def __call__(self, consts, carry, x):
        return self.call(consts, carry, x)

    def replayed(self):
        """The same, as one that cannot be walked back."""
        if self.retrace is None:
            return self
        return replace(self, retrace=None, look=None, afresh=None, scaling=None)

    def restarts(self, consts) -> Restarts:
        """Of a walk back."""
        return self.afresh(consts) if self.afresh else NO_RESTARTS


@dataclass(frozen=True)
class Split:
    """Leaves that are differentiated apart from the others."""

    smooth: tuple[bool, ...]

    @classmethod
    def by_type(cls, leaves):
        """All that have a derivative."""
        return cls(tuple(inexact(leaf) for leaf in leaves))

    def of(self, leaves):
        """The differentiated ones."""
        return [leaf for yes, leaf in zip(self.smooth, leaves, strict=True) if yes]

    def rest(self, leaves):
        """The others."""
        return [leaf for yes, leaf in zip(self.smooth, leaves, strict=True) if not yes]

    def join(self, smooth, rest):
        """Both in their places."""
        smooth, rest = iter(smooth), iter(rest)
        return [next(smooth) if yes else next(rest) for yes in self.smooth]

    def spread(self, smooth):
        """The differentiated ones in their places, None in the others'."""
        return self.join(smooth, [None] * (len(self.smooth) - len(smooth)))
