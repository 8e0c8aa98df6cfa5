"""Functions with a derivative of their own, in every mode of JAX.

``jax.custom_vjp`` forbids forward mode, ``jax.custom_jvp`` lets JAX derive the transpose. Here a
function has a linear map for its tangent *and* a transpose of that map, written apart: forward
mode runs the one, reverse mode the other, and both can be batched and differentiated once more in
forward mode.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Leaves = list[Any]
Tangent = Callable[[Any, Leaves], Leaves]  # residuals, tangents of what moves -> of the results
Transpose = Callable[[Any, Leaves], Leaves]  # residuals, cotangents (None: zero) -> of what moves
Rule = Callable[[tuple[bool, ...], Leaves], tuple[Any, Any, Tangent, Transpose]]


def derivable(run: Callable[[Leaves], Any], rule: Rule) -> Callable[[Leaves], Any]:
    """``run`` with the tangent and the transpose that ``rule`` gives.

    Args:
        run: from a list of arrays to a pytree of arrays
        rule: ``(moves, args) -> (results, residuals, tangent, transpose)``; ``moves`` marks the
            arguments that are differentiated, ``residuals`` is a pytree of arrays, and
            ``tangent(residuals, args_dot)`` and ``transpose(residuals, results_bar)`` deal with
            the marked arguments and the results of inexact type only. They may hold on to
            anything but traced arrays.
    """

    @jax.custom_jvp
    def call(*args):
        return run(list(args))

    def call_jvp(primals, tangents):
        moves = tuple(not isinstance(t, SymbolicZero) for t in tangents)
        results, residuals, tangent, transpose = rule(moves, list(primals))
        moved = [t for t, moving in zip(tangents, moves, strict=True) if moving]
        leaves, tree = jax.tree.flatten(results)
        smooth = [i for i, leaf in enumerate(leaves) if inexact(leaf)]
        dots = [zero_tangent(leaf) for leaf in leaves]
        likes = [leaves[i] for i in smooth]
        for i, dot in zip(smooth, linear(tangent, transpose, residuals, moved, likes), strict=True):
            dots[i] = dot
        return results, jax.tree.unflatten(tree, dots)

    call.defjvp(call_jvp, symbolic_zeros=True)
    return lambda args: call(*args)


def linear(
    tangent: Tangent, transpose: Transpose, residuals: Any, x: Leaves, likes: Leaves | None = None
) -> Leaves:
    """``tangent(residuals, x)``, linear in ``x``, with a transpose of its own.

    With ``likes``, arrays such as it returns, reverse mode need not trace it.
    """
    flat, tree = jax.tree.flatten(residuals)
    types = None if likes is None else tuple(map(jax.typeof, likes))
    how = {"tangent": tangent, "transpose": transpose, "tree": tree, "types": types}
    return _linear.bind(*flat, *x, **how) if x else []


_linear = Primitive("linear_with_transpose")
_linear.multiple_results = True


def _parts(args, tree):
    return jax.tree.unflatten(tree, args[: tree.num_leaves]), list(args[tree.num_leaves :])


def _apply(*args, tangent, tree, **_):
    return tangent(*_parts(args, tree))


def _transpose(bars, *args, transpose, tree, **_):
    residuals, x = _parts(args, tree)
    bars = [None if isinstance(bar, ad.Zero) else bar for bar in bars]
    x_bar = iter(transpose(residuals, bars))
    return [None] * tree.num_leaves + [next(x_bar) for _ in x]


def _jvp(primals, tangents, **how):
    """Forward mode once more: ``tangent`` is differentiated as plain JAX."""
    return jvp(partial(_apply, **how), primals, tangents)


def _batch(axis, args, dims, *, tangent, transpose, tree, **_):
    """Both maps batched; a result is batched if it varies, as the function's own results are."""
    name = {"axis_name": axis.name, "axis_size": axis.size, "spmd_axis_name": axis.spmd_name}
    vmap = partial(jax.vmap, **name)
    args = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True)]
    dims = [None if d is None else 0 for d in dims]
    flat, x = args[: tree.num_leaves], args[tree.num_leaves :]
    flat_dims, x_dims = dims[: tree.num_leaves], dims[tree.num_leaves :]

    def one(flat, x):
        return tangent(jax.tree.unflatten(tree, flat), x)

    out_dims = varying(vmap, one, (flat_dims, x_dims), (flat, x))

    def whole(flat, x):
        return vmap(one, (flat_dims, x_dims), out_dims)(flat, x)

    def whole_transpose(flat, bars):
        pairs = zip(bars, out_dims, strict=True)
        bars = [_once(bar, axis.size) if d is None else bar for bar, d in pairs]
        one = lambda flat, bars: transpose(jax.tree.unflatten(tree, flat), bars)  # noqa: E731
        x_bar = vmap(one, (flat_dims, 0), 0)(flat, bars)
        return [bar.sum(0) if d is None else bar for bar, d in zip(x_bar, x_dims, strict=True)]

    return linear(whole, whole_transpose, flat, x), out_dims


def _once(bar, size):
    """A cotangent that all members of a batch share, given to the first of them."""
    if bar is None:
        return None
    return jnp.zeros((size, *bar.shape), bar.dtype).at[0].set(bar)


def varying(vmap, f, dims, args):
    """0 for each result of ``vmap(f)`` that varies along the axis, None for the others."""
    found = set()

    def marked(*args):
        return [_mark.bind(out, note=partial(found.add, i)) for i, out in enumerate(f(*args))]

    results = jax.eval_shape(vmap(marked, dims), *args)
    return [0 if i in found else None for i in range(len(results))]


_mark = Primitive("mark")  # the identity, that tells when it is batched


def _mark_batch(_, args, dims, *, note):
    if dims[0] is not None:
        note()
    return args[0], dims[0]


_mark.def_abstract_eval(lambda x, **_: x)
batching.fancy_primitive_batchers[_mark] = _mark_batch


def _shapes(*args, types, **how):
    """With shardings and the mesh axes along which results vary."""
    if types is not None:
        return list(types)
    return jax.make_jaxpr(partial(_apply, **how))(*args).out_avals


def kept_whole(run: Callable[[Leaves], Any]) -> Callable[[Leaves], Any]:
    """``run``, in one piece where JAX would evaluate a part of it ahead.

    Linearizing, JAX (to 0.11) splits off what a loop computes from its constants alone, and forgets
    `jax.custom_jvp` rules of the rest on the way: a derivative of second order would look through
    them.
    """

    @jax.custom_jvp
    def call(*args):
        return run(list(args))

    def call_jvp(primals, tangents):
        return jvp(lambda *args: run(list(args)), primals, tangents)

    call.defjvp(call_jvp, symbolic_zeros=True)
    return lambda args: call(*args)


def jvp(f: Callable, primals, tangents):
    """``jax.jvp`` where tangents that are known to be zero stand as the symbols for that."""
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero | SymbolicZero)]

    def of_moved(*moved):
        args = list(primals)
        for i, value in zip(moving, moved, strict=True):
            args[i] = value
        return f(*args)

    return jax.jvp(of_moved, [primals[i] for i in moving], [tangents[i] for i in moving])


def inexact(leaf) -> bool:
    """Whether an array has a derivative."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def zero_tangent(leaf):
    """What JAX takes for the tangent of an array that has none."""
    if inexact(leaf):
        return jnp.zeros_like(leaf)
    return np.zeros(jnp.shape(leaf), jax.dtypes.float0)


@jax.custom_jvp
def forward_only(leaf):
    """The array itself, in forward mode; reverse mode is refused."""
    return leaf


@forward_only.defjvp
def _forward_only_jvp(primals, tangents):
    return primals[0], linear(lambda _, x: x, refuse, None, list(tangents))[0]


def refuse(*_):
    """The transpose of what has none."""
    raise NotImplementedError(
        "reverse mode over reverse mode is not offered through a checkpointed loop: take forward "
        "over reverse, jax.jvp(jax.grad(f), …), diffsim.hvp or jax.hessian"
    )


_linear.def_impl(_apply)
_linear.def_abstract_eval(_shapes)
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.fancy_primitive_batchers[_linear] = _batch  # with the name of the axis, for collectives
mlir.register_lowering(_linear, mlir.lower_fun(_apply, multiple_results=True))
