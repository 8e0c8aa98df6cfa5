"""Absorbing layers around a field: what they add to its Laplacian, with an eye on the kernels.

In a layer ``∂`` becomes ``∂ + memory``, twice (Pasalic & McGarry 2010, SEG, eq. 12–16). Let G be a
first difference with ``-GᵀG = h² ∂²`` (`root_difference`), and a layer remember ψ at half
points and ζ at nodes:

``ψ' = b ψ + a G u``, ``ζ' = b ζ + a (h² ∂²u - Gᵀψ')``, and ``h² ∂²u`` gains ``ζ' - Gᵀψ'``.

In all ``-N Gᵀ S G u``, where N and S multiply by convolutions in time, each node and half point by
its own. Divided by N, which is 1 outside of layers, it is symmetric: source and receiver may be
swapped. G looks outwards, so nothing but nodes of the layer gains.
"""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from solvers import stencil
from solvers.faces import Frame

REFLECTION = 1e-7  # amplitude that a layer of ideal damping would send back at normal incidence
GROWTH = 1e6  # of rounding while memory is walked back
FOREVER = 2**30  # steps


class Profile(NamedTuple):
    """Recursion ``memory = b memory + a value`` of a layer, at nodes and at half points."""

    a_half: Any
    b_half: Any
    a: Any
    b: Any


def profile(
    width: int, spacing: float, dt: float, speed: float, frequency: float, shift: float
) -> Profile:
    """Damping that grows with depth into a layer of ``width`` cells; outermost first.

    Convolutional PML with a shifted pole (Komatitsch & Martin 2007, Geophysics 72, eq. 21–25):
    ``b = exp(-(σ + α) dt)``, ``a = σ/(σ + α) (b - 1)``, ``σ = -3 c ln R / (2 L) (d/L)²``,
    ``α = ½ π f (1 - d/L)``. The layer's inner edge is the node after the last of its ``width``.
    What half points stand for lies ``shift`` cells deeper than they do.
    """
    length = width * spacing
    strongest = -3 * speed * np.log(REFLECTION) / (2 * length)

    def recursion(depth):
        depth = np.clip(depth / width, 0, 1)
        sigma, alpha = strongest * depth**2, np.pi * frequency * (1 - depth) / 2
        b = np.exp(-(sigma + alpha) * dt)
        return sigma / (sigma + alpha + 1e-300) * (b - 1), b

    half = recursion(width + 0.5 + shift - np.arange(width + 2))
    node = recursion(width - np.arange(width + 1.0))
    return Profile(*half, *node)


@cache
def root_difference(order: int) -> tuple[float, ...]:
    """Weights of a first difference G whose ``-GᵀG`` is the second difference of this order.

    It stands for the half point before the last of its ``order / 2 + 1`` nodes. With δ the
    difference of two nodes and ``P δ²`` that second difference, it is ``G = q δ``: P is positive,
    so it has a root ``qᵀq`` of as many weights (Fejér & Riesz 1916), here the one that is nearest
    to a single node.
    """
    weights, reach = stencil.SECOND_DIFFERENCE[order], order // 2 - 1
    smoothing = [
        sum((k - j) * weights[k] for k in range(j + 1, reach + 2)) for j in range(reach + 1)
    ]
    zeros = np.roots([*smoothing[:0:-1], *smoothing])
    factor = np.real(np.poly(zeros[np.abs(zeros) < 1]))
    factor *= np.sqrt(smoothing[0] / np.sum(factor**2))
    return tuple(np.convolve(factor, [1, -1])[::-1].tolist())


def root_shift(order: int) -> float:
    """Cells by which what `root_difference` stands for lies towards its first node."""
    places = np.arange(-(order // 2), 1) + 0.5
    return -float(np.dot(root_difference(order), places**2 / 2))


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


def weigh(frame: Frame, memory, factor: float):
    """A layer's memory, or cotangents of it, with what lies on rigid walls times a factor."""
    return tuple(
        (frame.weigh(psi, factor, axis), frame.weigh(zeta, factor, axis))
        for (axis, *_), (psi, zeta) in zip(frame.layers, memory, strict=True)
    )


def profiles(frame: Frame, dt: float, shift: float = 0.0) -> list[Profile]:
    """The damping of each layer, in the direction of its axis."""
    found = []
    for axis, low, face in frame.layers:
        h = frame.grid.spacing[axis]
        rows = profile(face.width, h, dt, face.speed, face.frequency, shift)
        found.append(rows if low else Profile(*(row[::-1] for row in rows)))
    return found


def strips(frame: Frame, dt: float, dtype, shift: float = 0.0) -> list[Profile]:
    """`profiles` that multiply values on the layers."""
    found = []
    for (axis, *_), rows in zip(frame.layers, profiles(frame, dt, shift), strict=True):
        shape = [-1 if i == axis else 1 for i in range(frame.grid.ndim)]
        found.append(Profile(*(jnp.asarray(row, dtype).reshape(shape) for row in rows)))
    return found


def absorb(frame: Frame, dt: float, p, memory):
    """Each layer's gain to the Laplacian, and its memory afterwards.

    ψ' is written to memory first: its neighbours would compute it anew.
    """
    damping = strips(frame, dt, p.dtype, root_shift(frame.order))
    rows = list(zip(damping, memory, _slopes(frame, p), strict=True))
    psis = [d.b_half * psi + d.a_half * slope for d, (psi, _), slope in rows]
    psis = stencil.materialise(psis)
    bends, changes = _bends(frame, p, psis)
    zetas = [d.b * zeta + d.a * bend for (d, (_, zeta), _), bend in zip(rows, bends, strict=True)]
    gains, zetas = stencil.materialise((_gains(frame, changes, zetas), zetas))
    return gains, tuple(zip(psis, zetas, strict=True))


def unabsorb(frame: Frame, dt: float, p, memory):
    """Each layer's gain to the Laplacian, from its memory after the step, and what was before.

    Rounding in it grows by 1/b a step, backwards: see `steps_back`.
    """
    damping = strips(frame, dt, p.dtype, root_shift(frame.order))
    psis, zetas = [psi for psi, _ in memory], [zeta for _, zeta in memory]
    bends, changes = _bends(frame, p, psis)
    before = [
        ((psi - d.a_half * slope) / d.b_half, (zeta - d.a * bend) / d.b)
        for d, slope, bend, (psi, zeta) in zip(
            damping, _slopes(frame, p), bends, memory, strict=True
        )
    ]
    return stencil.materialise((_gains(frame, changes, zetas), tuple(before)))


def steps_back(frame: Frame, dt: float) -> int:
    """How many steps `unabsorb` may undo before its rounding has grown a million times.

    It grows so where a layer damps most, at its outer edge, which hardly any wave reaches: in
    float32, with a growth of ten thousand in 13 steps, 16 steps between restarts left the pressure
    right to 4e-7 of its largest value everywhere, 24 to 2e-5 and 32 to 2e-3 at the edge. Inside
    nothing was to be seen of it, for `restore` absorbs errors that leave the grid: gradients came
    as near to those in float64 as with restarts after a growth of a hundred.
    """
    least = min((float(np.min(rows.b)) for rows in profiles(frame, dt)), default=1.0)
    return FOREVER if least == 1 else max(1, int(np.log(GROWTH) / -np.log(least)))


def keep(frame: Frame, *fields):
    """What `restore` puts back: each field's values on the layers."""
    return [[field[where] for where in nodes(frame)] for field in fields]


def restore(frame: Frame, kept, *fields):
    """The fields as they were on the layers when they were kept, and their images."""
    found = []
    for parts, field in zip(kept, fields, strict=True):
        for where, part in zip(nodes(frame), parts, strict=True):
            field = stencil.put_part(field, where, part)
        found.append(frame.mirror(field))
    return found


def _slopes(frame, p):
    """Gp of each layer."""
    where = nodes(frame, frame.halo, 1)
    return [
        _looking(frame.order, low, p[part], axis)
        for (axis, low, _), part in zip(frame.layers, where, strict=True)
    ]


def _bends(frame, p, psis):
    """For each layer what ζ takes in, and -Gᵀψ'."""
    order, halo, bends, changes = frame.order, frame.halo, [], []
    where = nodes(frame, halo, halo)
    for (axis, low, _), psi, part in zip(frame.layers, psis, where, strict=True):
        changes.append(_looking(order, not low, _padded(psi, axis, low, 0, halo - 1), axis))
        bends.append(stencil.second_difference(p[part], order, axis) + changes[-1])
    return bends, changes


def _gains(frame, changes, zetas):
    rows = zip(frame.layers, changes, zetas, strict=True)
    return [(change + zeta) / frame.grid.spacing[axis] ** 2 for (axis, *_), change, zeta in rows]


def absorb_transpose(frame: Frame, dt: float, laplacian_bar, memory_bar):
    """The cotangents of the field and the memory, from those of the Laplacian and the memory after.

    That of the field is on each layer's nodes and half a stencil more inwards; what lies behind
    layers has none. Each step is written to memory before the next one reads it.
    """
    order, halo = frame.order, frame.halo
    damping = strips(frame, dt, laplacian_bar.dtype, root_shift(order))
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
    weights = root_difference(order)
    if not back:
        weights = [-weight for weight in reversed(weights)]
    return stencil.weighted(values, weights, axis)


def _padded(values, axis: int, low: bool, outward: int, inward: int):
    ends = (outward, inward) if low else (inward, outward)
    return jnp.pad(values, [ends if i == axis else (0, 0) for i in range(values.ndim)])


def add(frame: Frame, field, parts, inward: int = 0, scale=None):
    """``field`` and what layers add to it, ``inward`` beyond their own nodes too, times the field
    ``scale`` if given."""
    for where, part in zip(nodes(frame, 0, inward), parts, strict=True):
        field = stencil.add_part(field, where, part if scale is None else scale[where] * part)
    return field
