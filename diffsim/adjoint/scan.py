"""``lax.scan`` with a choice of how its backward pass remembers the past."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Self

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend.core import primitives

from diffsim.adjoint.flat import closed, strong
from diffsim.adjoint.steps import Leaves, Step
from diffsim.batch import asks_for_turns
from diffsim.solver import frozen


class Adjoint(ABC):
    """How the past is remembered. Its ``repr`` leaves out what is as it is by default."""

    def __init_subclass__(cls, **how):
        super().__init_subclass__(**how)
        if "__repr__" not in vars(cls):  # or a dataclass would write one
            cls.__repr__ = Adjoint.__repr__

    def __repr__(self):
        own: Any = self
        known = fields(own) if is_dataclass(self) else ()
        values = [(field, getattr(self, field.name)) for field in known]
        given = [f"{field.name}={value!r}" for field, value in values if value != field.default]
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def compiles(self) -> bool:
        """Whether a gradient can be one compiled program, under ``jax.jit``."""
        return True

    @abstractmethod
    def loop(
        self, step: Step, consts: Leaves, carry: Leaves, xs: Leaves, length: int
    ) -> tuple[Leaves, Leaves]:
        """Run ``length`` >= 1 steps; everything that has a derivative is an argument."""

    def suited(self, walks: bool, every: int = 1) -> Self:
        """The same, with what it left open chosen for steps that can be walked back, or not, of
        which the loop takes ``every`` at once."""
        return self

    @abstractmethod
    def states(self, length: int) -> int:
        """How many states are kept at once in the backward pass of ``length`` steps."""

    @abstractmethod
    def evaluations(self, length: int) -> int:
        """How many steps a gradient evaluates, those that it reverses counted once."""


@frozen
class StoreAll(Adjoint):
    """Keep what JAX keeps: every intermediate value that a step's transpose needs.

    The yardstick for the others: least arithmetic, most memory (several fields a step).
    """

    def loop(self, step, consts, carry, xs, length):
        return lax.scan(lambda c, x: step(consts, c, x), carry, xs, length)

    def states(self, length):
        return length

    def evaluations(self, length):
        return length


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool | None = None,
    *,
    adjoint: Adjoint = StoreAll(),  # noqa: B008
) -> tuple[Any, Any]:
    """``jax.lax.scan``, with a strategy for its backward pass.

    Values, gradients and exceptions are those of ``jax.lax.scan``; only the memory and the time of
    reverse-mode differentiation change. ``f`` may close over arrays: they get gradients too.

    Args:
        f: ``(carry, x) -> (carry, y)``, pure
        init: the carry before the first step, any pytree; integer leaves ride along
        xs: pytree of arrays with a leading axis of the number of steps, or None
        length: number of steps; needed if ``xs`` is None
        reverse: run from the last slice of ``xs`` to the first
        unroll: steps in a loop body; if None, 1 as in ``jax.lax.scan`` for ``StoreAll()`` and 2
            for the others, so that a scheme with two time levels swaps its buffers without a copy.
            With 1 a step that costs far more than to copy its state compiles in half the time.
            A block that ``Revolve`` or ``Periodic`` replays on the device is no loop if it has
            up to four times as many steps. With False, for an ``f`` that is a loop itself, none is
        adjoint: ``StoreAll()``, ``Periodic(every)`` or ``Revolve(checkpoints)``

    Returns:
        ``(carry, ys)`` as ``jax.lax.scan`` does.
    """
    if not isinstance(adjoint, Adjoint):
        raise TypeError(
            f"adjoint={adjoint!r} is not a strategy: give StoreAll(), Periodic(every=…) or "
            "Revolve(checkpoints=…)"
        )

    def plain():
        return lax.scan(f, init, xs, length, reverse, 1 if unroll is None else unroll)

    # without jit every value is at hand and kept, as somebody who debugs wants it
    if isinstance(adjoint, StoreAll) or jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return plain()
    # lax.scan itself checks the arguments and settles the carry's types
    program, types = jax.make_jaxpr(plain, return_shape=True)()
    types = jax.tree.unflatten(jax.tree.structure(types), program.out_avals)
    slices = jax.tree.leaves(xs)
    steps = len(slices[0]) if slices else int(length or 0)
    if steps <= 0:
        return plain()
    init = jax.tree.map(_promoted, init, types[0])
    first = jax.tree.map(lambda x: jax.eval_shape(lambda x: x[0], x), xs)
    step, consts = closed(f, init, first)
    carry, inputs = (
        [strong(leaf) for leaf in leaves] for leaves in (jax.tree.leaves(init), slices)
    )
    step = replace(step, in_turn=asks_for_turns(program.jaxpr))
    if unroll is not None:
        step = replace(step, unroll=unroll)
    if reverse:
        inputs = [jnp.flip(x, 0) for x in inputs]
    carry, ys = adjoint.loop(step, consts, carry, inputs, steps)
    if reverse:
        ys = [jnp.flip(y, 0) for y in ys]
    leaves, tree = jax.tree.flatten(types)
    return jax.tree.unflatten(tree, map(_weak_if, leaves, [*carry, *ys]))


def _promoted(leaf, like):
    """A leaf of the carry as ``lax.scan`` hands it to the first step."""
    leaf = jnp.asarray(leaf)
    return leaf if leaf.dtype == like.dtype else lax.convert_element_type(leaf, like.dtype)


# Strategies keep and add up arrays of strong type. The conversions at the border give results and
# gradients the weak types that lax.scan's have.


def _weak_if(like, leaf):
    how = {"new_dtype": like.dtype, "weak_type": like.weak_type, "sharding": None}
    same = jax.typeof(leaf).weak_type == like.weak_type
    return leaf if same else primitives.convert_element_type_p.bind(leaf, **how)
