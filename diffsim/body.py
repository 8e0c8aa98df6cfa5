"""What a simulation's loop consists of: a solver's step, or a stretch of steps, forth and back."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.adjoint.blind import Blind
from diffsim.adjoint.checkpointed import Periodic
from diffsim.adjoint.fit.choose import Fit
from diffsim.adjoint.flat import Accumulating, Invertible, Retraceable
from diffsim.adjoint.restarts import Restarts
from diffsim.adjoint.reversible import Reversible
from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scaling import Scaling
from diffsim.adjoint.scan import scan
from diffsim.adjoint.steps import Split
from diffsim.adjoint.trail import WRITTEN_OUT
from diffsim.host import call
from diffsim.linear import derivable
from diffsim.solver import (
    AdjointSolver,
    ImagingSolver,
    Record,
    RetracingSolver,
    ReversibleSolver,
    Sampler,
    Solver,
)

TICK = 100  # steps between two signs of life


class Body(NamedTuple):
    """A solver's steps, forth and back, or stretches of ``every`` steps: what a loop consists of.

    Inputs are the step's number and its forcing, or those of a stretch.
    """

    solver: Any
    step: Callable  # `step_of` the solver
    coefficients: Record
    every: int
    tick: Callable[[], None] | None

    def _beat(self, n):
        if self.tick is not None:
            jax.lax.cond(n % TICK == 0, partial(call, self.tick), lambda: None)

    def forth(self, state, inputs):
        """The state after a step, or after a stretch of them."""
        if self.every == 1:
            return self._one(state, inputs)
        return self._stretch(self.seen(lambda state: (state, None)), state, inputs)[0]

    def keeping(self, state, inputs):
        """The same, and what `ReversibleSolver.keep` keeps of each state."""

        def one(state, inputs):
            return self._one(state, inputs), self.solver.keep(state)

        return one(state, inputs) if self.every == 1 else self._stretch(one, state, inputs)

    def seen(self, look):
        """One step and what ``look(state) -> (state, data)`` sees after it, as `scan` takes it."""
        if isinstance(self.solver, AdjointSolver):
            return Accumulating(self._one, look, self._accumulate, self.coefficients)
        return lambda *args: look(self._one(*args))

    def _one(self, state, inputs):
        n, forcing_n = inputs
        self._beat(n)
        return self.step(self.coefficients, state, forcing_n)

    def _accumulate(self, state, inputs, bar, total):
        """The transpose of one step, by `AdjointSolver.accumulate`."""
        args = self.coefficients, state, inputs[1], bar, total
        total, bar, forcing_bar = self.solver.accumulate(*args)
        return total, bar, (None, forcing_bar)

    def _stretch(self, one, state, inputs):
        """A stretch, reversed in equal blocks that are written out; or in one, if a step costs so
        much more than to keep its state that none should be evaluated once more."""
        unroll = self.solver.unroll
        blocks = -(-self.every // (WRITTEN_OUT * unroll)) if unroll > 1 else 1
        adjoint = Periodic(-(-self.every // blocks))
        return scan(one, state, inputs, self.every, unroll=unroll, adjoint=adjoint)

    def _loop(self, one, walk, inputs, reverse=False):
        """Over a stretch, in which nothing is replayed; two levels in time swap in place here, too:
        or XLA copies both at each step."""
        unroll = self.solver.unroll
        return jax.lax.scan(one, walk, inputs, self.every, reverse=reverse, unroll=unroll)

    @property
    def _within(self):
        """Where `RetracingSolver.retrace` starts afresh inside of a stretch, if that is so long."""
        solver = self.solver
        return Restarts(solver.steps_back, solver.keep, solver.restore)

    @property
    def restarts(self):
        """The same for the loop, in stretches."""
        return self._within._replace(every=max(1, self.solver.steps_back // self.every))

    @property
    def scaling(self):
        """The variable of the adjoint, `AdjointSolver.scaled`."""
        scale = partial(self.solver.scale, self.coefficients)
        return Scaling(scale, self.solver.scaled, self.solver.unscaled)

    def trace(self, state, inputs):
        """`forth`, and what the way back through a stretch starts afresh from."""
        if self.every == 1:
            return self.forth(state, inputs), ()

        def one(walk, inputs):
            (state, fresh), (i, (n, forcing_n)) = walk, inputs
            self._beat(n)
            fresh, state = self._within.note(fresh, state, i)
            return (self.step(self.coefficients, state, forcing_n), fresh), None

        walk = state, self._within.room(state, self.every)
        return self._loop(one, walk, (jnp.arange(self.every), inputs))[0]

    def undo(self, state, inputs, kept):
        """Back, by `ReversibleSolver.unstep`."""

        def one(state, inputs):
            (_, forcing_n), kept = inputs
            return self.solver.unstep(self.coefficients, state, forcing_n, kept), None

        if self.every == 1:
            return one(state, (inputs, kept))[0]
        return self._loop(one, state, (inputs, kept), reverse=True)[0]

    def retrace(self, state, inputs, kept, bar, total, scale):
        """Back with the transposes, by `RetracingSolver.retrace`."""
        leaves, tree = jax.tree.flatten(total)
        split = Split.by_type(leaves)

        def whole(sums):
            return jax.tree.unflatten(tree, split.join(sums, split.rest(leaves)))

        def one(walk, inputs):
            (state, sums, bar), (i, (n, forcing_n)) = walk, inputs
            self._beat(n)
            args = self.coefficients, state, forcing_n, bar, whole(sums), scale
            state, total, bar, forcing_bar = self.solver.retrace(*args)
            state = self._within.restored(state, kept, i)
            return (state, split.of(jax.tree.leaves(total)), bar), (None, forcing_bar)

        walk = state, split.of(leaves), bar
        if self.every == 1:
            (state, sums, bar), x_bar = one(walk, (0, inputs))
        else:
            inputs = jnp.arange(self.every), inputs
            walk, x_bar = self._loop(one, walk, inputs, reverse=True)
            state, sums, bar = walk
        return state, whole(sums), bar, x_bar

    def expose(self, coefficients, state, inputs, exposures, place):
        """Forth, and what images of the step need, by `ImagingSolver.expose`."""
        n, forcing_n = inputs
        self._beat(n)
        return self.solver.expose(coefficients, state, forcing_n, exposures, place)

    def blind(self, coefficients, inputs, bar, scale):
        """The transpose alone, by `ImagingSolver.blind`."""
        n, forcing_n = inputs
        self._beat(n)
        total, bar, forcing_bar = self.solver.blind(coefficients, forcing_n, bar, scale)
        return total, bar, (None, forcing_bar)

    def image(self, coefficients, inputs, bar, scale, *image):
        """The transpose, and what an exposure adds to the images, by `ImagingSolver.image`."""
        n, forcing_n = inputs
        self._beat(n)
        total, bar, forcing_bar = self.solver.image(coefficients, forcing_n, bar, scale, *image)
        return total, bar, (None, forcing_bar)


def observed(body, observe, adjoint):
    """What `scan` loops over, for a strategy. The state after a step is looked at: that before,
    which the step writes over, would be copied."""
    solver = body.solver
    retraces, undoes = (isinstance(solver, kind) for kind in (RetracingSolver, ReversibleSolver))
    look = observe.see if isinstance(observe, Sampler) else partial(_look, solver, observe)

    def seen(state, inputs):
        new, kept = body.keeping(state, inputs)
        return *look(new), kept

    if retraces:
        images = isinstance(solver, ImagingSolver) and isinstance(adjoint, Sampled | Fit)
        maps = solver.exposures, body.expose, body.blind, body.image
        blind = Blind(*maps) if images and body.every == 1 else None
        back = body.retrace, body.coefficients, body.restarts, body.scaling
        return Retraceable(body.forth, body.trace, look, *back, blind)
    if isinstance(adjoint, Reversible) and not undoes:
        name = type(solver).__name__
        raise TypeError(
            f"Reversible() cannot run {name}: a step of {name} cannot be undone; use "
            "Revolve(checkpoints=…)"
        )
    if isinstance(adjoint, Reversible | Fit) and undoes:
        return Invertible(seen, body.undo)
    return body.seen(look) if body.every == 1 else lambda *args: look(body.forth(*args))


def _look(solver, observe, state, scale=None):
    """What a `Sampler` does, by a function of a state."""
    return state, observe(state if scale is None else _scaled_in_reverse(solver, scale, state))


def _scaled_in_reverse(solver: AdjointSolver, scale, state):
    """The state itself; its cotangents, as they come from a function of it, get scaled."""
    leaves, tree = jax.tree.flatten(state)
    scales, scale_tree = jax.tree.flatten(scale)
    smooth = Split.by_type(leaves)
    likes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in smooth.of(leaves)]

    def transpose(scales, bars):
        pairs = zip(likes, bars, strict=True)
        bars = [jnp.zeros_like(like) if bar is None else bar for like, bar in pairs]
        bars = jax.tree.unflatten(tree, smooth.spread(bars))
        bars = solver.scaled(jax.tree.unflatten(scale_tree, scales), bars)
        return smooth.of(jax.tree.leaves(bars))

    def rule(moves, args):
        return args[len(scales) :], args[: len(scales)], lambda _, dots: dots, transpose

    same = derivable(lambda args: args[len(scales) :], rule)
    return jax.tree.unflatten(tree, same([*scales, *leaves]))


def step_of(solver: Solver) -> Callable:
    """The solver's step as JAX is to see it: traced once, however often it stands in a program,
    and with the solver's own transpose if it has one."""
    plain = jax.jit(solver.step, inline=True)
    if not isinstance(solver, AdjointSolver):
        return plain
    pullback = jax.jit(solver.pullback, inline=True)

    def step(*args):
        leaves, tree = jax.tree.flatten(args)
        new = jax.eval_shape(plain, *args)
        rules = _rules(plain, pullback, tree, Split.by_type(jax.tree.leaves(new)))
        return jax.tree.unflatten(jax.tree.structure(new), derivable(*rules)(leaves))

    return step


def _rules(step, pullback, tree, results):
    """A step on lists of leaves, and its derivatives as `derivable` takes them."""

    def run(leaves):
        return jax.tree.leaves(step(*jax.tree.unflatten(tree, leaves)))

    def rule(moves, leaves):
        moving = Split(moves)

        def tangent(leaves, dots):
            rest = moving.rest(leaves)
            smooth = lambda *moved: results.of(run(moving.join(moved, rest)))  # noqa: E731
            return jax.jvp(smooth, moving.of(leaves), dots)[1]

        def transpose(leaves, bars):
            args = jax.tree.unflatten(tree, leaves)
            state, state_tree = jax.tree.flatten(args[1])
            state_bar = [
                np.zeros(jnp.shape(leaf), jax.dtypes.float0) if not yes
                else jnp.zeros_like(leaf) if bar is None else bar
                for leaf, yes, bar in zip(state, results.smooth, results.spread(bars), strict=True)
            ]  # fmt: skip
            bars = pullback(*args, jax.tree.unflatten(state_tree, state_bar))
            return moving.of(jax.tree.leaves(bars))

        return run(leaves), leaves, tangent, transpose

    return run, rule
