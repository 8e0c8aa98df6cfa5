"""``lax.scan`` with a choice of how its backward pass remembers the past."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from diffsim.adjoint.restarts import NO_RESTARTS, Restarts
from diffsim.adjoint.scaling import AS_THEY_ARE, Scaling
from diffsim.adjoint.steps import Leaves, Split, Step
from diffsim.linear import inexact, zero_tangent
from diffsim.solver import frozen


class Adjoint(ABC):
    """How the past is remembered."""

    @property
    def compiles(self) -> bool:
        """Whether a gradient can be one compiled program, under ``jax.jit``."""
        return True

    @abstractmethod
    def loop(
        self, step: Step, consts: Leaves, carry: Leaves, xs: Leaves, length: int
    ) -> tuple[Leaves, Leaves]:
        """Run ``length`` >= 1 steps; everything that has a derivative is an argument."""

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
            With 1 a step that costs far more than to copy its state compiles in half the time
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
    types = jax.eval_shape(plain)
    slices, xs_tree = jax.tree.flatten(xs)
    steps = len(slices[0]) if slices else int(length or 0)
    if steps <= 0:
        return plain()
    carry, carry_tree = jax.tree.flatten(jax.tree.map(_promoted, init, types[0]))
    step, consts = _closed(f, carry, carry_tree, slices, xs_tree)
    carry, inputs = [_strong(leaf) for leaf in carry], [_strong(leaf) for leaf in slices]
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


def _strong(leaf):
    leaf = jnp.asarray(leaf)
    return lax.convert_element_type(leaf, leaf.dtype) if jax.typeof(leaf).weak_type else leaf


def _weak_if(like, leaf):
    how = {"new_dtype": like.dtype, "weak_type": like.weak_type, "sharding": None}
    same = jax.typeof(leaf).weak_type == like.weak_type
    return leaf if same else primitives.convert_element_type_p.bind(leaf, **how)


@dataclass(frozen=True)
class Invertible:
    """A step that can be undone, for ``scan(…, adjoint=Reversible())``.

    ``forward(carry, x) -> (carry, y, destroyed)`` is the step with what `backward` needs to undo it
    besides the new carry: ``backward(carry, x, destroyed)`` gives the carry before. To every other
    strategy it is the function ``(carry, x) -> (carry, y)``.
    """

    forward: Callable[[Any, Any], tuple[Any, Any, Any]]
    backward: Callable[[Any, Any, Any], Any]

    def __call__(self, carry, x):
        return self.forward(carry, x)[:2]


@dataclass(frozen=True, eq=False)
class Retraceable:
    """A step that can be undone and transposed in one go, for ``scan(…, adjoint=Reversible())``.

    ``step(carry, x) -> carry`` is the step, ``trace(carry, x) -> (carry, kept)`` the same with what
    `back` needs besides the new carry; ``look(carry, scale=None) -> (carry, y)`` sees the new carry
    and hands it on; ``back(carry, x, kept, carry_bar, total, scale)`` gives the carry before, and
    the cotangents of ``consts``, added to ``total``, of that carry and of ``x``: None for what has
    none. ``consts`` are the arrays that the step closes over. The walk back starts afresh from
    ``restarts``. In `back`, and in what `look` with a scale adds in reverse, the cotangents of the
    carry and of ``consts`` are as ``scaling`` makes them. To every other strategy it is the
    function ``(carry, x) -> (carry, y)``, but ``Sampled(…)`` takes
    ``blind(x, carry_bar, scale)``, if there is one: the cotangents with no carry, those of
    ``consts`` as they are, or None where they ask for it.
    """

    step: Callable[[Any, Any], Any]
    trace: Callable[[Any, Any], tuple[Any, Any]]
    look: Callable[..., tuple[Any, Any]]
    back: Callable[..., tuple[Any, Any, Any, Any]]
    consts: Any
    restarts: Restarts = NO_RESTARTS
    scaling: Scaling = AS_THEY_ARE
    blind: Callable[[Any, Any, Any], tuple[Any, Any, Any]] | None = None

    def __call__(self, carry, x):
        return self.look(self.step(carry, x))


def _closed(f, carry, carry_tree, xs, xs_tree) -> tuple[Step, Leaves]:
    """``f`` traced once, on flat lists, with all that it closes over as its first argument."""

    def unflat(carry, x):
        return jax.tree.unflatten(carry_tree, carry), jax.tree.unflatten(xs_tree, x)

    def flat(carry, x):
        return tuple(jax.tree.leaves(part) for part in f(*unflat(carry, x)))

    consts: Leaves = []
    slices = [jax.eval_shape(lambda x: x[0], x) for x in xs]
    if isinstance(f, Invertible):
        step = _invertible(f, unflat, carry, slices, consts)
    elif isinstance(f, Retraceable):
        step = _retraceable(f, unflat, carry, carry_tree, slices, consts)
    else:
        step = Step(lifted(flat, (carry, slices), consts))
    return step, [_strong(c) for c in consts]


def _invertible(f: Invertible, unflat, carry, slices, consts) -> Step:
    def forward(carry, x):
        return tuple(jax.tree.leaves(part) for part in f.forward(*unflat(carry, x)))

    def backward(carry, x, destroyed):
        destroyed = jax.tree.unflatten(destroyed_tree, destroyed)
        before = f.backward(*unflat(carry, x), destroyed)  # pyright: ignore[reportCallIssue]
        return jax.tree.leaves(before)

    example = jax.eval_shape(lambda c, x: f.forward(*unflat(c, x))[2], carry, slices)
    destroyed, destroyed_tree = jax.tree.flatten(example)
    keeping = lifted(forward, (carry, slices), consts)
    undo = lifted(backward, (carry, slices, destroyed), consts)
    return Step(lambda *args: keeping(*args)[:2], keeping, undo)


def _retraceable(f: Retraceable, unflat, carry, carry_tree, slices, consts) -> Step:
    smooth = Split.by_type(carry)
    known, known_tree = jax.tree.flatten(f.consts)
    of_known = Split.by_type(known)
    of_consts, rest = of_known.of(known), [zero_tangent(c) for c in of_known.rest(known)]

    def call(carry, x):
        return tuple(jax.tree.leaves(part) for part in f(*unflat(carry, x)))

    def trace(carry, x):
        new, kept = f.trace(*unflat(carry, x))
        return tuple(jax.tree.leaves(part) for part in (*f.look(new), kept))

    def look(carry, x, scale):
        new, _ = unflat(carry, x)
        return tuple(jax.tree.leaves(part) for part in f.look(new, whole_scale(scale)))

    def whole_scale(scale):
        return jax.tree.unflatten(scale_tree, scale)

    def whole_bars(carry_bar):
        return jax.tree.unflatten(carry_tree, smooth.spread(carry_bar))

    def whole_total(total):
        return jax.tree.unflatten(known_tree, of_known.join(total, rest))

    def back(carry, x, kept, carry_bar, total, scale):
        carry, x = unflat(carry, x)
        kept = jax.tree.unflatten(kept_tree, kept)
        bars = whole_bars(carry_bar), whole_total(total), whole_scale(scale)
        before, *bars = f.back(carry, x, kept, *bars)
        return jax.tree.leaves(before), *map(_inexact_leaves, bars)

    def into(scale, carry_bar):
        return _inexact_leaves(f.scaling.into(whole_scale(scale), whole_bars(carry_bar)))

    def out(scale, carry_bar, total):
        bars = f.scaling.out(whole_scale(scale), whole_bars(carry_bar), whole_total(total))
        return tuple(map(_inexact_leaves, bars))

    example = jax.eval_shape(lambda c, x: f.trace(*unflat(c, x))[1], carry, slices)
    kept, kept_tree = jax.tree.flatten(example)
    calling = lifted(call, (carry, slices), consts)
    keeping = lifted(trace, (carry, slices), consts)
    scale, scale_tree = jax.tree.flatten(jax.eval_shape(f.scaling.scale))
    looking = lifted(look, (carry, slices, scale), consts)
    bars = smooth.of(carry), of_consts
    retrace = lifted(back, (carry, slices, kept, *bars, scale), consts)
    scales = lifted(lambda: jax.tree.leaves(f.scaling.scale()), (), consts)
    scaled, plain = lifted(into, (scale, bars[0]), consts), lifted(out, (scale, *bars), consts)
    places = _places(f.consts, consts)

    def sums(total):
        first = [None if i is None or i in places[:n] else total[i] for n, i in enumerate(places)]
        pairs = zip(first, of_consts, strict=True)
        return [jnp.zeros_like(const) if bar is None else bar for bar, const in pairs]

    def retraced(known, carry, x, kept, carry_bar, total, scale):
        before, found, carry_bar, x_bar = retrace(
            known, carry, x, kept, carry_bar, sums(total), scale
        )
        return before, _by_place(places, found), carry_bar, Split.by_type(x).spread(x_bar)

    def unscaled(known, scale, carry_bar, total):
        carry_bar, found = plain(known, scale, carry_bar, sums(total))
        return carry_bar, _by_place(places, found)

    def scaling(known):
        return Scaling(*(partial(part, known) for part in (scales, scaled, unscaled)))

    afresh = _afresh(f.restarts, carry, carry_tree, consts)
    step = Step(calling, keeping, None, retraced, looking, afresh, scaling)
    if f.blind:
        types = slices, smooth.of(carry), scale
        step = replace(step, blind=_blind(f, unflat, whole_bars, whole_scale, carry, types, consts))
    return step


def _inexact_leaves(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if inexact(leaf)]


def _afresh(restarts: Restarts, carry, carry_tree, consts):
    """Restarts on flat lists, by the constants of the step."""

    def keep(carry):
        return jax.tree.leaves(restarts.keep(jax.tree.unflatten(carry_tree, carry)))

    def restore(carry, kept):
        carry, kept = jax.tree.unflatten(carry_tree, carry), jax.tree.unflatten(tree, kept)
        return jax.tree.leaves(restarts.restore(carry, kept))

    whole = lambda carry: restarts.keep(jax.tree.unflatten(carry_tree, carry))  # noqa: E731
    kept, tree = jax.tree.flatten(jax.eval_shape(whole, carry))
    keeping, restoring = lifted(keep, (carry,), consts), lifted(restore, (carry, kept), consts)
    return lambda known: Restarts(
        restarts.every, partial(keeping, known), partial(restoring, known)
    )


def _blind(f: Retraceable, unflat, whole_bars, whole_scale, carry, types, consts):
    paths = [p for p, c in jax.tree.leaves_with_path(f.consts) if inexact(c)]

    def blind(x, carry_bar, scale):
        _, x = unflat(carry, x)
        bars = whole_bars(carry_bar), whole_scale(scale)
        consts_bar, *bars = f.blind(x, *bars)  # pyright: ignore[reportOptionalCall]
        known = dict(jax.tree.leaves_with_path(consts_bar))
        return [known.get(path) for path in paths], *map(_inexact_leaves, bars)

    lowered, places = lifted(blind, types, consts), _places(f.consts, consts)

    def transposed(known, x, carry_bar, scale):
        found, carry_bar, x_bar = lowered(known, x, carry_bar, scale)
        return _by_place(places, found), carry_bar, Split.by_type(x).spread(x_bar)

    return transposed


def _places(of_step, consts):
    """The number, among the constants, of each array of a step that has a derivative.

    None for what is known to JAX by its value: it is no argument, and has no cotangent.
    """
    smooth = [c for c in jax.tree.leaves(of_step) if inexact(c)]
    return [next((i for i, c in enumerate(consts) if c is const), None) for const in smooth]


def _by_place(places, bars):
    """Cotangents by the number of what they belong to."""
    total: dict[int, Any] = {}
    for place, bar in zip(places, bars, strict=True):
        if place is None:
            continue
        total[place] = total[place] + bar if place in total else bar
    return total


def lifted(f, args, consts: Leaves):
    """``f`` of lists as a function of ``consts`` too, which gains what ``f`` closes over."""
    closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
    places = []
    for const in closed.consts:
        if not isinstance(jax.typeof(const), jax.core.ShapedArray):
            raise NotImplementedError(
                "the step uses a jax.Ref made outside it, which a recomputed step would change "
                "again: carry the array along, or take StoreAll()"
            )
        known = [i for i, other in enumerate(consts) if other is const]
        if not known:
            known = [len(consts)]
            consts.append(const)
        places.append(known[0])
    tree = jax.tree.structure(out)

    def lifted(consts, *args):
        jaxpr = core.ClosedJaxpr(closed.jaxpr, [consts[i] for i in places])
        out = core.jaxpr_as_fun(jaxpr)(*jax.tree.leaves(args))
        return jax.tree.unflatten(tree, map(_strong, out))

    return lifted
