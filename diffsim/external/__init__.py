"""Code outside JAX as a differentiable step: NumPy, SciPy, a compiled solver."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffsim.external.check import check
from diffsim.external.code import Code, as_jax_gives
from diffsim.external.derivative import differentiable


def external_step(
    forward: Callable[..., Any],
    vjp: Callable[[tuple, Any], tuple],
    jvp: Callable[[tuple, tuple], Any] | None = None,
    *,
    example: tuple,
    batched: bool = False,
) -> Callable[..., Any]:
    """A function of JAX arrays that runs code outside JAX, as does its derivative.

    The three functions get and give pytrees of NumPy arrays, read-only where they come in::

        forward(*args) -> y
        vjp(args, y_bar) -> args_bar    Jᵀ y_bar with J = ∂y/∂args; a tuple, one entry an argument
        jvp(args, args_dot) -> y_dot    J args_dot

    ``_bar`` and ``_dot`` have None in place of arrays without a derivative (integers). ``Jᵀ`` is
    JAX's: without conjugation. The functions must be pure and must not call JAX. A first call, at
    the example, holds the derivatives against ``forward`` (see `diffsim.external.check`).

    Args:
        forward: the function
        vjp: its transposed derivative
        jvp: its derivative; without it forward mode (``jax.jvp``) is refused
        example: a tuple of arguments: all calls have its shapes and types. Typical values: the test
            moves each array by about 1e-5 of its largest magnitude (5e-3 in float32)
        batched: under each ``vmap`` the functions take one more leading axis on all arrays; else
            they are called once for each member

    Returns:
        the function; works under ``jit``, ``vmap`` and ``grad``, and in a loop of any strategy

    Raises:
        ValueError: if a derivative is wrong; says in which argument and by how much
        TypeError: if something has not the structure, shape or type that it should have
    """
    code = Code.at(example, forward, vjp, jvp)
    check(code, as_jax_gives(jax.tree.leaves(example)), batched)
    run = differentiable(code, "broadcast_all" if batched else "sequential")

    def step(*args):
        leaves = code.args.flat(jax.tree.map(jnp.asarray, args))
        return code.results.tree.unflatten(run(leaves))

    return step
