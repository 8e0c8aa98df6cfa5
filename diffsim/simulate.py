"""Run a solver and see what happens: solver + params + observe + adjoint -> data."""

import operator
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from diffsim.adjoint.growth import largest_of_batch
from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scan import Adjoint, StoreAll, scan
from diffsim.blow_up import finite
from diffsim.body import Body, observed, step_of
from diffsim.host import call
from diffsim.solver import (
    ImagingSolver,
    Observe,
    Record,
    RetracingSolver,
    Solver,
)


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
    watch: Callable[[], None] | None = None,
):
    """Run ``steps`` steps and observe; differentiable in ``params`` and ``forcing``.

    Args:
        solver: the discretised PDE
        params: its ``Params``, SI units
        observe: what is seen of a state, for example ``solver.sampler(positions)``
        steps: number of steps of ``solver.dt``
        forcing: its ``Forcing``, time first: slice n, for time ``n dt``, goes into step n
        adjoint: how a gradient remembers the past
        every: observe every so many steps; must divide ``steps``. They are one step to the
            strategy, replayed in blocks of its own when it is reversed: a `Revolve` that names no
            block takes fewer such steps for one
        tick: called on the host each time that a step number divisible by ``TICK`` is evaluated,
            recomputed ones included, and once more when it is reversed from a kept state
        watch: called on the host after the forward run if the state at its end is not finite; what
            once was not finite stays so, in every solver here. `diffsim.blow_up.warn` warns

    A program whose ``tick`` and ``watch`` are `diffsim.host.named` may be kept on disk. Many runs,
    of several shots say, may be a batch by `jax.vmap`: where steps are compiled sweeps, one is done
    after the other, each on all cores, by any strategy but ``StoreAll()``. `jax.lax.map` takes as
    long, and keeps no more than one run does.

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
    body = Body(solver, step_of(solver), solver.coefficients(params), every, tick)
    init, inputs = solver.init(params), (jnp.arange(steps), forcing)
    if every > 1:
        inputs = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:]), inputs)
    walks = isinstance(solver, RetracingSolver)
    adjoint = adjoint.suited(walks, every)
    f = observed(body, observe, adjoint)
    # stretches that are replayed write out blocks of their own
    unroll = solver.unroll if walks or every == 1 else False
    state, later = scan(f, init, inputs, steps // every, unroll=unroll, adjoint=adjoint)
    data = jax.tree.map(_shifted, observe(init), later)
    if watch is not None:
        lost = largest_of_batch(jnp.asarray(~finite(state), int))
        jax.lax.cond(lost > 0, partial(call, watch), lambda: None)
    return state, data


def _shifted(first, later):
    """What was seen of the first state and after each step but the last one."""
    return jnp.concatenate([jnp.expand_dims(first, 0).astype(later.dtype), later[:-1]])


def _refuse_sampling(solver, adjoint, every):
    if not isinstance(solver, ImagingSolver):
        raise TypeError(adjoint.refusal(solver))
    if every > 1:
        raise ValueError(
            f"every={every}: {adjoint!r} runs with an observation at each step only; leave every "
            f"out and take data[::{every}], or use Revolve(checkpoints=…)"
        )
