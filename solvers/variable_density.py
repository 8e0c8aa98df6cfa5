"""``∇·(1/ρ ∇p)`` by staggered differences, ``-Dᵀ b D``, between images and absorbing layers."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from solvers import stencil
from solvers.faces import Absorbing, Frame, Free, Periodic


def buoyancy(frame: Frame, density) -> tuple:
    """1/ρ halfway between nodes along each axis, over h²: the inverse of the mean density.

    Across an interface ``1/ρ ∂p/∂n`` is continuous, so that it is the densities that add up (Moczo,
    Kristek, Vavryčuk, Archuleta & Halada 2002, BSSA 92). At order 2 no contrast then lowers the
    stable time step.
    """
    halves = []
    for axis, h in enumerate(frame.grid.spacing):
        wide = frame.beyond(density, axis, 1)
        ends = (slice(None, -1), slice(1, None))
        before, after = (wide[stencil.along(axis, wide.ndim, end)] for end in ends)
        halves.append(2 / (before + after) / h**2)
    return tuple(halves)


def at(frame: Frame, density, positions):
    """ρ at positions (m), linearly between nodes: it stays positive."""
    wide = frame.medium(density)
    for axis in range(wide.ndim):
        wide = frame.beyond(wide, axis, 1)
    places = zip(frame.grid.nodes(positions), frame.widths, strict=True)
    nodes = [node + before + 1 for node, (before, _) in places]
    return stencil.take(wide, stencil.linear_points(nodes, wide.shape))


def divergence(frame: Frame, buoyancy, p, memory, profiles=None):
    """``∇·(1/ρ ∇p)`` on grid and layers, and the layers' memory afterwards.

    In a layer ``∂`` becomes ``∂ + memory``, twice (Komatitsch & Martin 2007, Geophysics 72):
    ``ψ' = bψ + a ∂p`` and, with ``g = ∂(1/ρ (∂p + ψ'))``, ``ζ' = bζ + a g``. Without ``profiles``
    the memory is taken for that afterwards.
    """
    ndim, after = p.ndim, list(memory)
    total = 0.0
    for axis, weight in enumerate(buoyancy):
        layers = [i for i, (across, *_) in enumerate(frame.layers) if across == axis]
        halo = slice(frame.halo, -frame.halo)
        rows = tuple(slice(None) if i == axis else halo for i in range(ndim))
        slope = stencil.difference(p[rows], frame.order, axis)
        for i in layers:
            psi, where = after[i][0], _end(frame, i, 2)
            if profiles is not None:
                psi = _decayed(psi, slope[where], profiles[i].b_half, profiles[i].a_half, axis)
            slope = slope.at[where].add(psi)
            after[i] = psi, after[i][1]
        flux = stencil.materialise(_with_images(frame, weight * slope, axis))
        bend = stencil.difference(flux, frame.order, axis)
        for i in layers:
            zeta, where = after[i][1], _end(frame, i, 1)
            if profiles is not None:
                zeta = _decayed(zeta, bend[where], profiles[i].b, profiles[i].a, axis)
            bend = bend.at[where].add(zeta)
            after[i] = after[i][0], zeta
        total += bend
    return total, tuple(after)


def _decayed(memory, value, b, a, axis):
    shape = [-1 if i == axis else 1 for i in range(value.ndim)]
    a, b = (jnp.asarray(v, value.dtype).reshape(shape) for v in (a, b))
    return b * memory + a * value


def _end(frame, i, extra):
    """Index of a layer's last ``width + extra`` nodes or half points, on the inner ones."""
    axis, low, face = frame.layers[i]
    count = face.width + extra
    return stencil.along(axis, frame.grid.ndim, slice(0, count) if low else slice(-count, None))


def _with_images(frame, flux, axis):
    """The flux with what a difference needs of it beyond either end."""
    reach = frame.halo - 1
    low, high = frame.boundary[axis]
    before = _image(low, flux, axis, reach)
    after = jnp.flip(_image(high, jnp.flip(flux, axis), axis, reach), axis)
    return jnp.concatenate([before, flux, after], axis)


def _image(face, flux, axis, reach):
    """What lies beyond the low end of a flux that starts half a cell outside the first node."""
    if isinstance(face, Absorbing):
        shape = [reach if i == axis else n for i, n in enumerate(flux.shape)]
        return jnp.zeros(shape, flux.dtype)
    if isinstance(face, Periodic):
        last = flux.shape[axis] - 1
        return lax.slice_in_dim(flux, last - reach, last, axis=axis)
    image = jnp.flip(lax.slice_in_dim(flux, 2, reach + 2, axis=axis), axis)
    return image if isinstance(face, Free) else -image


def largest_eigenvalue(frame: Frame, speed, density) -> float:
    """1/s², a bound for that of ``-ρ c² ∇·(1/ρ ∇)``, sharp in a uniform medium.

    With differences of weights d, ``(Σ d p)² ≤ Σ |d| ρc² · Σ |d| p²/(ρc²)`` at each half point;
    what a node then collects from all of them is a bound.
    """
    frame_values = frame.medium(jnp.asarray(density)), frame.medium(jnp.asarray(speed))
    total = 0.0
    for axis, h in enumerate(frame.grid.spacing):
        reach = frame.order - 1
        rho, c = (np.asarray(frame.beyond(v, axis, reach), float) for v in frame_values)
        spread = stencil.difference_magnitude(rho * c**2, frame.order, axis)
        middle = slice(frame.halo - 1, -(frame.halo - 1) or None)
        rho = rho[stencil.along(axis, rho.ndim, middle)]
        ends = (slice(None, -1), slice(1, None))
        before, after = (rho[stencil.along(axis, rho.ndim, end)] for end in ends)
        flux = 2 / (before + after) * spread / h**2
        total = total + stencil.difference_magnitude(flux, frame.order, axis)
    return float(np.max(total))
