"""Code outside JAX as a JAX function: a callback, whose tangent and transpose are callbacks."""

import traceback
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from diffsim.adjoint.steps import Leaves, Split
from diffsim.external.code import Code
from diffsim.linear import derivable


def differentiable(code: Code, vmap_method: str) -> Callable[[Leaves], Leaves]:
    """The code on flat lists of JAX arrays.

    The derivatives, ``push`` and ``pull``, are linear in all but the arguments: the one is the
    other's transpose. What a rule gives for the results is the function itself, not its callback,
    so that differentiating twice finds a rule again.
    """
    count = len(code.args.types)
    args, results = (layout.split.of(layout.types) for layout in (code.args, code.results))

    def hosted(function, types):
        call = _readable(function, code.name)
        return lambda leaves: jax.pure_callback(call, types, *leaves, vmap_method=vmap_method)

    def forward(leaves):
        def rule(moves, leaves):
            moving = Split(tuple(code.args.split.of(moves)))
            return forward(leaves), leaves, *_maps(moving, push, pull, args, results)

        return derivable(run, rule)(leaves)

    def push(leaves):
        return derivable(run_jvp, linear(push, push, pull, args, results))(leaves)

    def pull(leaves):
        return derivable(run_vjp, linear(pull, pull, push, results, args))(leaves)

    def linear(function, *how):
        def rule(moves, leaves):
            if any(moves[:count]):
                raise NotImplementedError(
                    f"{code.name} has no second derivative: external_step takes first ones only; "
                    "write the step in JAX"
                )
            return function(leaves), leaves[:count], *_maps(Split(moves[count:]), *how)

        return rule

    run, run_vjp = hosted(code.forward, code.results.types), hosted(code.vjp, args)
    run_jvp = hosted(code.jvp, results) if code.of_jvp else _without_jvp(code.name, results)
    return forward


def _maps(moving: Split, there, back, x_types, y_types):
    """Tangent and transpose where some of ``x`` moves, from functions of all of it."""
    return (
        lambda at, dots: there([*at, *_filled(moving.spread(dots), x_types)]),
        lambda at, bars: moving.of(back([*at, *_filled(bars, y_types)])),
    )


def _filled(leaves, types):
    """Zeros in place of what is missing."""
    pairs = zip(leaves, types, strict=True)
    return [jnp.zeros(t.shape, t.dtype) if leaf is None else leaf for leaf, t in pairs]


def _readable(function, name):
    """The function of NumPy arrays, its errors in one line: JAX shows the last one only."""

    def call(*leaves):
        try:
            return function(*map(np.asarray, leaves))
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise RuntimeError(
                f"{function.__name__} of the external step {name} failed: "
                f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
            ) from error

    return call


def _without_jvp(name, types):
    """Stands for the tangent that there is not: reverse mode only looks at its shapes."""
    return lambda leaves: _absent.bind(*leaves, name=name, types=tuple(types))


def _refuse(*_, name, **__):
    raise NotImplementedError(
        f"forward mode (jax.jvp, jax.jacfwd) needs a derivative that {name} has not: give "
        "external_step a jvp, or use reverse mode"
    )


def _batch(args, dims, *, name, types):
    (size,) = {a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None}
    types = tuple(jax.ShapeDtypeStruct((size, *t.shape), t.dtype) for t in types)
    return _absent.bind(*args, name=name, types=types), [0] * len(types)


_absent = Primitive("external_step_without_jvp")
_absent.multiple_results = True
_absent.def_impl(_refuse)
_absent.def_abstract_eval(lambda *_, types, **__: [ShapedArray(t.shape, t.dtype) for t in types])
batching.primitive_batchers[_absent] = _batch
mlir.register_lowering(_absent, lambda ctx, *_, name, **__: _refuse(name=name))
