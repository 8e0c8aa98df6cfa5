"""Second derivatives without a matrix: how a gradient, or a misfit, bends along a direction.

Both products cost a few gradients whatever the number of parameters, and go through every strategy
that has a forward mode. The time loop then carries a state and its tangent, so that a product keeps
twice the bytes of a gradient.
"""

from collections.abc import Callable
from typing import Any

import jax


def hvp(f: Callable[[Any], Any], x: Any, v: Any) -> Any:
    """``H v`` with the Hessian ``H`` of a scalar function: the derivative of ``∇f`` along ``v``.

    Forward mode over reverse mode (Pearlmutter 1994, Neural Computation 6): about two gradients.
    ``H`` is symmetric but need not be positive: a Newton step wants a solver that allows for that.

    Args:
        f: scalar function of one pytree of floating arrays
        x: where
        v: direction, like ``x``

    Returns:
        ``H v``, like ``x``. Use ``jax.vmap`` over ``v`` for several directions at once.
    """
    return jax.jvp(jax.grad(f), (x,), (v,))[1]


def gauss_newton_vp(
    data: Callable[[Any], Any], misfit: Callable[[Any], Any], x: Any, v: Any
) -> Any:
    """``Jᵀ H J v``: the Hessian of ``misfit(data(x))`` without the second derivative of ``data``.

    ``J`` is the derivative of the data (forward mode), ``H`` the Hessian of the misfit at the data
    and ``Jᵀ`` the adjoint (reverse mode). Never negative where the misfit is convex, and the full
    Hessian where the data are linear in ``x`` or fit (Schraudolph 2002, Neural Computation 14;
    Pratt, Shin & Hicks 1998, Geophysical Journal International 133).

    Args:
        data: function of one pytree of floating arrays, for example what `simulate` observes
        misfit: scalar function of the data
        x: where
        v: direction, like ``x``

    Returns:
        ``Jᵀ H J v``, like ``x``.
    """
    seen, moved = jax.jvp(data, (x,), (v,))
    _, transpose = jax.vjp(data, x)
    return transpose(hvp(misfit, seen, moved))[0]
