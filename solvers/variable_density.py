"""A leapfrog step where the density varies, ``p' = 2 p - p° + κ ∇·(1/ρ ∇p)``, its way back and its
transpose; the buoyancy 1/ρ that they take, and how large a step may be."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from solvers import acoustics, divergence, layers, off_grid, stencil
from solvers.acoustics import Shot
from solvers.faces import Absorbing, Frame, Free, Rigid


def advance(frame: Frame, dt: float, kappa, buoyancy, p, previous, memory, shot: Shot | None):
    """The next field, and the layers' memory."""
    flux, memory = divergence.absorb(frame, dt, buoyancy, p, memory)
    return acoustics.fed(frame, _leap(frame, kappa, p, previous, flux, memory), shot), memory


def undo(frame: Frame, dt: float, kappa, buoyancy, p, new, memory, shot: Shot | None):
    """The field before ``p``, and the memory of then: the layers' gains follow from their memory
    after the step."""
    flux, before = divergence.unabsorb(frame, dt, buoyancy, p, memory)
    return acoustics.fed(frame, _leap(frame, kappa, p, new, flux, memory), shot), before


def _leap(frame, kappa, p, other, flux, memory):
    """``2 p - other + κ (∇·flux + ζ)`` with the layers' memory after the step."""
    new = stencil.materialise(2 * p - other + kappa * divergence.divergence(frame, flux))
    return layers.add(frame, new, [zeta for _, zeta in memory], scale=kappa)


def transpose(
    frame: Frame, dt: float, kappa, buoyancy, p, memory, points, new_bar, p_bar, memory_bar
):
    """The cotangents of `advance`'s arguments from those of what it returns.

    Those of κ and of the buoyancy are products with the field: None if that, ``p``, is None.

    Returns:
        the cotangents of κ, p, p° and the memory, what the sources' windows see of the adjoint
        field, and the cotangent of the buoyancy.
    """
    new_bar = frame.unmirror(new_bar)
    images = frame.mirror(frame.weigh(stencil.materialise(kappa * new_bar), 2))
    flux: Any = None
    kappa_bar: Any = None
    if p is not None:
        flux, after = divergence.absorb(frame, dt, buoyancy, p, memory)
        kappa_bar = stencil.materialise(new_bar * divergence.divergence(frame, flux))
        kappa_bar = layers.add(frame, kappa_bar, [zeta for _, zeta in after], scale=new_bar)
    memory_bar = layers.weigh(frame, memory_bar, 2)
    bend_bar, memory_bar, buoyancy_bar = divergence.transpose(
        frame, dt, buoyancy, images, memory_bar, flux
    )
    total = stencil.materialise(p_bar + 2 * new_bar + frame.weigh(bend_bar, 0.5))
    p_bar = divergence.with_halo_of(frame, p_bar, total)
    felt = None if points is None else off_grid.windows(new_bar, points)
    if buoyancy_bar is not None:
        buoyancy_bar = tuple(frame.weigh(v, 0.5, axis) for axis, v in enumerate(buoyancy_bar))
    memory_bar = layers.weigh(frame, memory_bar, 0.5)
    return kappa_bar, p_bar, -new_bar, memory_bar, felt, buoyancy_bar


def buoyancy(frame: Frame, density) -> tuple:
    """1/ρ halfway between nodes along each axis, over h²: the inverse of the mean density.

    Across an interface ``1/ρ ∂p/∂n`` is continuous, so that it is the densities that add up (Moczo,
    Kristek, Vavryčuk, Archuleta & Halada 2002, BSSA 92). At order 2 no contrast then lowers the
    stable time step. It is zero beyond mirrors, at the first of the half points that a period
    parts, and in the halo of the other axes: no wave needs it there.
    """
    halves = []
    for axis, h in enumerate(frame.grid.spacing):
        wide = frame.beyond(density, axis, 1)
        ends = (slice(None, -1), slice(1, None))
        before, after = (wide[stencil.along(axis, wide.ndim, end)] for end in ends)
        half = 2 / (before + after) / h**2
        low, high = frame.boundary[axis]
        shown = int(not isinstance(low, Absorbing)), int(isinstance(high, Free | Rigid))
        half = half[stencil.along(axis, half.ndim, slice(shown[0], -shown[1] or None))]
        halo = [shown if i == axis else (frame.halo, frame.halo) for i in range(half.ndim)]
        halves.append(jnp.pad(half, halo))
    return tuple(halves)


def at(frame: Frame, density, positions):
    """ρ at positions (m), linearly between nodes: it stays positive."""
    wide = frame.medium(density)
    for axis in range(wide.ndim):
        wide = frame.beyond(wide, axis, 1)
    places = zip(frame.grid.nodes(positions), frame.widths, strict=True)
    nodes = [node + before + 1 for node, (before, _) in places]
    return off_grid.take(wide, off_grid.linear(nodes, wide.shape))


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
