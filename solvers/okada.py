"""How a rectangular fault in an elastic half-space lifts the ground (Okada 1985, BSSA 75)."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Fault(NamedTuple):
    """Uniform slip on a rectangle; every field may be differentiated.

    The centre is where earthquake catalogues put it: in the middle of the rectangle. Seen along the
    strike the fault dips to the right.
    """

    x: Any  # m, east, of the centre
    y: Any  # m, north
    depth: Any  # m, of the centre; the upper edge must lie below the ground
    length: Any  # m, along strike
    width: Any  # m, down dip
    strike: Any  # rad, clockwise from north
    dip: Any  # rad, above 0, below π/2
    rake: Any  # rad, of the slip: 0 left-lateral, π/2 reverse
    slip: Any  # m


def uplift(fault: Fault, x, y):
    """Vertical displacement (m) of the ground at x east and y north (m), arrays of equal shape.

    Okada's equations 25 to 30 for a Poisson solid (λ = μ), differences over the rectangle's corners
    of a function that is smooth everywhere off the fault. Differentiable in all arguments; 1e-12 of
    the slip in float64.
    """
    f = fault
    sin, cos = jnp.sin(f.dip), jnp.cos(f.dip)
    east, north = x - f.x, y - f.y
    along = east * jnp.sin(f.strike) + north * jnp.cos(f.strike) + f.length / 2
    across = north * jnp.sin(f.strike) - east * jnp.cos(f.strike) + f.width / 2 * cos
    bottom = f.depth + f.width / 2 * sin
    p, q = across * cos + bottom * sin, across * sin - bottom * cos
    strike_slip = dip_slip = 0.0
    for xi, sign in ((along, 1), (along - f.length, -1)):
        for eta, side in ((p, sign), (p - f.width, -sign)):
            of_strike, of_dip = _corner(xi, eta, q, sin, cos)
            strike_slip, dip_slip = strike_slip + side * of_strike, dip_slip + side * of_dip
    slips = jnp.cos(f.rake) * strike_slip + jnp.sin(f.rake) * dip_slip
    return -f.slip / (2 * jnp.pi) * slips


def _corner(xi, eta, q, sin, cos):
    """The brackets of equations 25 (strike-slip) and 26 (dip-slip), vertical component."""
    r = jnp.sqrt(xi**2 + eta**2 + q**2)
    depth = eta * sin - q * cos
    off = xi**2 + q**2
    x = jnp.where(off > 0, jnp.sqrt(jnp.where(off > 0, off, 1)), 0)
    log = jnp.log(r + eta)
    half = 0.5  # μ / (λ + μ)
    i4 = half / cos * (jnp.log(r + depth) - sin * log)
    away = jnp.where(xi == 0, 1, xi)  # I5 is odd in ξ
    angle = jnp.arctan((eta * (x + q * cos) + x * (r + x) * sin) / (away * (r + x) * cos))
    i5 = jnp.where(xi == 0, 0, 2 * half / cos * angle)
    flat = jnp.where(q == 0, 1, q)  # in the plane of the fault
    turn = jnp.where(q == 0, 0, jnp.arctan(xi * eta / (flat * r)))
    of_strike = depth * q / (r * (r + eta)) + q * sin / (r + eta) + i4 * sin
    of_dip = depth * q / (r * (r + xi)) + sin * turn - i5 * sin * cos
    return of_strike, of_dip
