"""Absorbing layers around a field: what they add to its Laplacian, with an eye on the kernels."""

import math

import jax.numpy as jnp
from jax import lax

from solvers import stencil
from solvers.faces import Frame


def nodes(frame: Frame, rim: int = 0):
    """For each layer an index: its nodes, the grid's last one, and ``rim`` more around."""
    halo = frame.halo
    for axis, low, face in frame.layers:
        first, last = halo - rim, halo + face.width + 1 + rim
        if not low:
            end = frame.inner[axis] + 2 * halo
            first, last = end - last, end - first
        inner = [slice(halo, halo + n) for n in frame.inner]
        yield (*inner[:axis], slice(first, last), *inner[axis + 1 :])


def slabs(frame: Frame, p):
    """The field on each layer's nodes and one more on either side."""
    return [p[where] for where in nodes(frame, rim=1)]


def silent(frame: Frame, dtype):
    """The memory ``(ψ, ζ)`` of each layer before any wave has come."""
    memory = []
    for axis, _, face in frame.layers:
        shape = list(frame.inner)
        pair = []
        for extra in (2, 1):
            shape[axis] = face.width + extra
            pair.append(jnp.zeros(shape, dtype))
        memory.append(tuple(pair))
    return tuple(memory)


def profiles(frame: Frame, dt: float) -> list[stencil.Profile]:
    """The damping of each layer, in the direction of its axis."""
    found = []
    for axis, low, face in frame.layers:
        h = frame.grid.spacing[axis]
        profile = stencil.profile(face.width, h, dt, face.speed, face.frequency)
        found.append(profile if low else stencil.Profile(*(v[::-1] for v in profile)))
    return found


def absorb(frame: Frame, dt: float, slabs, memory):
    """Each layer's gain to the Laplacian, and its memory afterwards."""
    after = [
        stencil.layer(slab, kept, profile, axis)
        for (axis, *_), profile, slab, kept in zip(
            frame.layers, profiles(frame, dt), slabs, memory, strict=True
        )
    ]
    return gains(frame, after), tuple(after)


def gains(frame: Frame, memory):
    """What the layers add to the Laplacian in the step that left this memory."""
    spacing = frame.grid.spacing
    return [
        stencil.layer_gain(kept, axis, frame.order) / spacing[axis] ** 2
        for (axis, *_), kept in zip(frame.layers, memory, strict=True)
    ]


def _guard(frame, part):
    """How far along axis 0 the field reaches beyond a part: its halo, and a row's rest."""
    row = frame.inner[-1] + 2 * frame.halo
    return frame.halo + 1 + row // math.prod(part.shape[1:])


def guarded(frame: Frame, parts):
    """The parts, with zeros around those of the last axis, for `split` to take off again.

    The pad there compiles to masked loads at addresses up to a row away. Where no page lies behind
    one the mask holds, but slowly: without zeros of our own around, a whole step took 100 or 170 µs
    at 187 × 801 as the run's memory happened to lie.
    """
    last = frame.grid.ndim - 1
    return [
        jnp.pad(part, [(_guard(frame, part) * (i == 0),) * 2 for i in range(part.ndim)])
        if axis == last else part
        for (axis, *_), part in zip(frame.layers, parts, strict=True)
    ]  # fmt: skip


def split(frame: Frame, parts, rim: int = 0):
    """What the layers add to a field: as a field for the last axis, as (where, part) else.

    Whole rows are quickly added in place; the short rows of the last axis are not, and go into the
    kernel that updates the whole field instead. (There a pad of the other axes would read, masked
    but slowly, far outside its array.)
    """
    shape = [n + 2 * frame.halo for n in frame.inner]
    inner, outer = 0.0, []
    for (axis, *_), where, part in zip(frame.layers, nodes(frame, rim), parts, strict=True):
        if axis < frame.grid.ndim - 1:
            outer.append((where, part))
        else:
            ends = zip(where, shape, strict=True)
            guard = _guard(frame, part)
            part = lax.slice_in_dim(part, guard, part.shape[0] - guard)
            inner += jnp.pad(part, [(w.start, n - w.stop) for w, n in ends])
    return inner, outer
