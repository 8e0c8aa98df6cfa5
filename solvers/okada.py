"""How a rectangular fault in an elastic half-space lifts the ground (Okada 1985, BSSA 75)."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.grid import Grid
from diffsim.solver import Quantity, Remark
from solvers.earth import Sphere


class Fault(NamedTuple):
    """Uniform slip on a rectangle, or on several if fields are ``[rectangle]``, which add up.

    All may be differentiated. The centre is where earthquake catalogues put it: in the middle of
    the rectangle. Seen along the strike the fault dips to the right.
    """

    x: Annotated[Any, Quantity("x of the fault's centre", "m")]  # east
    y: Annotated[Any, Quantity("y of the fault's centre", "m")]  # north
    # of the centre; the upper edge must lie below the ground
    depth: Annotated[Any, Quantity("depth of the fault's centre", "m")]
    length: Annotated[Any, Quantity("length of the fault", "m")]  # along strike
    width: Annotated[Any, Quantity("width of the fault", "m")]  # down dip
    strike: Annotated[Any, Quantity("strike", "degrees")]  # clockwise from north
    dip: Annotated[Any, Quantity("dip", "degrees")]  # above 0, below 90
    rake: Annotated[Any, Quantity("rake", "degrees")]  # of the slip: 0 left-lateral, 90 reverse
    slip: Annotated[Any, Quantity("slip", "m")]


def remarks(lift: Any, fault: Fault | None, grid: Grid, rate: Any) -> list[Remark]:
    """What is wrong with a solver's ``params.uplift``, ``params.fault`` and ``forcing.uplift``."""
    found = []
    given = fault is not None or lift is not None
    moves = fault is not None or (lift is not None and np.any(lift))
    if (moves and rate is None) or (rate is not None and not given):
        name = "uplift" if fault is None else "fault"
        text = f"params.{name} says where, forcing.uplift when: give both or none"
        found.append(Remark(f"params.{name}", text))
    if fault is None:
        return found
    if grid.ndim != 2:
        text = f"it lifts a plane, but the grid's axes are {grid.axes}: give a grid [y, x]"
        return [*found, Remark("params.fault", text)]
    f = Fault(*map(np.asarray, fault))
    top = f.depth - f.width / 2 * np.sin(np.deg2rad(f.dip))
    rules = (
        ("length", f.length <= 0, "m is no length: give more than 0"),
        ("width", f.width <= 0, "m is no width: give more than 0"),
        ("dip", (f.dip <= 0) | (f.dip >= 90), "degrees: give more than 0 and less than 90"),
        ("depth", top <= 0, "m puts the upper edge above the ground: give more"),
    )
    return found + [
        Remark(f"params.fault.{name}", f"{getattr(f, name)} {text}")
        for name, bad, text in rules
        if np.any(bad)
    ]


def total(lift: Any, fault: Fault | None, grid: Grid, sphere: Sphere | None) -> Any:
    """m, ``[y, x]``, an uplift and that by a fault, or None if there is neither.

    On a sphere, whose curvature a fault does not feel, distances are those on the plane that
    touches each parallel.
    """
    if fault is None:
        return lift
    y, x = (
        origin + spacing * np.arange(count)
        for count, spacing, origin in zip(grid.shape, grid.spacing, grid.origin, strict=True)
    )
    shrink = sphere.parallels(grid).cell if sphere else 1.0
    dtype = jnp.result_type(float, *fault)
    by_fault = uplift(fault, *(jnp.asarray(a, dtype) for a in (*np.meshgrid(x, y), shrink)))
    return by_fault if lift is None else lift + by_fault


def uplift(fault: Fault, x: Any, y: Any, shrink: Any = 1.0):
    """Vertical displacement (m) of the ground at x east and y north (m), arrays of equal shape.

    Okada's equations 25 to 30 for a Poisson solid (λ = μ), differences over the rectangle's corners
    of a function that is smooth everywhere off the fault. Differentiable in all arguments; 1e-12 of
    the slip in float64.

    Args:
        fault: one or several
        x: m, east
        y: m, north
        shrink: how many metres there are to one in x: the cosine of the latitude on a sphere
    """
    each = Fault(*jnp.broadcast_arrays(*map(jnp.atleast_1d, fault)))
    return jnp.sum(jax.vmap(lambda f: _uplift(f, x, y, shrink))(each), axis=0)


def _uplift(f: Fault, x, y, shrink):
    """That of one rectangle."""
    strike, dip, rake = (jnp.deg2rad(angle) for angle in (f.strike, f.dip, f.rake))
    sin, cos = jnp.sin(dip), jnp.cos(dip)
    east, north = (x - f.x) * shrink, y - f.y
    along = east * jnp.sin(strike) + north * jnp.cos(strike) + f.length / 2
    across = north * jnp.sin(strike) - east * jnp.cos(strike) + f.width / 2 * cos
    bottom = f.depth + f.width / 2 * sin
    p, q = across * cos + bottom * sin, across * sin - bottom * cos
    # the corners as two axes: XLA takes a quarter of the time to compile them
    xi = jnp.stack([along, along - f.length])[:, None]
    eta = jnp.stack([p, p - f.width])[None]
    of_strike, of_dip = _corner(xi, eta, q[None, None], sin, cos)
    corners = jnp.cos(rake) * of_strike + jnp.sin(rake) * of_dip
    slips = corners[0, 0] - corners[0, 1] - corners[1, 0] + corners[1, 1]
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
