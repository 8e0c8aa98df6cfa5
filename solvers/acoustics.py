"""What solvers of a pressure field share: its sources, its receivers, and what they refuse."""

import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.grid import Grid
from diffsim.solver import Quantity, Remark, Sampler
from solvers import off_grid, stencil
from solvers.faces import Frame


class WaveForcing(NamedTuple):
    # [step, source]
    sources: Annotated[jax.Array, Quantity("source time function", "Pa m^(axes-2)")]


def refuse_shapes(grid: Grid, params, names):
    """``ValueError`` for a field of the params that is not on the grid's nodes."""
    for name in names:
        value = getattr(params, name)
        if value is not None and value.shape != grid.shape:
            raise ValueError(
                f"params.{name} has shape {value.shape}, but the grid has {grid.shape}: "
                "resample one of them"
            )


def sources(frame: Frame, radius: int, places, moments, kappa) -> off_grid.Points:
    """What sources at ``places`` add to the next field: weights times κ over a cell's volume."""
    points = frame.points(places, radius)
    if moments is not None:
        points = points._replace(weights=_moved(frame, radius, places, moments, points.weights))
    per_cell = off_grid.windows(frame.weigh(kappa, 2), points) / math.prod(frame.grid.spacing)
    return points._replace(weights=points.weights.astype(kappa.dtype) * per_cell)


def _moved(frame, radius, places, moments, weights):
    """The weights of pressure sources and dipoles together, by their moments.

    ``-d·∇δ(x - xᵢ)`` is the derivative of ``δ(x - xᵢ)`` by xᵢ along d.
    """
    count, axes = places.shape
    if moments.shape != (count, 1 + axes):
        raise ValueError(
            f"params.moments has shape {moments.shape} for {count} sources on {axes} "
            f"axes: give a row of {1 + axes} numbers for each source"
        )
    weights = [weights]
    for axis in range(axes):
        weights.append(frame.points(places, radius, axis).weights)
    by_window = (rows(frame, moment, axes + 1) for moment in moments.T)
    return sum(m * w for m, w in zip(by_window, weights, strict=True))


def rows(frame: Frame, values, ndim: int):
    """Values for each window of each source, to be multiplied by its weights."""
    return jnp.expand_dims(jnp.repeat(values, frame.copies), tuple(range(1, ndim)))


def series(frame: Frame, points: off_grid.Points | None, forcing_n: WaveForcing):
    """What goes into each window of the sources."""
    given, copies = forcing_n.sources, frame.copies
    count = 0 if points is None else len(points.weights) // copies
    if points is None or given.shape != (count,):
        raise ValueError(
            f"forcing.sources has {given.shape} values a step for {count} sources: give one "
            "for each, [step, source]"
        )
    return given if copies == 1 else jnp.repeat(given, copies)


class Shot(NamedTuple):
    """What sources add to the next field: ``values`` [source], spread by ``points``."""

    points: off_grid.Points
    values: jax.Array


def shot(frame: Frame, points, forcing_n, dtype) -> Shot | None:
    """What the sources add in a step; None if nothing drives it."""
    if forcing_n is None:
        return None
    return Shot(points, series(frame, points, forcing_n).astype(dtype))


def fed(frame: Frame, field, shot: Shot | None):
    """A field with a shot, and images; XLA would merge a shot in a field that a stencil reads into
    the stencil."""
    return frame.mirror(field if shot is None else off_grid.put(field, *shot))


def sources_bar(frame: Frame, points: off_grid.Points | None, forcing_n, felt):
    """Cotangents of the sources' weights and series, from what their windows felt."""
    if points is None:
        return None, None
    weights_bar, forcing_bar = jnp.zeros_like(points.weights), None
    if forcing_n is not None:
        window = tuple(range(1, felt.ndim))
        given = series(frame, points, forcing_n)
        weights_bar = felt * jnp.expand_dims(given, window).astype(felt.dtype)
        series_bar = jnp.sum(felt * points.weights, axis=window)
        if frame.copies > 1:
            series_bar = series_bar.reshape(-1, frame.copies).sum(1)
        forcing_bar = WaveForcing(series_bar.astype(given.dtype))
    start_bar = np.zeros(points.start.shape, jax.dtypes.float0)
    return off_grid.Points(start_bar, weights_bar), forcing_bar


def sampler(frame: Frame, radius: int, positions, along: int | None) -> Sampler:
    """Pressure (Pa) at positions or, ``along`` an axis, its gradient (Pa/m).

    Receivers of a survey most often lie on nodes, along an axis or all: where they are known to,
    each sees 1 or 8 nodes instead of 64.
    """
    points = frame.points(positions, radius, along, off_grid.on_nodes(positions, frame.grid))
    copies = frame.copies

    def see(state, scale=None):
        state, seen = off_grid.see(state, "pressure", points, scale)
        return state, seen if copies == 1 else seen.reshape(-1, copies).sum(1)

    return Sampler(see)


def stable_dt(order: int, spacing: tuple[float, ...], fastest: float) -> float:
    """``2 / √λ`` with ``λ = c² Σ μ/h²``, the largest eigenvalue of ``-c² ∇²`` by differences."""
    worst = sum(stencil.stable_courant(order) / h**2 for h in spacing)
    return 2 / (fastest * worst**0.5)


def spectrum(forcing: WaveForcing) -> np.ndarray:
    """The loudest source's at each frequency."""
    return np.abs(np.fft.rfft(np.asarray(forcing.sources), axis=0)).max(axis=1)


# --- what a check finds


def misgiven(grid: Grid, params, units: dict[str, str]) -> list[Remark]:
    """Fields of the params, by their units, that are off the grid's nodes or not positive.

    An ``initial`` field may have any sign.
    """
    remarks = []
    for name, unit in units.items():
        value = getattr(params, name)
        if value is None:
            continue
        if (shape := np.shape(value)) != grid.shape:
            text = f"shape {shape}, but the grid has {grid.shape}: resample one of them"
            remarks.append(Remark(f"params.{name}", text))
        if name != "initial" and np.any(np.asarray(value) <= 0):
            lowest = f"{np.nanmin(value):g} {unit}".strip()
            text = f"the lowest {name} is {lowest}: it must be positive"
            remarks.append(Remark(f"params.{name}", text))
    return remarks


def misplaced(frame: Frame, places, moments) -> list[Remark]:
    """Sources outside the grid, and records of another shape."""
    if places is None:
        return []
    places, axes = np.asarray(places), frame.grid.ndim
    if places.ndim != 2 or places.shape[1] != axes:
        text = f"shape {places.shape}: give a row of {axes} numbers for each source"
        return [Remark("params.sources", text)]
    remarks = []
    for i in np.flatnonzero(frame.reach.outside(places)):
        place, extent = places[i].tolist(), frame.grid.extent
        text = f"source {i} at {place} m is outside the grid {extent} m: move it inside"
        remarks.append(Remark("params.sources", text))
    if moments is not None and np.shape(moments) != (len(places), 1 + axes):
        text = f"shape {np.shape(moments)}: give a row of {1 + axes} numbers a source"
        remarks.append(Remark("params.moments", text))
    return remarks


def resolution(grid: Grid, dt: float, speed, forcing: WaveForcing) -> list[Remark]:
    """Waves too short for the grid."""
    peak, slowest = np.argmax(spectrum(forcing)) / (len(forcing.sources) * dt), np.min(speed)
    if peak == 0:
        return []
    shortest = slowest / peak
    points = shortest / max(grid.spacing)
    if points >= 5:
        return []
    text = (
        f"{points:.1f} points per wavelength: {shortest:.4g} m at the peak frequency "
        f"{peak:.3g} Hz and the lowest speed {slowest:.4g} m/s, on "
        f"{max(grid.spacing):g} m cells: 5 or more are needed; lower the frequency or "
        "refine the grid"
    )
    return [Remark("forcing.sources", text, fatal=False)]
