"""Run a solver and see what happens: solver + params + observe + adjoint -> data."""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffsim.adjoint.checkpointed import Periodic
from diffsim.adjoint.scan import Adjoint, StoreAll, scan
from diffsim.solver import AdjointSolver, Observe, Record, Solver

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
    coefficients = solver.coefficients(params)
    step = _step(solver)

    def advance(state, n_and_forcing):
        n, forcing_n = n_and_forcing
        if tick is not None:
            jax.lax.cond(n % TICK == 0, functools.partial(jax.debug.callback, tick), lambda: None)
        return step(coefficients, state, forcing_n), None

    def seen_step(state, n_and_forcing):
        return advance(state, n_and_forcing)[0], observe(state)

    def seen_stretch(state, stretch):
        new, _ = scan(advance, state, stretch, every, adjoint=Periodic(every))
        return new, observe(state)

    init = solver.init(params)
    inputs = jnp.arange(steps), forcing
    if every == 1:
        return scan(seen_step, init, inputs, steps, unroll=2, adjoint=adjoint)
    stretches = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:]), inputs)
    return scan(seen_stretch, init, stretches, steps // every, adjoint=adjoint)


def _step(solver):
    """The solver's step, with its own transpose if it has one."""
    if not isinstance(solver, AdjointSolver):
        return solver.step

    @jax.custom_vjp
    def step(coefficients, state, forcing_n):
        return solver.step(coefficients, state, forcing_n)

    def forward(*args):
        return solver.step(*args), args

    def backward(args, state_bar):
        coefficients, state, forcing_n = args
        return solver.pullback(coefficients, state, forcing_n, state_bar)

    step.defvjp(forward, backward)
    return step
