"""Absorbing layers around a field: what they add to its Laplacian, with an eye on the kernels.

In a layer ``∂`` becomes ``∂ + memory``, twice (Pasalic & McGarry 2010, SEG, eq. 12–16). Let G be a
first difference with ``-GᵀG = h² ∂²`` (`stencil.root_difference`), and a layer remember ψ at half
points and ζ at nodes:

``ψ' = b ψ + a G u``, ``ζ' = b ζ + a (h² ∂²u - Gᵀψ')``, and ``h² ∂²u`` gains ``ζ' - Gᵀψ'``.

In all ``-N Gᵀ S G u``, where N and S multiply by convolutions in time, each node and half point by
its own. Divided by N, which is 1 outside of layers, it is symmetric: source and receiver may be
swapped. G looks outwards, so nothing but nodes of the layer gains.
"""

import jax.numpy as jnp

from solvers import stencil
from solvers.faces import Frame


def nodes(frame: Frame, outward: int = 0, inward: int = 0):
    """For each layer an index: its nodes, the grid's last one, and so many more on either side."""
    halo = frame.halo
    for axis, low, face in frame.layers:
        first, last = halo - outward, halo + face.width + 1 + inward
        if not low:
            end = frame.inner[axis] + 2 * halo
            first, last = end - last, end - first
        inner = [slice(halo, halo + n) for n in frame.inner]
        yield (*inner[:axis], slice(first, last), *inner[axis + 1 :])


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


def profiles(frame: Frame, dt: float, shift: float = 0.0) -> list[stencil.Profile]:
    """The damping of each layer, in the direction of its axis."""
    found = []
    for axis, low, face in frame.layers:
        h = frame.grid.spacing[axis]
        profile = stencil.profile(face.width, h, dt, face.speed, face.frequency, shift)
        found.append(profile if low else stencil.Profile(*(v[::-1] for v in profile)))
    return found


def strips(frame: Frame, dt: float, dtype, shift: float = 0.0) -> list[stencil.Profile]:
    """`profiles` that multiply values on the layers."""
    found = []
    for (axis, *_), profile in zip(frame.layers, profiles(frame, dt, shift), strict=True):
        shape = [-1 if i == axis else 1 for i in range(frame.grid.ndim)]
        found.append(stencil.Profile(*(jnp.asarray(v, dtype).reshape(shape) for v in profile)))
    return found


def absorb(frame: Frame, dt: float, p, memory):
    """Each layer's gain to the Laplacian, and its memory afterwards.

    ψ' is written to memory first: its neighbours would compute it anew.
    """
    order, halo = frame.order, frame.halo
    damping = strips(frame, dt, p.dtype, stencil.root_shift(order))
    rows = list(zip(frame.layers, damping, memory, strict=True))
    psis, zetas, gains = [], [], []
    for ((axis, low, _), d, (psi, _)), where in zip(rows, nodes(frame, halo, 1), strict=True):
        psis.append(d.b_half * psi + d.a_half * _looking(order, low, p[where], axis))
    psis = stencil.materialise(psis)
    everywhere = zip(rows, psis, nodes(frame, halo, halo), strict=True)
    for ((axis, low, _), d, (_, zeta)), psi, where in everywhere:
        change = _looking(order, not low, _padded(psi, axis, low, 0, halo - 1), axis)
        bend = stencil.second_difference(p[where], order, axis)
        zetas.append(d.b * zeta + d.a * (bend + change))
        gains.append((change + zetas[-1]) / frame.grid.spacing[axis] ** 2)
    gains, zetas = stencil.materialise((gains, zetas))
    return gains, tuple(zip(psis, zetas, strict=True))


def absorb_transpose(frame: Frame, dt: float, laplacian_bar, memory_bar):
    """The cotangents of the field and the memory, from those of the Laplacian and the memory after.

    That of the field is on each layer's nodes and half a stencil more inwards; what lies behind
    layers has none. Each step is written to memory before the next one reads it.
    """
    order, halo = frame.order, frame.halo
    damping = strips(frame, dt, laplacian_bar.dtype, stencil.root_shift(order))
    rows = list(zip(frame.layers, damping, memory_bar, strict=True))
    felt, psis_bar, slabs_bar, before = [], [], [], []
    for ((axis, *_), d, (_, zeta_bar)), where in zip(rows, nodes(frame), strict=True):
        gain_bar = laplacian_bar[where] / frame.grid.spacing[axis] ** 2
        zeta_bar = zeta_bar + gain_bar
        felt.append((zeta_bar, d.a * zeta_bar, gain_bar + d.a * zeta_bar))
    felt = stencil.materialise(felt)
    for ((axis, low, _), _, (psi_bar, _)), (*_, change_bar) in zip(rows, felt, strict=True):
        slab = _padded(change_bar, axis, low, halo, 1)
        psis_bar.append(psi_bar - _looking(order, low, slab, axis))
    psis_bar = stencil.materialise(psis_bar)
    everywhere = zip(rows, psis_bar, felt, strict=True)
    for ((axis, low, _), d, _), psi_bar, (zeta_bar, bend_bar, _) in everywhere:
        bend = _padded(bend_bar, axis, low, halo, 2 * halo)
        slope = _padded(d.a_half * psi_bar, axis, low, 0, 2 * halo - 1)
        slabs_bar.append(
            stencil.second_difference(bend, order, axis) - _looking(order, not low, slope, axis)
        )
        before.append((d.b_half * psi_bar, d.b * zeta_bar))
    return stencil.materialise((slabs_bar, tuple(before)))


def _looking(order: int, back: bool, values, axis: int):
    """G of values along an axis, looking back or ahead; each is minus the other's transpose."""
    weights = stencil.root_difference(order)
    if not back:
        weights = [-weight for weight in reversed(weights)]
    return stencil.weighted(values, weights, axis)


def _padded(values, axis: int, low: bool, outward: int, inward: int):
    ends = (outward, inward) if low else (inward, outward)
    return jnp.pad(values, [ends if i == axis else (0, 0) for i in range(values.ndim)])


def add(frame: Frame, field, parts, inward: int = 0, scale=None):
    """``field`` and what layers add to it, ``inward`` beyond their own nodes too, times the field
    ``scale`` if given.

    Whole rows are quickly added in place. Short ones, of the last axis, are not: there the sum is
    written apart first, in rows that suit vector registers, and only copied in place (at 512²,
    10 instead of 35 µs a layer).
    """
    last = frame.grid.ndim - 1
    for (axis, *_), where, part in zip(frame.layers, nodes(frame, 0, inward), parts, strict=True):
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
