"""A batch done one member after the other, where each of them takes all cores.

``jax.vmap`` hands a loop's batch to each step. A sweep that is compiled by hand goes through it one
after the other, with copies of each member's fields; a batch of whole loops needs none.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir, partial_eval

from diffsim.linear import jvp

_in_turn: set[core.Primitive] = set()


def in_turn(primitive: core.Primitive):
    """Have batches go through a primitive one member after the other."""
    batching.primitive_batchers[primitive] = partial(_mapped, primitive)
    _in_turn.add(primitive)


def asks_for_turns(jaxpr: core.Jaxpr) -> bool:
    """Whether a primitive in it, at any depth, takes a batch `in_turn`."""
    return any(
        eqn.primitive in _in_turn or any(map(asks_for_turns, _within(eqn))) for eqn in jaxpr.eqns
    )


def _within(eqn):
    """The programs that an equation holds."""
    params = (getattr(leaf, "jaxpr", leaf) for leaf in jax.tree.leaves(eqn.params))
    return [leaf for leaf in params if isinstance(leaf, core.Jaxpr)]


def one_by_one(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` of pytrees of arrays, of which a batch is done one member after the other.

    Like `jax.custom_batching.sequential_vmap`, but it can be transposed if ``f`` can, and what sums
    over the batch's own axis is still one batch.
    """

    def call(*args):
        closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
        leaves = _one.bind(*closed.consts, *jax.tree.leaves(args), jaxpr=closed.jaxpr)
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return call


_one = core.Primitive("one_by_one")
_one.multiple_results = True


def _apply(*args, jaxpr):
    count = len(jaxpr.constvars)
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, args[:count]))(*args[count:])


def _batch(axis, args, dims, *, jaxpr):
    if all(getattr(effect, "name", None) != axis.name for effect in jaxpr.effects):
        return _mapped(_one, args, dims, jaxpr=jaxpr)
    name = {"axis_name": axis.name, "axis_size": axis.size, "spmd_axis_name": axis.spmd_name}
    results = jax.vmap(partial(_apply, jaxpr=jaxpr), dims, **name)(*args)
    return results, [0] * len(results)


def _mapped(primitive, args, dims, **how):
    moved = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True)]

    def one(varying):
        values = iter(varying)
        args = (a if d is None else next(values) for a, d in zip(moved, dims, strict=True))
        return primitive.bind(*args, **how)

    results = jax.lax.map(one, [a for a, d in zip(moved, dims, strict=True) if d is not None])
    return results, [0] * len(results)


def _jvp(primals, tangents, **how):
    return jvp(partial(_apply, **how), primals, tangents)


def _needed(used, *live_and_eqn):
    """Which arguments some of the results need, and the equation for those alone.

    Else a loop would keep what only derivatives that nobody asks for read.
    """
    eqn = live_and_eqn[-1]  # newer JAX (0.12) tells before it which arguments are alive
    jaxpr = eqn.params["jaxpr"]
    if not any(used) and not jaxpr.effects:
        return [False] * len(eqn.invars), None
    jaxpr, read = partial_eval.dce_jaxpr(jaxpr, used)
    read = [True] * len(jaxpr.constvars) + read
    invars = [var for var, needed in zip(eqn.invars, read, strict=True) if needed]
    outvars = [var for var, needed in zip(eqn.outvars, used, strict=True) if needed]
    return read, eqn.replace(invars=invars, outvars=outvars, params={"jaxpr": jaxpr})


_one.def_impl(_apply)
_one.def_effectful_abstract_eval(lambda *_, jaxpr: ([v.aval for v in jaxpr.outvars], jaxpr.effects))
ad.primitive_jvps[_one] = _jvp
partial_eval.dce_rules[_one] = _needed
batching.fancy_primitive_batchers[_one] = _batch
mlir.register_lowering(_one, mlir.lower_fun(_apply, multiple_results=True))
