"""Run a solver and see what happens: solver + params + observe + adjoint -> data."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.adjoint.checkpointed import Periodic
from diffsim.adjoint.fit.choose import Fit
from diffsim.adjoint.linear import derivable, inexact
from diffsim.adjoint.reversible import Reversible
from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scan import Adjoint, Invertible, Retraceable, StoreAll, scan
from diffsim.adjoint.steps import Split
from diffsim.blow_up import finite
from diffsim.solver import (
    AdjointSolver,
    ImagingSolver,
    Observe,
    Record,
    RetracingSolver,
    ReversibleSolver,
    Solver,
)

TICK = 100  # steps between two signs of life


def simulate(
    solver: Solver,
    params: Record,
    observe: Observe,
    *,
    steps: int,
    forcing: Record = None,
    adjoint: Adjoint = StoreAll(),  # noqa: B008
    every: int = 1,
    tick: Callable[[], None] | None = None,
    watch: Callable[[int], None] | None = None,
):
    """Run ``steps`` steps and observe; differentiable in ``params`` and ``forcing``.

    Args:
        solver: the discretised PDE
        params: its ``Params``, SI units
        observe: what is seen of a state, for example ``solver.sampler(positions)``
        steps: number of steps of ``solver.dt``
        forcing: its ``Forcing``, time first: slice n, for time ``n dt``, goes into step n
        adjoint: how a gradient remembers the past
        every: observe every so many steps; must divide ``steps``
        tick: called on the host each time that a step number divisible by ``TICK`` is evaluated,
            recomputed ones included, and once more when it is reversed from a kept state
        watch: called on the host after the forward run if a state was not finite, with its step:
            states are looked at every ``TICK`` steps and at the end, for a hundredth of a run's
            time. `diffsim.blow_up.warn` warns

    Returns:
        ``(state, data)``: the state at time ``steps dt``, and observations stacked along a new
        first axis, entry n seen at time ``n every dt`` (the first one is the initial state).

    Raises:
        ValueError: if ``every`` does not divide ``steps`` or the forcing has another length
    """
    steps, every = operator.index(steps), operator.index(every)
    if steps < 1 or every < 1 or steps % every:
        raise ValueError(
            f"steps={steps}, every={every}: both must be positive and every must divide steps"
        )
    lengths = {len(leaf) for leaf in jax.tree.leaves(forcing)}
    if lengths - {steps}:
        raise ValueError(
            f"the forcing has {sorted(lengths)} time slices, but steps={steps}: give one a step"
        )
    if isinstance(adjoint, Sampled):
        _refuse_sampling(solver, adjoint, every)
    coefficients = solver.coefficients(params)
    step = step_of(solver)

    keep: Any = _keeper(solver, adjoint)

    def beat(n):
        if tick is not None:
            jax.lax.cond(n % TICK == 0, functools.partial(jax.debug.callback, tick), lambda: None)

    def advance_one(carry, n_and_forcing):
        (state, lost), (n, forcing_n) = carry, n_and_forcing
        beat(n)
        new = step(coefficients, state, forcing_n)
        if watch is not None:
            lost = _look(lost, new, n + 1, steps)
        return (new, lost), keep(coefficients, state, new) if keep else None

    def undo_one(carry, n_and_forcing, kept):
        state, lost = carry
        return solver.unstep(coefficients, state, n_and_forcing[1], kept), lost  # pyright: ignore

    def retrace_one(carry, n_and_forcing, kept, bar):
        (state, lost), (n, forcing_n) = carry, n_and_forcing
        beat(n)
        args = coefficients, state, forcing_n, kept, bar[0]
        state, coefficients_bar, state_bar, forcing_bar = solver.retrace(*args)  # pyright: ignore
        return (state, lost), coefficients_bar, (state_bar, None), (None, forcing_bar)

    def blind_one(n_and_forcing, bar):
        n, forcing_n = n_and_forcing
        beat(n)
        args = coefficients, forcing_n, bar[0]
        coefficients_bar, state_bar, forcing_bar = solver.blind(*args)  # pyright: ignore
        return coefficients_bar, (state_bar, None), (None, forcing_bar)

    def advance_stretch(carry, stretch):
        return scan(advance_one, carry, stretch, every, adjoint=Periodic(every))

    def undo_stretch(carry, stretch, kept):
        back = lambda carry, inputs: (undo_one(carry, *inputs), None)  # noqa: E731
        return jax.lax.scan(back, carry, (stretch, kept), every, reverse=True)[0]

    def retrace_stretch(carry, stretch, kept, bar):
        def back(walk, inputs):
            carry, total, bar = walk
            (n_and_forcing, kept) = inputs
            carry, more, bar, x_bar = retrace_one(carry, n_and_forcing, kept, bar)
            return (carry, jax.tree.map(jnp.add, total, smooth(more)), bar), x_bar

        walk = carry, jax.tree.map(jnp.zeros_like, smooth(coefficients)), bar
        (*walk, bar), x_bar = jax.lax.scan(back, walk, (stretch, kept), every, reverse=True)
        return *walk, bar, x_bar

    init = solver.init(params), jnp.array(-1) if watch is not None else None
    inputs = jnp.arange(steps), forcing
    advance, undo, retrace = advance_one, undo_one, retrace_one
    if every > 1:
        inputs = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:]), inputs)
        advance, undo, retrace = advance_stretch, undo_stretch, retrace_stretch

    def seen(carry, inputs):
        # the state after the step: to look at the one before, which the step writes over, would
        # copy it
        new, kept = advance(carry, inputs)
        return new, observe(new[0]), kept

    if keep and isinstance(solver, RetracingSolver):
        images = isinstance(solver, ImagingSolver) and isinstance(adjoint, Sampled | Fit)
        blind = blind_one if images and every == 1 else None
        look = lambda carry: observe(carry[0])  # noqa: E731
        f = Retraceable(advance, look, retrace, coefficients, blind)
    else:
        f = Invertible(seen, undo) if keep else lambda *args: seen(*args)[:2]
    (state, lost), later = scan(f, init, inputs, steps // every, unroll=2, adjoint=adjoint)
    data = jax.tree.map(_shifted, observe(init[0]), later)
    if watch is not None:
        jax.debug.callback(functools.partial(_tell, watch), lost)
    return state, data


def _shifted(first, later):
    """What was seen of the first state and after each step but the last one."""
    return jnp.concatenate([jnp.expand_dims(first, 0).astype(later.dtype), later[:-1]])


def _look(lost, state, n, steps):
    """The first step whose state was seen not to be finite; -1 as long as there is none."""
    here = (n % TICK == 0) | (n == steps)
    return jax.lax.cond(here & (lost < 0), lambda: jnp.where(finite(state), lost, n), lambda: lost)


def _tell(watch, lost):
    if lost >= 0:
        watch(int(lost))


def _refuse_sampling(solver, adjoint, every):
    if not isinstance(solver, ImagingSolver):
        raise TypeError(adjoint.refusal(solver))
    if every > 1:
        raise ValueError(
            f"every={every}: {adjoint!r} runs with an observation at each step only; leave every "
            f"out and take data[::{every}], or use Revolve(checkpoints=…)"
        )


def _keeper(solver, adjoint):
    """What to keep of each state for the way back; None if the adjoint does not go back."""
    retraces, undoes = (isinstance(solver, kind) for kind in (RetracingSolver, ReversibleSolver))
    if isinstance(adjoint, Reversible) and not (retraces or undoes):
        name = type(solver).__name__
        raise TypeError(
            f"Reversible() cannot run {name}: a step of {name} cannot be undone; use "
            "Revolve(checkpoints=…)"
        )
    if retraces:
        return solver.keep
    if not isinstance(adjoint, Reversible | Fit):
        return None
    return (lambda coefficients, state, new: solver.keep(state)) if undoes else None


def smooth(record):
    """The leaves of a record that have a derivative."""
    return [leaf for leaf in jax.tree.leaves(record) if inexact(leaf)]


def step_of(solver: Solver) -> Callable:
    """The solver's step as JAX is to see it: with the solver's own transpose if it has one."""
    if not isinstance(solver, AdjointSolver):
        return solver.step

    def step(*args):
        leaves, tree = jax.tree.flatten(args)
        new = jax.eval_shape(solver.step, *args)
        leaves = derivable(*_rules(solver, tree, Split.by_type(jax.tree.leaves(new))))(leaves)
        return jax.tree.unflatten(jax.tree.structure(new), leaves)

    return step


def _rules(solver, tree, results):
    """A step on lists of leaves, and its derivatives as `derivable` takes them."""

    def run(leaves):
        return jax.tree.leaves(solver.step(*jax.tree.unflatten(tree, leaves)))

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
            bars = solver.pullback(*args, jax.tree.unflatten(state_tree, state_bar))
            return moving.of(jax.tree.leaves(bars))

        return run(leaves), leaves, tangent, transpose

    return run, rule
