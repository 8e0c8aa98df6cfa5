"""A JAX function, for example a simulation, as a PyTorch function with a gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffsim.adjoint.steps import Split

try:
    import torch  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError(
        "diffsim.torch needs PyTorch, which is not installed: pip install 'diffsim-adjoint[torch]'"
    ) from error

DOUBLE = torch.float64, torch.complex128, torch.int64


def as_torch(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` of JAX arrays as a function of PyTorch tensors; ``backward`` runs ``jax.vjp``.

    So a strategy inside ``f`` bounds the memory of PyTorch's gradient too::

        shoot = as_torch(lambda params: simulate(…, params, …, adjoint=Revolve(20))[1])
        loss = torch.sum((shoot(params) - observed) ** 2)
        loss.backward()

    ``f`` is compiled once for each structure, shapes and types of its arguments and set of those
    that require a gradient; no other gradient is computed. Memory is shared, not copied, where
    tensors are contiguous and begin on a 64-byte boundary, as new ones do. Second derivatives are
    refused: take them in JAX.

    Args:
        f: pure, from pytrees of arrays to a pytree of arrays

    Returns:
        a function of such pytrees of tensors, all on one device that JAX has too; float64 tensors
        need ``jax.config.update("jax_enable_x64", True)``
    """
    compiled = _compiled(f)

    def call(*args):
        tensors, tree = jax.tree.flatten(args)
        for path, tensor in jax.tree_util.tree_leaves_with_path(args):
            _check("args" + jax.tree_util.keystr(path), tensor)
        moves = tuple(torch.is_grad_enabled() and t.requires_grad for t in tensors)
        tree, *results = _Function.apply(compiled, tree, moves, *tensors)
        return jax.tree.unflatten(tree, results)

    return call


class _Compiled(NamedTuple):
    value: Callable  # tree, arrays -> result
    value_and_pull: Callable  # tree, moves, arrays -> result, pull
    pull: Callable  # pull, cotangents of inexact results -> of what moves


def _compiled(f) -> _Compiled:
    def value(tree, arrays):
        return jax.tree.map(jnp.asarray, f(*jax.tree.unflatten(tree, arrays)))

    def value_and_pull(tree, moves, arrays):
        moving = Split(moves)

        def moved(smooth):
            result = value(tree, moving.join(smooth, moving.rest(arrays)))
            leaves = jax.tree.leaves(result)
            return Split.by_type(leaves).of(leaves), result

        _, pull, result = jax.vjp(moved, moving.of(arrays), has_aux=True)
        return result, pull

    def pull(pull, bars):
        """With PyTorch's gradient of a complex array, the conjugate of JAX's."""
        return [jnp.conj(bar) for bar in pull([jnp.conj(bar) for bar in bars])[0]]

    sweep = jax.jit(value_and_pull, static_argnames=("tree", "moves"))
    return _Compiled(jax.jit(value, static_argnames="tree"), sweep, jax.jit(pull))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, compiled, tree, moves, *tensors):
        arrays = [_to_jax(tensor) for tensor in tensors]
        if any(moves):
            result, pull = compiled.value_and_pull(tree, moves, arrays)
        else:
            result, pull = compiled.value(tree, arrays), None
        kept, ctx.tree = jax.tree.flatten(pull)
        results, result_tree = jax.tree.flatten(result)
        ctx.compiled, ctx.moves = compiled, Split((False, False, False, *moves))
        ctx.results, ctx.kept = Split.by_type(results), Split.by_type(kept)
        ctx.rest = ctx.kept.rest(kept)
        # PyTorch frees what is kept with the graph, and notices if an argument is changed before
        smooth = _to_torch(ctx.kept.of(kept))
        ctx.save_for_backward(*smooth, *tensors)
        results = _to_torch(results)
        ctx.mark_non_differentiable(*ctx.results.rest(results))
        return result_tree, *results

    @staticmethod
    def backward(ctx, _, *bars):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "create_graph=True asks for second derivatives, which as_torch has not: take them "
                "in JAX, jax.jvp(jax.grad(f), …), or leave it out"
            )
        smooth = ctx.saved_tensors[: sum(ctx.kept.smooth)]
        kept = ctx.kept.join(map(_to_jax, smooth), ctx.rest)
        bars = [_to_jax(bar) for bar in ctx.results.of(bars)]
        grads = ctx.compiled.pull(jax.tree.unflatten(ctx.tree, kept), bars)
        return tuple(ctx.moves.spread(_to_torch(grads)))


def _check(path, tensor):
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(
            f"{path} is a {type(tensor).__name__}: give tensors; functools.partial binds the rest"
        )
    platforms = {"cuda" if d.platform == "gpu" else d.platform for d in jax.devices()} | {"cpu"}
    if tensor.device.type not in platforms:
        raise ValueError(
            f"{path} is on {tensor.device}, and JAX has {sorted(platforms)} here: move it with "
            "tensor.cpu(), or install JAX for that device"
        )
    if tensor.dtype in DOUBLE and jnp.result_type(float) != jnp.float64:
        raise TypeError(
            f"{path} is {tensor.dtype}, and JAX is set to single precision: call "
            'jax.config.update("jax_enable_x64", True), or convert the tensor'
        )


def _to_jax(tensor):
    """An array in the tensor's memory if that is contiguous."""
    return jnp.from_dlpack(tensor.detach().resolve_conj().resolve_neg().contiguous())


def _to_torch(arrays):
    """Tensors in the memory of a compiled program's results, which nobody else has."""
    jax.block_until_ready(arrays)  # from now on PyTorch may overwrite what the program read
    return [torch.from_dlpack(array) for array in arrays]
