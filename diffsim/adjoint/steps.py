"""What every strategy does with single steps: advance them, transpose them, keep their states.

States, parameters and inputs are flat lists of arrays here. Leaves without a derivative (integers,
keys) and parameters that nobody differentiates are told apart by a `Split` and never get a
cotangent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffsim import batch
from diffsim.adjoint import growth
from diffsim.adjoint.blind import Blind
from diffsim.adjoint.restarts import NO_RESTARTS, Restarts
from diffsim.adjoint.scaling import Scaling
from diffsim.adjoint.slices import in_turn, put_block, stacked, take
from diffsim.linear import derivable, forward_only, inexact, kept_whole, refuse

ROW = 4  # bodies of a loop: a block of no more steps than these hold is written out

Leaves = list[Any]
Run = Callable[["Step", Leaves, Leaves, Leaves], tuple[Leaves, Leaves]]
Forward = Callable[["Step", Leaves, Leaves, Leaves], tuple[tuple[Leaves, Leaves], Any]]
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


@dataclass(frozen=True)
class SmoothStep:
    """A step as a function of what is differentiated, with its tangent and its transpose."""

    step: Step
    consts: Split
    carry: Split
    xs: Split
    ys: Split
    watched: int = 0  # steps of a run whose cotangents are watched, or 0

    def _smooth(self, consts, carry, x):
        splits = self.consts, self.carry, self.xs
        rests = [s.rest(v) for s, v in zip(splits, (consts, carry, x), strict=True)]

        def step(*smooth):
            args = (s.join(v, rest) for s, v, rest in zip(splits, smooth, rests, strict=True))
            carry, y = self.step(*args)
            return (self.carry.of(carry), self.ys.of(y)), (self.carry.rest(carry), self.ys.rest(y))

        return step, [s.of(v) for s, v in zip(splits, (consts, carry, x), strict=True)]

    def push(self, consts, carry, x, dots):
        """The step and its tangent: ``((carry, y), (carry_dot, y_dot))``."""
        step, smooth = self._smooth(consts, carry, x)
        (carry, y), dots, rest = jax.jvp(step, smooth, list(dots), has_aux=True)
        return (self.carry.join(carry, rest[0]), self.ys.join(y, rest[1])), dots

    def pull(self, consts, carry, x, carry_bar, y_bar) -> Bars:
        """The step's transpose."""
        step, smooth = self._smooth(consts, carry, x)
        _, transpose = jax.vjp(lambda *smooth: step(*smooth)[0], *smooth)
        return transpose((carry_bar, y_bar))

    def onto(self, consts, carry, x, consts_bar, carry_bar, y_bar) -> Bars:
        """The step's transpose, its cotangents of consts added to those so far."""
        if self.step.accumulate is None:
            more, carry_bar, x_bar = self.pull(consts, carry, x, carry_bar, y_bar)
            return _sum(consts_bar, more), carry_bar, x_bar
        forth: Any = self.step.forth
        after = forth(consts, carry, x)  # read by what sees more than values alone
        total, carry_bar = self._looked(consts, after, x, consts_bar, carry_bar, y_bar, None)
        found, carry_bar, x_bar = self.step.accumulate(consts, carry, x, carry_bar, total)
        return self._found(found, total), carry_bar, self.xs.of(x_bar)

    def back(self, consts, after, x, kept, consts_bar, carry_bar, y_bar, scale):
        """The carry before a step that can be retraced, and the step's transpose there, its
        cotangents of consts added to those so far; all but those of ``y`` and ``x`` scaled."""
        total, carry_bar = self._looked(consts, after, x, consts_bar, carry_bar, y_bar, scale)
        retrace: Any = self.step.retrace
        before, found, carry_bar, x_bar = retrace(consts, after, x, kept, carry_bar, total, scale)
        return before, self._found(found, total), carry_bar, self.xs.of(x_bar)

    def _looked(self, consts, after, x, consts_bar, carry_bar, y_bar, scale):
        """The cotangents of all consts so far, and of a new carry, with those of what is seen."""
        look: Any = self.step.look
        seen = replace(self, step=Step(lambda *args: look(*args, scale)))
        seen_bar, carry_bar, _ = seen.pull(consts, after, x, carry_bar, y_bar)
        return self.consts.spread(_sum(consts_bar, seen_bar)), carry_bar

    def _found(self, found, total):
        """The cotangents of what is differentiated, those found by number instead of these."""
        return self.consts.of([found.get(i, bar) for i, bar in enumerate(total)])

    def scaled(self, consts, carry_bar):
        """The scale in which a backward sweep runs, and the cotangents of the carry in it; None,
        and these, where steps are not retraced."""
        if self.step.scaling is None:
            return None, carry_bar
        scaling = self.step.scaling(consts)
        scale = scaling.scale()
        return scale, scaling.into(scale, carry_bar)

    def unscaled(self, consts, scale, consts_bar, carry_bar):
        """The cotangents of consts and of the carry after such a sweep, as they are."""
        if self.step.scaling is None:
            return consts_bar, carry_bar
        total = self.consts.spread(consts_bar)
        carry_bar, found = self.step.scaling(consts).out(scale, carry_bar, total)
        return self.consts.of([found.get(i, bar) for i, bar in enumerate(total)]), carry_bar

    def zeros(self, consts, xs):
        """Where the cotangents of parameters and inputs add up, those of the carry are noted."""
        consts_bar, xs_bar = (
            [jnp.zeros_like(leaf) for leaf in split.of(leaves)]
            for split, leaves in ((self.consts, consts), (self.xs, xs))
        )
        return consts_bar, [*xs_bar, *([growth.quiet()] if self.watched else [])]

    def told(self, xs_bar, feed):
        """The cotangents of the inputs alone; a warning if those of the carry exploded."""
        count = sum(self.xs.smooth)
        for noted in xs_bar[count:]:
            growth.report(noted, feed, self.watched)
        return xs_bar[:count]

    def reverse(self, consts, xs, ys_bar, bars, trail, start, size, scale=None):
        """The transposes of ``size`` steps from ``start`` on, along what `keep_trail` kept."""
        consts_bar, carry_bar, xs_bar = bars
        walks, restarts = isinstance(trail, Walk), self.step.restarts(consts)

        def pull(walk, i):
            after, consts_bar, carry_bar = walk
            x, y_bar = take(xs, start + i), take(ys_bar, start + i)
            if walks:
                bars = consts_bar, carry_bar, y_bar
                before, *bars, x_bar = self.back(
                    consts, after, x, take(trail.kept, i), *bars, scale
                )
                (consts_bar, carry_bar), after = in_turn(bars, before)
                after = restarts.restored(after, trail.fresh, i)
            else:
                before = trail.states[i] if isinstance(trail, Row) else take(trail, i)
                bars = consts_bar, carry_bar, y_bar
                consts_bar, carry_bar, x_bar = self.onto(consts, before, x, *bars)
                if isinstance(trail, Row):  # or what each adds would wait for that of all of them
                    carry_bar, consts_bar = in_turn(carry_bar, consts_bar)
            return (after, consts_bar, carry_bar), x_bar

        walk = trail.end if walks else None, consts_bar, carry_bar
        if isinstance(trail, Row):
            (_, consts_bar, carry_bar), x_bar = _back_in_a_row(pull, walk, size)
        else:
            (_, consts_bar, carry_bar), x_bar = lax.scan(
                pull, walk, jnp.arange(size), reverse=True, unroll=self.step.unroll
            )
        count = len(x_bar)
        noted = [growth.note(n, carry_bar, start, size, self.watched) for n in xs_bar[count:]]
        return consts_bar, carry_bar, [*put_block(xs_bar[:count], x_bar, start), *noted]


class Walk(NamedTuple):
    """What the way back over some steps needs: the carry after them, what was kept of each, and
    what the walk starts afresh from."""

    end: Leaves
    kept: Leaves  # [step, ...]
    fresh: Leaves  # [restart, ...]


class Row(NamedTuple):
    """The carry before each of a few steps, where the step before has put it.

    No loop copies them to their places in one array and back.
    """

    states: list[Leaves]


def differentiable_loop(
    step: Step, run: Run, forward: Forward, backward, length: int = 0
) -> Callable:
    """``run`` with a forward sweep that keeps something and a backward sweep that uses it.

    Args:
        step: what is looped over
        run: ``(step, consts, carry, xs) -> (carry, ys)``, the loop itself
        forward: the same, and whatever the backward sweep needs
        backward: ``(smooth_step, consts, xs, kept, carry_bar, ys_bar) -> bars``; the cotangents of
            ``ys`` are those that are not known to be zero, as ``smooth_step.ys`` says
        length: of the loop, if known: should its cotangents explode, a warning says so

    Forward mode runs the loop over states and tangents together, as a differentiable loop again.
    """

    one_by_one = batch.one_by_one if step.in_turn else lambda f: f

    def loop(consts, carry, xs):
        sizes = len(consts), len(carry)

        def rule(moves, args):
            of_consts, of_carry, of_xs = (Split(part) for part in _cut(moves, sizes))
            consts, carry, xs = _cut(args, sizes)
            # a parameter's tangent moves all of the carry
            whole = Split.by_type(carry)
            (new, ys), kept = sweep(args)
            watched = length if length >= growth.LEAST else 0
            smooth = SmoothStep(step, of_consts, whole, of_xs, Split.by_type(ys), watched)
            shown = whole.of(carry), whole.of(new), smooth.ys.of(ys)
            feed = growth.Feed.of(*shown, watched) if watched else None

            def tangent(residuals, dots):
                carry = residuals[1]
                consts_dot, carry_dot, xs_dot = _cut(Split(moves).spread(dots), sizes)
                dots = (
                    [d for d in consts_dot if d is not None],
                    [d for d in xs_dot if d is not None],
                )
                carry_dot = [
                    jnp.zeros_like(leaf) if dot is None else dot
                    for leaf, dot in zip(carry, carry_dot, strict=True)
                    if inexact(leaf)
                ]
                loops = run, forward, backward, length
                return _tangent(smooth, loops, residuals[:3], carry_dot, *dots)

            def transpose(residuals, bars):
                consts, carry, xs, kept, feed = residuals
                count = sum(smooth.carry.smooth)
                carry_bar = [
                    jnp.zeros_like(leaf) if bar is None else bar
                    for leaf, bar in zip(smooth.carry.of(carry), bars[:count], strict=True)
                ]
                seen = Split(tuple(b is not None for b in smooth.ys.spread(bars[count:])))
                ys_bar = [bar for bar in bars[count:] if bar is not None]
                reversed_step = replace(smooth, ys=seen)
                rows = [i for i, bar in enumerate(bars[count:]) if bar is not None]
                feed = feed and feed.times(rows, ys_bar, watched)
                back = one_by_one(partial(backward, reversed_step))
                consts_bar, carry_bar, xs_bar = back(consts, xs, kept, carry_bar, ys_bar)
                xs_bar = reversed_step.told(xs_bar, feed)
                carry_bar = of_carry.of(smooth.carry.spread(carry_bar))
                return [forward_only(bar) for bar in (*consts_bar, *carry_bar, *xs_bar)]

            return (new, ys), (consts, carry, xs, kept, feed), tangent, transpose

        looped = derivable(one_by_one(lambda args: run(step, *_cut(args, sizes))), rule)
        plain = kept_whole(one_by_one(lambda args: forward(step, *_cut(args, sizes))))
        # JAX has no transpose of a loop of unknown length, which reverse over forward mode needs
        sweep = plain if length else _sweep(plain, looped)
        return looped([*consts, *carry, *xs])

    return loop


def _sweep(forward, looped):
    """The forward sweep, for derivatives of higher order.

    Its results have the loop's own derivatives; what it keeps has those of forward mode only.
    """

    def rule(moves, args):
        moving = Split(moves)

        def smooth(f, args):
            """``f`` from what moves to results of inexact type."""
            rest = moving.rest(args)

            def of_moved(*moved):
                results = jax.tree.leaves(f(moving.join(moved, rest)))
                return [leaf for leaf in results if inexact(leaf)]

            return of_moved, moving.of(args)

        def tangent(args, dots):
            return jax.jvp(*smooth(forward, args), dots)[1]

        def transpose(args, bars):
            f, moved = smooth(looped, args)
            results, transposed = jax.vjp(f, *moved)
            if any(bar is not None for bar in bars[len(results) :]):
                refuse()
            bars = zip(results, bars[: len(results)], strict=True)
            return transposed([jnp.zeros_like(r) if bar is None else bar for r, bar in bars])

        return sweep(args), args, tangent, transpose

    sweep = derivable(forward, rule)
    return sweep


def _tangent(smooth, loops, primals, carry_dot, consts_dot, xs_dot):
    """Forward mode: the loop over states and tangents side by side."""
    consts, carry, xs = primals
    sizes = len(consts), len(carry), len(xs)

    def step(both_consts, both_carry, both_x):
        pairs = zip((both_consts, both_carry, both_x), sizes, strict=True)
        (consts, consts_dot), (carry, carry_dot), (x, x_dot) = [(v[:n], v[n:]) for v, n in pairs]
        (carry, y), dots = smooth.push(consts, carry, x, (consts_dot, carry_dot, x_dot))
        return [*carry, *dots[0]], [*y, *dots[1]]

    how = {"unroll": smooth.step.unroll, "in_turn": smooth.step.in_turn}
    loop = differentiable_loop(Step(step, **how), *loops)
    new, ys = loop([*consts, *consts_dot], [*carry, *carry_dot], [*xs, *xs_dot])
    return [*new[len(carry) :], *ys[len(smooth.ys.smooth) :]]


def _sum(these, those):
    return [a + b for a, b in zip(these, those, strict=True)]


def _cut(leaves: Any, sizes: tuple[int, int]) -> tuple[Any, Any, Any]:
    """What belongs to consts, carry and xs."""
    first, second = sizes[0], sum(sizes)
    return leaves[:first], leaves[first:second], leaves[second:]


def advance(step, consts, carry, xs, size, keep_states=False):
    """``size`` steps: the last carry, and ``(states before each step if wished, ys)``."""

    def body(carry, x):
        new, y = step(consts, carry, x)
        return new, (carry if keep_states else None, y)

    return lax.scan(body, carry, xs, size, unroll=step.unroll)


def keep_trail(step, consts, carry, xs, size):
    """`advance`, with what `SmoothStep.reverse` needs: a `Walk`, a `Row`, or the states before each
    step in one array."""
    if step.retrace is None:
        if size <= ROW * step.unroll:
            return _in_a_row(step, consts, carry, xs, size)
        return advance(step, consts, carry, xs, size, keep_states=True)

    def body(loop, inputs):
        (carry, fresh), (i, x) = loop, inputs
        fresh, carry = restarts.note(fresh, carry, i)
        new, y, kept = step.keeping(consts, carry, x)
        seen, new = in_turn((kept, y), new)
        return (new, fresh), seen

    restarts = step.restarts(consts)
    loop, inputs = (carry, restarts.room(carry, size)), (jnp.arange(size), xs)
    (carry, fresh), (kept, ys) = lax.scan(body, loop, inputs, size, unroll=step.unroll)
    return carry, (Walk(carry, kept, fresh), ys)


def _in_a_row(step, consts, carry, xs, size):
    """`advance` of so few steps that they need no loop."""
    states, seen = [], []
    for i in range(size):
        states.append(carry)
        carry, y = step(consts, carry, take(xs, i))
        seen.append(y)
    return carry, (Row(states), stacked(seen))


def _back_in_a_row(pull, walk, size):
    """``lax.scan(pull, walk, jnp.arange(size), reverse=True)`` without a loop."""
    found = []
    for i in reversed(range(size)):
        walk, x_bar = pull(walk, i)
        found.append(x_bar)
    return walk, stacked(found[::-1])


def run(length, step, consts, carry, xs):
    """The loop itself."""
    return lax.scan(lambda c, x: step(consts, c, x), carry, xs, length, unroll=step.unroll)
