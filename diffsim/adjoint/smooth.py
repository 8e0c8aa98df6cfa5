"""A step as a function of what is differentiated: its tangent, its transposes."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from diffsim.adjoint import growth
from diffsim.adjoint.steps import Bars, Split, Step


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


def _sum(these, those):
    return [a + b for a, b in zip(these, those, strict=True)]
