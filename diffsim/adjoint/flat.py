"""A step on pytrees as a `Step` on flat lists, with all that it closes over as an argument.

What is traced on pytrees is called with lists of their leaves: the order is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from diffsim.adjoint.blind import Blind
from diffsim.adjoint.restarts import Restarts
from diffsim.adjoint.scaling import Scaling
from diffsim.adjoint.steps import Leaves, Split, Step
from diffsim.linear import inexact, zero_tangent


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
class Accumulating:
    """A step whose transpose adds to the sums so far, in strategies that replay it.

    ``step(carry, x) -> carry`` is the step, ``look(carry) -> (carry, y)`` sees the new carry and
    hands it on; ``pull(carry, x, carry_bar, total)`` gives the cotangents of ``consts``, added to
    ``total``, of the carry and of ``x``: None for what has none. ``consts`` are the arrays that
    the step closes over. To ``StoreAll()`` it is the function ``(carry, x) -> (carry, y)``.
    """

    step: Callable[[Any, Any], Any]
    look: Callable[[Any], tuple[Any, Any]]
    pull: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]
    consts: Any

    def __call__(self, carry, x):
        return self.look(self.step(carry, x))


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
    function ``(carry, x) -> (carry, y)``, but ``Sampled(…)`` takes ``blind``, if there is one.
    """

    step: Callable[[Any, Any], Any]
    trace: Callable[[Any, Any], tuple[Any, Any]]
    look: Callable[..., tuple[Any, Any]]
    back: Callable[..., tuple[Any, Any, Any, Any]]
    consts: Any
    restarts: Restarts
    scaling: Scaling
    blind: Blind | None = None

    def __call__(self, carry, x):
        return self.look(self.step(carry, x))


def closed(f, carry, x) -> tuple[Step, Leaves]:
    """``f`` traced once, for such a carry and slice, and the arrays that it closes over."""
    consts: Leaves = []
    if isinstance(f, Invertible):
        step = _invertible(f, carry, x, consts)
    elif isinstance(f, Retraceable):
        step = _retraceable(f, carry, x, consts)
    elif isinstance(f, Accumulating):
        step = _accumulating(f, carry, x, consts)
    else:
        step = Step(lifted(_lists(f), (carry, x), consts))
    return step, [strong(c) for c in consts]


def _lists(f):
    """``f`` with all parts of what it returns as flat lists."""
    return lambda *args: tuple(jax.tree.leaves(part) for part in f(*args))


def _invertible(f: Invertible, carry, x, consts) -> Step:
    def backward(*args):
        return jax.tree.leaves(f.backward(*args))

    destroyed = jax.eval_shape(f.forward, carry, x)[2]
    keeping = lifted(_lists(f.forward), (carry, x), consts)
    undo = lifted(backward, (carry, x, destroyed), consts)
    return Step(lambda *args: keeping(*args)[:2], keeping, undo)


def _accumulating(f: Accumulating, carry, x, consts) -> Step:
    def look(carry, _, scale):
        return f.look(carry)

    def pull(carry, x, carry_bar, total):
        return map(_smooth, f.pull(carry, x, carry_bar, _whole(f.consts, total)))

    calling = lifted(_lists(f), (carry, x), consts)
    stepping = lifted(lambda *args: jax.tree.leaves(f.step(*args)), (carry, x), consts)
    looking = lifted(_lists(look), (carry, x, None), consts)
    pulling = lifted(_lists(pull), (carry, x, _smooth(carry), _smooth(f.consts)), consts)
    places = _places(f.consts, consts)

    def accumulate(known, carry, x, carry_bar, total):
        sums = _sums(places, f.consts, total)
        found, carry_bar, x_bar = pulling(known, carry, x, carry_bar, sums)
        return _by_place(places, found), carry_bar, Split.by_type(x).spread(x_bar)

    return Step(calling, look=looking, forth=stepping, accumulate=accumulate)


def _retraceable(f: Retraceable, carry, x, consts) -> Step:
    def trace(carry, x):
        new, kept = f.trace(carry, x)
        return *f.look(new), kept

    def look(carry, _, scale):
        return f.look(carry, scale)

    def back(carry, x, kept, carry_bar, total, scale):
        before, *bars = f.back(carry, x, kept, carry_bar, _whole(f.consts, total), scale)
        return before, *map(_smooth, bars)

    bars, scale = (_smooth(carry), _smooth(f.consts)), jax.eval_shape(f.scaling.scale)
    kept = jax.eval_shape(f.trace, carry, x)[1]
    calling, keeping = (lifted(_lists(g), (carry, x), consts) for g in (f, trace))
    looking = lifted(_lists(look), (carry, x, scale), consts)
    backing = lifted(_lists(back), (carry, x, kept, *bars, scale), consts)
    scaling = _scaling(f, bars, scale, consts)
    places = _places(f.consts, consts)

    def retrace(known, carry, x, kept, carry_bar, total, scale):
        sums = _sums(places, f.consts, total)
        before, found, carry_bar, x_bar = backing(known, carry, x, kept, carry_bar, sums, scale)
        return before, _by_place(places, found), carry_bar, Split.by_type(x).spread(x_bar)

    afresh = _afresh(f.restarts, carry, consts)
    step = Step(calling, keeping, None, retrace, looking, afresh, scaling)
    if f.blind:
        step = replace(step, blind=_blind(f, carry, x, scale, consts))
    return step


def _scaling(f: Retraceable, bars, scale, consts):
    """Its scaling on flat lists, by the constants of the step."""

    def into(scale, carry_bar):
        return jax.tree.leaves(f.scaling.into(scale, carry_bar))

    def out(scale, carry_bar, total):
        return map(_smooth, f.scaling.out(scale, carry_bar, _whole(f.consts, total)))

    scales = lifted(lambda: jax.tree.leaves(f.scaling.scale()), (), consts)
    scaled = lifted(into, (scale, bars[0]), consts)
    plain = lifted(_lists(out), (scale, *bars), consts)

    def unscaled(known, scale, carry_bar, total):
        places = _places(f.consts, consts)
        carry_bar, found = plain(known, scale, carry_bar, _sums(places, f.consts, total))
        return carry_bar, _by_place(places, found)

    return lambda known: Scaling(*(partial(part, known) for part in (scales, scaled, unscaled)))


def _afresh(restarts: Restarts, carry, consts):
    """Restarts on flat lists, by the constants of the step."""
    kept = jax.eval_shape(restarts.keep, carry)
    keep = lifted(lambda *args: jax.tree.leaves(restarts.keep(*args)), (carry,), consts)
    restore = lifted(lambda *args: jax.tree.leaves(restarts.restore(*args)), (carry, kept), consts)
    return lambda known: Restarts(restarts.every, partial(keep, known), partial(restore, known))


def _blind(f: Retraceable, carry, x, scale, consts):
    """Its blind transpose on flat lists, by the constants of the step.

    What takes exposures is traced anew for each number of them.
    """
    own: Any = f.blind
    looking = lifted(_lists(f.look), (carry,), consts)
    medium, places = _rebuilding(f.consts, consts), _places(f.consts, consts)
    paths = [path for path, c in jax.tree.leaves_with_path(f.consts) if inexact(c)]
    spread = Split.by_type(jax.tree.leaves(x)).spread
    carries, *trees, sums_tree = map(
        jax.tree.structure, (carry, x, _smooth(carry), scale, _smooth(f.consts))
    )

    def exposures(known, carry, count):
        return own.exposures(medium(known), jax.tree.unflatten(carries, carry), count)

    def expose(known, carry, x, exposures, place):
        args = jax.tree.unflatten(carries, carry), jax.tree.unflatten(trees[0], x)
        new, exposures = own.expose(medium(known), *args, exposures, place)
        return *looking(known, new), exposures

    def bars(consts_bar, carry_bar, x_bar):
        known = dict(jax.tree.leaves_with_path(consts_bar))
        found = _by_place(places, [known.get(path) for path in paths])
        return found, jax.tree.leaves(_smooth(carry_bar)), spread(jax.tree.leaves(_smooth(x_bar)))

    def transpose(known, *given):
        return bars(*own.transpose(medium(known), *map(jax.tree.unflatten, trees, given)))

    def image(known, x, carry_bar, scale, exposures, place, count, total):
        given = map(jax.tree.unflatten, trees, (x, carry_bar, scale))
        sums = _whole(f.consts, jax.tree.unflatten(sums_tree, _sums(places, f.consts, total)))
        return bars(*own.image(medium(known), *given, exposures, place, count, sums))

    maps = exposures, expose, transpose, image
    return lambda known: Blind(*(partial(one, known) for one in maps))


def _rebuilding(of_step, consts: Leaves):
    """The tree of a step's own arrays, from the constants; these gain what they lack."""
    leaves, tree = jax.tree.flatten(of_step)
    for leaf in leaves:
        if isinstance(leaf, jax.core.Tracer) and not any(leaf is const for const in consts):
            consts.append(leaf)
    places = [next((i for i, c in enumerate(consts) if c is leaf), None) for leaf in leaves]
    values = [leaf if place is None else None for leaf, place in zip(leaves, places, strict=True)]

    def rebuild(known):
        pairs = zip(values, places, strict=True)
        return jax.tree.unflatten(tree, [v if i is None else known[i] for v, i in pairs])

    return rebuild


# --- what has a derivative


def _smooth(tree):
    """A tree without the leaves that have none."""
    return jax.tree.map(lambda leaf: leaf if inexact(leaf) else None, tree)


def _whole(consts, total):
    """Cotangents of constants with zeros where `_smooth` left none."""
    fill = lambda const, bar: zero_tangent(const) if bar is None else bar  # noqa: E731
    return jax.tree.map(fill, consts, total)


def _places(of_step, consts):
    """The number, among the constants, of each array of a step that has a derivative.

    None for what is known to JAX by its value: it is no argument, and has no cotangent.
    """
    smooth = jax.tree.leaves(_smooth(of_step))
    return [next((i for i, c in enumerate(consts) if c is const), None) for const in smooth]


def _sums(places, of_step, total):
    """For each of these arrays its cotangent in ``total``, by number; zeros for one met before."""
    first = [None if i is None or i in places[:n] else total[i] for n, i in enumerate(places)]
    pairs = zip(first, jax.tree.leaves(_smooth(of_step)), strict=True)
    return [jnp.zeros_like(const) if bar is None else bar for bar, const in pairs]


def _by_place(places, bars):
    """Cotangents by the number of what they belong to."""
    total: dict[int, Any] = {}
    for place, bar in zip(places, bars, strict=True):
        if place is None:
            continue
        total[place] = total[place] + bar if place in total else bar
    return total


# --- closures


def lifted(f, args, consts: Leaves):
    """``f`` of pytrees as a function of ``consts``, which gains what ``f`` closes over, and of
    these trees or their leaves."""
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
        return jax.tree.unflatten(tree, map(strong, out))

    return lifted


def strong(leaf):
    """An array of strong type: strategies keep and add up such."""
    leaf = jnp.asarray(leaf)
    return lax.convert_element_type(leaf, leaf.dtype) if jax.typeof(leaf).weak_type else leaf
