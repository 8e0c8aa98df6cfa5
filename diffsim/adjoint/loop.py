"""A loop with a backward sweep of its own, and with all the derivatives of JAX."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffsim import batch
from diffsim.adjoint import growth
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Leaves, Split, Step
from diffsim.linear import derivable, forward_only, inexact, kept_whole, refuse

Run = Callable[[Step, Leaves, Leaves, Leaves], tuple[Leaves, Leaves]]
Forward = Callable[[Step, Leaves, Leaves, Leaves], tuple[tuple[Leaves, Leaves], Any]]
Backward = Callable[[SmoothStep, Leaves, Leaves, Any, Leaves, Leaves], Any]


@dataclass(frozen=True)
class DifferentiableLoop:
    """``run`` with a forward sweep that keeps something and a backward sweep that uses it.

    Forward mode runs the loop over states and tangents together, as a differentiable loop again.

    Args:
        step: what is looped over
        run: ``(step, consts, carry, xs) -> (carry, ys)``, the loop itself
        forward: the same, and whatever the backward sweep needs
        backward: ``(smooth_step, consts, xs, kept, carry_bar, ys_bar) -> bars``; the cotangents of
            ``ys`` are those that are not known to be zero, as ``smooth_step.ys`` says
        length: of the loop, if known: should its cotangents explode, a warning says so
    """

    step: Step
    run: Run
    forward: Forward
    backward: Backward
    length: int = 0

    def __call__(self, consts: Leaves, carry: Leaves, xs: Leaves) -> tuple[Leaves, Leaves]:
        cut = partial(_cut, sizes=(len(consts), len(carry)))
        plain = kept_whole(self._in_turn(lambda args: self.forward(self.step, *cut(args))))
        # JAX has no transpose of a loop of unknown length, which reverse over forward mode needs
        sweep = plain if self.length else _sweep(plain, lambda args: looped(args))
        run = self._in_turn(lambda args: self.run(self.step, *cut(args)))
        looped = derivable(run, partial(self._rule, cut, sweep))
        return looped([*consts, *carry, *xs])

    def _in_turn(self, f):
        return batch.one_by_one(f) if self.step.in_turn else f

    def _rule(self, cut, sweep, moves, args):
        """What `derivable` asks for."""
        (consts, carry, xs), moved = cut(args), [Split(part) for part in cut(moves)]
        (new, ys), kept = sweep(args)
        watched = self.length if self.length >= growth.LEAST else 0
        # a parameter's tangent moves all of the carry
        whole, seen = Split.by_type(carry), Split.by_type(ys)
        smooth = SmoothStep(self.step, moved[0], whole, moved[2], seen, watched)
        shown = whole.of(carry), whole.of(new), seen.of(ys)
        feed = growth.Feed.of(*shown, watched) if watched else None
        maps = partial(self._tangent, smooth, moved[1]), partial(self._transpose, smooth, moved[1])
        return (new, ys), (consts, carry, xs, kept, feed), *maps

    def _tangent(self, smooth: SmoothStep, moved: Split, residuals, dots):
        """The loop over states and tangents side by side."""
        consts, carry, xs, *_ = residuals
        sizes = sum(smooth.consts.smooth), sum(moved.smooth)
        consts_dot, carry_dot, xs_dot = _cut(dots, sizes)
        carry_dot = _or_zeros(smooth.carry.of(moved.spread(carry_dot)), smooth.carry.of(carry))
        sizes = len(consts), len(carry), len(xs)

        def both(*pairs):
            consts, carry, x = (pair[:n] for pair, n in zip(pairs, sizes, strict=True))
            dots = tuple(pair[n:] for pair, n in zip(pairs, sizes, strict=True))
            (carry, y), dots = smooth.push(consts, carry, x, dots)
            return [*carry, *dots[0]], [*y, *dots[1]]

        step = Step(both, unroll=self.step.unroll, in_turn=self.step.in_turn)
        loop = replace(self, step=step)
        new, ys = loop([*consts, *consts_dot], [*carry, *carry_dot], [*xs, *xs_dot])
        return [*new[len(carry) :], *ys[len(smooth.ys.smooth) :]]

    def _transpose(self, smooth: SmoothStep, moved: Split, residuals, bars):
        """The backward sweep."""
        consts, carry, xs, kept, feed = residuals
        count = sum(smooth.carry.smooth)
        carry_bar = _or_zeros(bars[:count], smooth.carry.of(carry))
        rows = [i for i, bar in enumerate(bars[count:]) if bar is not None]
        ys_bar = [bars[count + i] for i in rows]
        feed = feed and feed.times(rows, ys_bar, smooth.watched)
        seen = Split(tuple(bar is not None for bar in smooth.ys.spread(bars[count:])))
        smooth = replace(smooth, ys=seen)
        back = self._in_turn(partial(self.backward, smooth))
        consts_bar, carry_bar, xs_bar = back(consts, xs, kept, carry_bar, ys_bar)
        xs_bar = smooth.told(xs_bar, feed)
        carry_bar = moved.of(smooth.carry.spread(carry_bar))
        return [forward_only(bar) for bar in (*consts_bar, *carry_bar, *xs_bar)]


def _or_zeros(moved, likes):
    """What moves leaves, zeros where it is None."""
    pairs = zip(moved, likes, strict=True)
    return [jnp.zeros_like(like) if leaf is None else leaf for leaf, like in pairs]


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


def _cut(leaves: Any, sizes: tuple[int, int]) -> tuple[Any, Any, Any]:
    """What belongs to consts, carry and xs."""
    first, second = sizes[0], sum(sizes)
    return leaves[:first], leaves[first:second], leaves[second:]
