"""``∇·(1/ρ ∇p)`` by staggered differences, ``-Dᵀ b D``, and its transpose; mind the kernels.

In an absorbing layer ``∂`` becomes ``∂ + memory``, twice (Komatitsch & Martin 2007, Geophysics 72):
``ψ' = bψ + a ∂p``, the flux is ``1/ρ (∂p + ψ')``, ``ζ' = bζ + a ∂flux``, and the divergence gains
ζ'. The field is done in whole loops, and what only layers see apart from it, in strips.

A flux has the shape of p with its halo, and along its axis ``order - 1`` half points more: so its
difference has the shape of p, and no loop over a field needs a pad. The buoyancy is that of
``n + 1`` half points, from before the first node to behind the last; see `buoyancy`.
"""

import jax.numpy as jnp

from solvers import layers, stencil
from solvers.faces import Absorbing, Frame, Free, Periodic


def fluxes(frame: Frame, buoyancy, p, psis):
    """``1/ρ (∂p + ψ)`` along each axis, with each layer's ψ of this moment, and its images."""
    parts = [
        _end(frame, buoyancy[axis], axis, low, face.width + 2) * psi
        for (axis, low, face), psi in zip(frame.layers, psis, strict=True)
    ]
    return _imaged(frame, _weighted(frame, buoyancy, p), parts)


def absorb(frame: Frame, dt: float, buoyancy, p, memory):
    """The fluxes and each layer's memory after a step."""
    rows = list(zip(layers.strips(frame, dt, p.dtype), memory, _slopes(frame, p), strict=True))
    psis = [d.b_half * psi + d.a_half * slope for d, (psi, _), slope in rows]
    psis = stencil.materialise(psis)
    found = fluxes(frame, buoyancy, p, psis)
    pairs = zip(rows, _changes(frame, found), strict=True)
    zetas = [d.b * zeta + d.a * change for (d, (_, zeta), _), change in pairs]
    return found, tuple(zip(psis, stencil.materialise(zetas), strict=True))


def unabsorb(frame: Frame, dt: float, buoyancy, p, memory):
    """The fluxes, from each layer's memory after a step, and what was before; `layers.unabsorb`."""
    found = fluxes(frame, buoyancy, p, [psi for psi, _ in memory])
    rows = zip(
        layers.strips(frame, dt, p.dtype), memory, _slopes(frame, p), _changes(frame, found),
        strict=True,
    )  # fmt: skip
    before = [
        ((psi - d.a_half * slope) / d.b_half, (zeta - d.a * change) / d.b)
        for d, (psi, zeta), slope, change in rows
    ]
    return found, stencil.materialise(tuple(before))


def _slopes(frame, p):
    """∂p at each layer's half points."""
    order = frame.order
    return [
        stencil.difference(_end(frame, p, axis, low, face.width + order + 1), order, axis)
        for axis, low, face in frame.layers
    ]


def _changes(frame, fluxes):
    """The fluxes' differences at each layer's nodes."""
    order, halo = frame.order, frame.halo
    return [
        stencil.difference(
            _end(frame, fluxes[axis], axis, low, face.width + order, halo), order, axis
        )
        for axis, low, face in frame.layers
    ]


def divergence(frame: Frame, fluxes):
    """``∇·flux`` without what the layers add; in the halo it has no meaning."""
    return sum(stencil.difference(flux, frame.order, axis) for axis, flux in enumerate(fluxes))


def transpose(frame: Frame, dt: float, buoyancy, bend_bar, memory_bar, fluxes=None):
    """The cotangents of ``p, memory, buoyancy`` from those of divergence and memory afterwards.

    Only that of the buoyancy depends on the fluxes: it is None where they are not known.

    ``D`` is minus its own transpose between images, in the inner product that counts nodes on rigid
    walls half: all cotangents are given and returned as gradients in that product. So ``bend_bar``,
    which has a halo of images, takes the way of p, and the memories follow in reverse.
    """
    order, halo, across = frame.order, frame.halo, frame.layers
    profiles = layers.strips(frame, dt, bend_bar.dtype)
    zetas = stencil.materialise(
        [
            zeta_bar + _end(frame, bend_bar, axis, low, face.width + 1, halo)
            for (axis, low, face), (_, zeta_bar) in zip(across, memory_bar, strict=True)
        ]
    )
    parts = []
    for (axis, low, face), (*_, a, _), zeta_bar in zip(across, profiles, zetas, strict=True):
        part = stencil.difference(_padded(a * zeta_bar, axis, order - 1), order, axis)
        weight = _padded(buoyancy[axis], axis, order - 1)
        parts.append(_end(frame, weight, axis, low, face.width + order, halo) * part)
    halves = _added(frame, _weighted(frame, buoyancy, bend_bar), parts, halo)
    buoyancy_bar = None if fluxes is None else _buoyancy_bar(frame, buoyancy, halves, fluxes)
    # in one, so that the halves are read before layers change them in place
    halves, buoyancy_bar = stencil.materialise((halves, buoyancy_bar))
    psis = stencil.materialise(
        [
            psi_bar - _end(frame, halves[axis], axis, low, face.width + 2, order - 1)
            for (axis, low, face), (psi_bar, _) in zip(across, memory_bar, strict=True)
        ]
    )
    parts = [-a * psi for (a, *_), psi in zip(profiles, psis, strict=True)]
    p_bar = divergence(frame, _imaged(frame, halves, parts))
    before = [
        (b_half * psi, b * zeta)
        for (_, b_half, _, b), psi, zeta in zip(profiles, psis, zetas, strict=True)
    ]
    return p_bar, tuple(before), buoyancy_bar


def _buoyancy_bar(frame, buoyancy, halves, fluxes):
    found, order = [], frame.order
    for axis, (weight, half, flux) in enumerate(zip(buoyancy, halves, fluxes, strict=True)):
        weight = jnp.where(weight == 0, 1, weight)
        inner = stencil.along(axis, weight.ndim, slice(order - 1, 1 - order))
        found.append(-(half[inner] / weight) * (flux[inner] / weight))
    return tuple(found)


def with_halo_of(frame: Frame, other, values):
    """A field, but in its halo what another has there."""
    for axis in range(values.ndim):
        for low in (True, False):
            part = slice(0, frame.halo) if low else slice(-frame.halo, None)
            where = stencil.along(axis, values.ndim, part)
            values = stencil.put_part(values, where, other[where])
    return values


def _weighted(frame, buoyancy, p):
    """``1/ρ ∂p`` along each axis, in the shape of a flux.

    Zeros concatenated fuse with the loop as a pad does, but a pad of short ends tests each number.
    """
    found = []
    for axis, weight in enumerate(buoyancy):
        slope = weight * stencil.difference(p, frame.order, axis)
        shape = [frame.order - 1 if i == axis else n for i, n in enumerate(slope.shape)]
        zero = jnp.zeros(shape, slope.dtype)
        found.append(stencil.materialise(jnp.concatenate([zero, slope, zero], axis)))
    return found


def _imaged(frame, fluxes, parts):
    """Fluxes with what layers add on their own half points, and with images beyond mirrors."""
    fluxes = _added(frame, fluxes, parts, frame.order - 1)
    return [_with_images(frame, flux, axis) for axis, flux in enumerate(fluxes)]


def _end(frame, values, axis, low, count, skip=0):
    """So many entries from an end of an axis on; of the other axes those at inner nodes."""
    return values[_where(frame, values.shape, axis, low, count, skip)]


def _where(frame, shape, axis, low, count, skip):
    index = []
    for i, (size, inner) in enumerate(zip(shape, frame.inner, strict=True)):
        start = (size - inner) // 2 if i != axis else skip if low else size - skip - count
        index.append(slice(start, start + (count if i == axis else inner)))
    return tuple(index)


def _padded(values, axis, count):
    return jnp.pad(values, [(count * (i == axis),) * 2 for i in range(values.ndim)])


def _added(frame, fluxes, parts, skip):
    """Fluxes and what the layers across their axes add from an end on; as `layers.add` does."""
    fluxes = list(fluxes)
    for (axis, low, _), part in zip(frame.layers, parts, strict=True):
        where = _where(frame, fluxes[axis].shape, axis, low, part.shape[axis], skip)
        fluxes[axis] = stencil.add_part(fluxes[axis], where, part)
    return fluxes


def _with_images(frame, flux, axis):
    """A flux with its images beyond either end: even ones at a free surface, odd ones at a wall."""
    order, size, ndim = frame.order, flux.shape[axis], flux.ndim
    part = lambda start: flux[stencil.along(axis, ndim, slice(start, start + order))]  # noqa: E731
    for low, face in zip((True, False), frame.boundary[axis], strict=True):
        if isinstance(face, Absorbing):
            continue
        if isinstance(face, Periodic):
            image = part(frame.inner[axis] if low else order - 1)
        else:
            image = jnp.flip(part(order if low else size - 2 * order), axis)
            image = image if isinstance(face, Free) else -image
        end = slice(0, order) if low else slice(-order, None)
        flux = stencil.put_part(flux, stencil.along(axis, ndim, end), image)
    return flux
