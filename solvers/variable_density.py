"""What a varying density is to the wave equation: buoyancy, and how large a step may be."""

import jax.numpy as jnp
import numpy as np

from solvers import off_grid, stencil
from solvers.faces import Absorbing, Frame, Free, Rigid


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
