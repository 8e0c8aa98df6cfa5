"""Fluxes of shallow water through a face, between the water on its two sides.

Over the higher of two beds (Audusse et al. 2004, SIAM J. Sci. Comput. 25), of Harten, Lax & van
Leer (1983, SIAM Review 25). The pressure on a cell's faces and the weight on its bed cancel in
still water: they are never computed, the flux of momentum lacks the pressure of one side.

`with_transpose` has one by hand, in few sums over all faces: from what JAX derives XLA would make
kernels that read twenty fields each.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from solvers import stencil
from solvers.water import positive, root


class Water(NamedTuple):
    """On one side of each face."""

    depth: Any  # m
    level: Any  # m
    speed: Any  # m/s, across the face


class Fluxes(NamedTuple):
    """Through each face."""

    mass: Any  # m²/s
    # m³/s², of momentum across the face less the pressure in the water before or after it
    before: Any
    after: Any


def fluxes(gravity: float, left: Water, right: Water) -> Fluxes:
    """From left to right."""
    return _fluxes(gravity, left, right)[0]


def _fluxes(gravity, left, right):
    sill = jnp.maximum(left.level - left.depth, right.level - right.depth)
    hl, hr = stencil.pair(positive(left.level - sill), positive(right.level - sill))
    ul, ur = left.speed, right.speed
    cl, cr = root(gravity * hl), root(gravity * hr)
    sl, sr = stencil.pair(
        jnp.minimum(jnp.minimum(ul - cl, ur - cr), 0), jnp.maximum(jnp.maximum(ul + cl, ur + cr), 0)
    )
    wet = hl + hr > 0
    share = jnp.where(wet, 1 / jnp.where(wet, sr - sl, 1), 0)
    of_left = sr * share
    of_right, mixing = 1 - of_left, sl * of_left
    ql, qr = hl * ul, hr * ur
    lift = gravity / 2 * (hr - hl) * (hr + hl)
    mass, before = stencil.pair(
        of_left * ql + of_right * qr + mixing * (hr - hl),
        of_left * ql * ul + of_right * (qr * ur + lift) + mixing * (qr - ql),
    )
    return Fluxes(mass, before, before - lift), (left, right, hl, hr, sl, sr, share)


def _pull(gravity, kept, bars):
    """Cotangents of the water on both sides, from those of the fluxes."""
    left, right, *kept = kept
    # not to be shared with the forward sums: XLA would write each common term to memory
    hl, hr, sl, sr, share = lax.optimization_barrier(kept)
    mass_bar, before_bar, after_bar = bars
    ul, ur = left.speed, right.speed
    momentum_bar = before_bar + after_bar
    of_left = sr * share
    of_right, mixing = 1 - of_left, sl * of_left
    ql, qr = hl * ul, hr * ur
    lift = gravity / 2 * (hr - hl) * (hr + hl)
    of_left_bar = mass_bar * (ql - qr) + momentum_bar * (ql * ul - qr * ur - lift)
    mixing_bar = mass_bar * (hr - hl) + momentum_bar * (qr - ql)
    sl_bar, sr_bar = stencil.pair(
        of_left * (share * of_left_bar + of_left * mixing_bar),
        of_right * (share * of_left_bar - of_right * mixing_bar),
    )
    lift_bar = gravity * (of_right * before_bar - of_left * after_bar)

    def side(h, u, c, slow, fast, part, sign):
        slow_bar, fast_bar = jnp.where(slow, sl_bar, 0), jnp.where(fast, sr_bar, 0)
        q_bar = part * (mass_bar + u * momentum_bar) + sign * mixing * momentum_bar
        half = gravity / 2 / jnp.where(h > 0, c, 1)
        h_bar = (fast_bar - slow_bar) * half + u * q_bar + sign * (mixing * mass_bar + lift_bar * h)
        u_bar = h * (q_bar + part * u * momentum_bar) + fast_bar + slow_bar
        return stencil.pair(jnp.where(h > 0, h_bar, 0), u_bar)

    cl, cr = root(gravity * hl), root(gravity * hr)
    slow, fast = ul - cl == sl, ul + cl == sr
    hl_bar, ul_bar = side(hl, ul, cl, slow, fast, of_left, -1)
    # beside an open face waves of both sides may stay equally fast: those of the left count alone
    slow, fast = (ur - cr == sl) & ~slow, (ur + cr == sr) & ~fast
    hr_bar, ur_bar = side(hr, ur, cr, slow, fast, of_right, 1)
    step = (left.level - left.depth) - (right.level - right.depth)
    # where the bed is even both sides are its sill
    part = jnp.where(step > 0, 1, jnp.where(step < 0, 0, jnp.asarray(0.5, step.dtype)))
    both = hl_bar + hr_bar
    left_drop, right_drop = stencil.pair(part * both, (1 - part) * both)
    rise = hl_bar - left_drop
    return Water(left_drop, rise, ul_bar), Water(right_drop, -rise, ur_bar)


with_transpose = jax.custom_vjp(fluxes, nondiff_argnums=(0,))
with_transpose.defvjp(_fluxes, _pull)
