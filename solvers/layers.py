"""Absorbing layers around a field: what they add to its Laplacian, with an eye on the kernels."""

import jax.numpy as jnp

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
    after = stencil.materialise(tuple(after))
    raw = [
        stencil.raw_gain(kept, axis) for (axis, *_), kept in zip(frame.layers, after, strict=True)
    ]
    return stencil.materialise(gains(frame, raw)), after


def absorb_transpose(frame: Frame, dt: float, gains_bar, memory_bar):
    """The cotangents of slabs and memory, from those of the gains and of the memory afterwards.

    Each of the three steps is written to memory before the next one reads it: its neighbours would
    compute it anew, and so would theirs.
    """
    spacing, shape = frame.grid.spacing, [-1] + [1] * (frame.grid.ndim - 1)
    rows = [
        [jnp.moveaxis(jnp.asarray(v, bar.dtype).reshape(shape), 0, axis) for v in profile]
        for (axis, *_), profile, bar in zip(
            frame.layers, profiles(frame, dt), gains_bar, strict=True
        )
    ]
    axes = [axis for axis, *_ in frame.layers]
    felt = []
    for axis, (*_, a, _), gain_bar, (_, zeta_bar) in zip(
        axes, rows, gains_bar, memory_bar, strict=True
    ):
        bend_bar = stencil.layer_gain_transpose(gain_bar, axis, frame.order) / spacing[axis] ** 2
        zeta_bar = zeta_bar + bend_bar
        felt.append((zeta_bar, bend_bar + a * zeta_bar))
    felt = stencil.materialise(felt)
    psis_bar = [
        psi_bar + stencil.diff_transpose(bend_bar, axis)
        for axis, (psi_bar, _), (_, bend_bar) in zip(axes, memory_bar, felt, strict=True)
    ]
    psis_bar = stencil.materialise(psis_bar)
    slabs_bar, before = [], []
    for axis, (a_half, b_half, a, b), psi_bar, (zeta_bar, _) in zip(
        axes, rows, psis_bar, felt, strict=True
    ):
        first_bar = a_half * psi_bar + stencil.diff_transpose(a * zeta_bar, axis)
        slabs_bar.append(stencil.diff_transpose(first_bar, axis))
        before.append((b_half * psi_bar, b * zeta_bar))
    return stencil.materialise((slabs_bar, tuple(before)))


def gains(frame: Frame, raw):
    """What the layers add to the Laplacian in a step with these raw gains."""
    spacing = frame.grid.spacing
    return [
        stencil.layer_gain(gain, axis, frame.order) / spacing[axis] ** 2
        for (axis, *_), gain in zip(frame.layers, raw, strict=True)
    ]


def add(frame: Frame, field, parts, rim: int, scale=None):
    """``field`` and what layers add to it, times the field ``scale`` if given.

    Whole rows are quickly added in place. Short ones, of the last axis, are not: there the sum is
    written apart first, in rows that suit vector registers, and only copied in place (at 512²,
    10 instead of 35 µs a layer).
    """
    last = frame.grid.ndim - 1
    for (axis, *_), where, part in zip(frame.layers, nodes(frame, rim), parts, strict=True):
        if axis == last and last > 0:
            where, part = _widened(where, part, field.shape[last])
        part = part if scale is None else scale[where] * part
        if axis == last and last > 0:
            field = field.at[where].set(stencil.materialise(field[where] + part))
        else:
            field = field.at[where].add(part)
    return field


def _widened(where, part, width: int):
    """A part at either end of the last axis, on to a multiple of 16 nodes with zeros."""
    *rows, columns = where
    low = columns.start < width - columns.stop
    size = -(-(columns.stop if low else width - columns.start) // 16) * 16
    if size > width:
        return where, part
    wide = slice(0, size) if low else slice(width - size, width)
    pad = columns.start - wide.start, wide.stop - columns.stop
    return (*rows, wide), jnp.pad(part, [(0, 0)] * len(rows) + [pad])
