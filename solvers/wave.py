"""The acoustic wave equation at constant density.

``(1/c²) ∂²p/∂t² - ∇²p = Σᵢ fᵢ(t) δ(x - xᵢ)``, leapfrog in time, central differences of order 2, 4,
6 or 8 in space. The fields carry a halo of half a stencil around the grid and its absorbing layers.
"""

import math
from typing import Annotated, ClassVar, Literal, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from jax import lax

from diffsim.grid import Grid
from diffsim.solver import AdjointSolver, Example, Quantity, Remark, ReversibleSolver, frozen
from solvers import stencil

Positive = Annotated[float, Gt(0)]


@frozen
class Free:
    """A pressure-free surface through the outermost nodes: p = 0 there, odd mirror image beyond."""

    @property
    def width(self) -> int:
        return 0


@frozen
class Absorbing:
    """A convolutional perfectly matched layer outside the grid.

    Args:
        width: thickness; 20 cells send back less than a thousandth of the amplitude
        speed: m/s, of the waves that reach it; sets the damping, a factor of 1.5 off does no harm
        frequency: Hz, the source's peak frequency
    """

    width: Annotated[int, Ge(2)]  # cells
    speed: Positive  # m/s
    frequency: Positive  # Hz


Face = Free | Absorbing


class WaveParams(NamedTuple):
    speed: Annotated[jax.Array, Quantity("P-wave speed", "m/s")]  # [*grid.shape]
    sources: Annotated[jax.Array, Quantity("source position", "m")]  # [source, axis]


class WaveForcing(NamedTuple):
    # [step, source]
    sources: Annotated[jax.Array, Quantity("source time function", "Pa m^(axes-2)")]


class WaveCoefficients(NamedTuple):
    kappa: jax.Array  # m², dt² c², zero in the halo and on free surfaces
    sources: stencil.Points  # weights times kappa over the cell's volume


class WaveState(NamedTuple):
    pressure: jax.Array  # Pa
    previous: jax.Array  # Pa, one step earlier
    memory: tuple  # (ψ, ζ) of each layer


@frozen
class Wave(AdjointSolver, ReversibleSolver):
    """Acoustic waves at constant density on a regular grid of any dimension.

    Args:
        grid: the nodes; absorbing layers come on top of it
        dt: s, at most `stable_dt`
        order: of the space differences; 8 needs about 5 points per wavelength, 4 about 8
        boundary: for each axis the faces before its first and after its last node
        radius: cells, half width of the window that spreads a point over nodes (Hicks 2002)
    """

    Params: ClassVar = WaveParams
    Forcing: ClassVar = WaveForcing
    seen: ClassVar = Quantity("pressure", "Pa")

    grid: Grid
    dt: Positive  # s
    boundary: Annotated[tuple[tuple[Face, Face], ...], MinLen(1)]
    order: Literal[2, 4, 6, 8] = 8
    radius: Annotated[int, Ge(2), Le(8)] = 4  # cells

    def __post_init__(self):
        if len(self.boundary) != self.grid.ndim:
            raise ValueError(
                f"boundary names faces for {len(self.boundary)} axes, but the grid has "
                f"{self.grid.ndim}: give a pair (before, after) for each axis"
            )
        for n, faces in zip(self.grid.shape, self.boundary, strict=True):
            if n < self._halo and any(isinstance(face, Free) for face in faces):
                raise ValueError(
                    f"{n} nodes beside a free surface: order {self.order} needs {self._halo}"
                )

    # --- contract

    def coefficients(self, params):
        if params.speed.shape != self.grid.shape:
            raise ValueError(
                f"params.speed has shape {params.speed.shape}, but the grid has {self.grid.shape}: "
                "resample one of them"
            )
        if params.speed.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(f"params.speed is {params.speed.dtype}: give float32 or float64")
        speed = jnp.pad(params.speed, self._widths, mode="edge")
        kappa = (self.dt * speed) ** 2
        for axis, ends in enumerate(self._free()):
            for free, row in zip(ends, (slice(0, 1), slice(-1, None)), strict=True):
                if free:  # p = 0 stays 0
                    kappa = kappa.at[stencil.along(axis, kappa.ndim, row)].set(0)
        kappa = jnp.pad(kappa, self._halo)
        points = self._points(params.sources)
        density = stencil.windows(kappa, points) / math.prod(self.grid.spacing)
        weights = points.weights.astype(kappa.dtype) * density
        return WaveCoefficients(kappa, points._replace(weights=weights))

    def init(self, params):
        zero = jnp.zeros([n + 2 * self._halo for n in self._inner], params.speed.dtype)
        memory = []
        for axis, _, face in self._layers:
            shape = list(self._inner)
            pair = []
            for extra in (2, 1):
                shape[axis] = face.width + extra
                pair.append(jnp.zeros(shape, zero.dtype))
            memory.append(tuple(pair))
        return WaveState(zero, zero, tuple(memory))

    def step(self, coefficients, state, forcing_n):
        kappa, sources = coefficients
        p, previous, memory = state
        if forcing_n is not None and forcing_n.sources.shape != sources.weights.shape[:1]:
            raise ValueError(
                f"forcing.sources has {forcing_n.sources.shape} values a step for "
                f"{len(sources.weights)} sources: give one for each, [step, source]"
            )
        gains, memory = self._absorb(self._slabs(p), memory)
        gains, memory = stencil.materialise((self._guarded(gains), memory))
        new = self._leap(kappa, p, previous, gains)
        if forcing_n is not None:
            new = stencil.put(new, sources, forcing_n.sources)
        return WaveState(self._mirror(new), p, memory)

    def _leap(self, kappa, p, previous, gains):
        """``2 p - previous + κ (∇²p + gains)``, the same way forwards and backwards in time."""
        inner, outer = self._split(gains, self._halo - 1)
        curvature = stencil.laplacian(p, self.order, self.grid.spacing) + inner
        # reading `previous` at full shape lets XLA write the new field over it
        new = stencil.materialise(2 * p - previous + kappa * curvature)
        for where, gain in outer:
            new = new.at[where].add(kappa[where] * gain)
        return new

    def keep(self, state):
        return state.memory

    def unstep(self, coefficients, state, forcing_n, kept):
        """The leapfrog backwards; the layers' gains follow from their memory after the step."""
        kappa, sources = coefficients
        new, p, memory = state
        if forcing_n is not None:
            new = stencil.put(new, sources, -forcing_n.sources)
        gains = stencil.materialise(self._guarded(self._gains(memory)))
        return WaveState(p, self._mirror(self._leap(kappa, p, new, gains)), kept)

    def pullback(self, coefficients, state, forcing_n, state_bar):
        """The transpose of `step` by hand.

        The Laplacian is its own transpose, so the adjoint field ``κ p̄`` obeys the forward
        recursion. The halo holds zeros or images, not unknowns, and gets no cotangent.
        """
        kappa, sources = coefficients
        p, _, memory = state
        new_bar, p_bar, memory_bar = state_bar
        new_bar = self._unmirror(new_bar)
        scaled = self._mirror(stencil.materialise(kappa * new_bar))
        (gains, _), absorb_transpose = jax.vjp(self._absorb, self._slabs(p), memory)
        gains_bar = [scaled[where] for where in self._layer_nodes(self._halo - 1)]
        slabs_bar, memory_bar = absorb_transpose((gains_bar, memory_bar))
        parts = self._guarded(gains), self._guarded(slabs_bar), memory_bar
        gains, slabs_bar, memory_bar = stencil.materialise(parts)
        inner, outer = self._split(slabs_bar, rim=1)
        order, spacing = self.order, self.grid.spacing
        p_bar = p_bar + 2 * new_bar + stencil.laplacian(scaled, order, spacing) + inner
        p_bar = stencil.materialise(p_bar)
        for where, slab_bar in outer:
            p_bar = p_bar.at[where].add(slab_bar)
        inner, outer = self._split(gains, self._halo - 1)
        kappa_bar = stencil.materialise(new_bar * (stencil.laplacian(p, order, spacing) + inner))
        for where, gain in outer:
            kappa_bar = kappa_bar.at[where].add(new_bar[where] * gain)
        felt = stencil.windows(new_bar, sources)
        weights_bar, forcing_bar = jnp.zeros_like(sources.weights), None
        if forcing_n is not None:
            window = tuple(range(1, p.ndim + 1))
            weights_bar = felt * jnp.expand_dims(forcing_n.sources, window).astype(p.dtype)
            series_bar = jnp.sum(felt * sources.weights, axis=window)
            forcing_bar = WaveForcing(series_bar.astype(forcing_n.sources.dtype))
        start_bar = np.zeros(sources.start.shape, jax.dtypes.float0)
        coefficients_bar = WaveCoefficients(kappa_bar, stencil.Points(start_bar, weights_bar))
        return coefficients_bar, WaveState(p_bar, -new_bar, memory_bar), forcing_bar

    def stable_dt(self, params):
        """``dt < 2 / (c √Σ λ/h²)`` with λ the largest eigenvalue of the difference operator."""
        worst = sum(stencil.stable_courant(self.order) / h**2 for h in self.grid.spacing)
        return 2 / (float(np.max(params.speed)) * worst**0.5)

    def sampler(self, positions):
        points = self._points(jnp.asarray(positions))
        return lambda state: stencil.take(state.pressure, points)

    def check(self, params, forcing=None):
        speed, sources = np.asarray(params.speed), np.asarray(params.sources)
        remarks = []
        if speed.shape != self.grid.shape:
            text = f"shape {speed.shape}, but the grid has {self.grid.shape}: resample one of them"
            remarks.append(Remark("params.speed", text))
        if np.any(speed <= 0):
            text = f"the lowest speed is {np.nanmin(speed):g} m/s: it must be positive"
            remarks.append(Remark("params.speed", text))
        if not remarks:
            remarks = super().check(params, forcing)
        if sources.ndim != 2 or sources.shape[1] != self.grid.ndim:
            text = f"shape {sources.shape}: give a row of {self.grid.ndim} numbers for each source"
            return [*remarks, Remark("params.sources", text)]
        for i in np.flatnonzero(self.grid.outside(sources)):
            place, extent = sources[i].tolist(), self.grid.extent
            text = f"source {i} at {place} m is outside the grid {extent} m: move it inside"
            remarks.append(Remark("params.sources", text))
        if forcing is None or not np.any(forcing.sources):
            remarks.append(Remark("forcing.sources", "there is no sound: give it values"))
        elif not remarks:
            remarks = self._resolution(speed, np.asarray(forcing.sources))
        return remarks

    def _resolution(self, speed, wavelets):
        spectrum = np.abs(np.fft.rfft(wavelets, axis=0)).max(axis=1)
        peak = np.argmax(spectrum) / (len(wavelets) * self.dt)
        if peak == 0:
            return []
        shortest = speed.min() / peak
        points = shortest / max(self.grid.spacing)
        if points >= 5:
            return []
        text = (
            f"{points:.1f} points per wavelength: {shortest:.4g} m at the peak frequency "
            f"{peak:.3g} Hz and the lowest speed {speed.min():.4g} m/s, on "
            f"{max(self.grid.spacing):g} m cells: 5 or more are needed; lower the frequency or "
            "refine the grid"
        )
        return [Remark("forcing.sources", text, fatal=False)]

    @classmethod
    def example(cls):
        layer = Absorbing(width=3, speed=2000.0, frequency=25.0)
        grid = Grid(shape=(14, 15), spacing=(10.0, 12.0), origin=(0.0, -50.0))
        solver = cls(grid=grid, dt=1.5e-3, order=4, boundary=((Free(), layer), (layer, layer)))
        random = np.random.default_rng(0)
        speed = 2000 + 300 * random.random(grid.shape)
        sources = np.array([[14.0, 3.0], [61.0, 77.0]])
        time = np.arange(19) * solver.dt
        wavelets = np.sin(2 * np.pi * np.outer(time, (25.0, 40.0)))
        params = WaveParams(jnp.asarray(speed), jnp.asarray(sources))
        return Example(solver, params, WaveForcing(jnp.asarray(wavelets)))

    # --- geometry: `inner` is the grid with its layers, the halo lies around it

    @property
    def _halo(self):
        return self.order // 2

    @property
    def _widths(self):
        return [tuple(face.width for face in faces) for faces in self.boundary]

    @property
    def _inner(self):
        return tuple(n + sum(w) for n, w in zip(self.grid.shape, self._widths, strict=True))

    @property
    def _layers(self):
        """Axis, whether it is the low end, and the face, of each absorbing layer."""
        pairs = [(axis, low) for axis in range(self.grid.ndim) for low in (True, False)]
        faces = [(axis, low, self.boundary[axis][not low]) for axis, low in pairs]
        return [(axis, low, face) for axis, low, face in faces if isinstance(face, Absorbing)]

    def _layer_nodes(self, rim=0):
        """For each layer an index: its nodes, the grid's last one, and ``rim`` more around."""
        halo = self._halo
        for axis, low, face in self._layers:
            first, last = halo - rim, halo + face.width + 1 + rim
            if not low:
                end = self._inner[axis] + 2 * halo
                first, last = end - last, end - first
            inner = [slice(halo, halo + n) for n in self._inner]
            yield (*inner[:axis], slice(first, last), *inner[axis + 1 :])

    def _slabs(self, p):
        return [p[where] for where in self._layer_nodes(rim=1)]

    def _guard(self, part):
        """How far along axis 0 the field reaches beyond a part: its halo, and a row's rest."""
        row = self._inner[-1] + 2 * self._halo
        return self._halo + 1 + row // math.prod(part.shape[1:])

    def _guarded(self, parts):
        """The parts, with zeros around those of the last axis, for `_split` to take off again.

        The pad there compiles to masked loads at addresses up to a row away. Where no page lies
        behind one the mask holds, but slowly: without zeros of our own around, a whole step took
        100 or 170 µs at 187 × 801 as the run's memory happened to lie.
        """
        last = self.grid.ndim - 1
        return [
            jnp.pad(part, [(self._guard(part) * (i == 0),) * 2 for i in range(part.ndim)])
            if axis == last else part
            for (axis, *_), part in zip(self._layers, parts, strict=True)
        ]  # fmt: skip

    def _split(self, parts, rim=0):
        """What the layers add to a field: as a field for the last axis, as (where, part) else.

        Whole rows are quickly added in place; the short rows of the last axis are not, and go into
        the kernel that updates the whole field instead. (There a pad of the other axes would read,
        masked but slowly, far outside its array.)
        """
        shape = [n + 2 * self._halo for n in self._inner]
        inner, outer = 0.0, []
        places = zip(self._layers, self._layer_nodes(rim), parts, strict=True)
        for (axis, *_), where, part in places:
            if axis < self.grid.ndim - 1:
                outer.append((where, part))
            else:
                ends = zip(where, shape, strict=True)
                guard = self._guard(part)
                part = lax.slice_in_dim(part, guard, part.shape[0] - guard)
                inner += jnp.pad(part, [(w.start, n - w.stop) for w, n in ends])
        return inner, outer

    def _absorb(self, slabs, memory):
        """Each layer's gain to the Laplacian, and its memory afterwards."""
        after = []
        for (axis, low, face), slab, kept in zip(self._layers, slabs, memory, strict=True):
            h = self.grid.spacing[axis]
            profile = stencil.profile(face.width, h, self.dt, face.speed, face.frequency)
            if not low:
                profile = stencil.Profile(*(v[::-1] for v in profile))
            after.append(stencil.layer(slab, kept, profile, axis))
        return self._gains(after), tuple(after)

    def _gains(self, memory):
        """What the layers add to the Laplacian in the step that left this memory."""
        spacing = self.grid.spacing
        return [
            stencil.layer_gain(kept, axis, self.order) / spacing[axis] ** 2
            for (axis, *_), kept in zip(self._layers, memory, strict=True)
        ]

    def _free(self):
        return [(isinstance(low, Free), isinstance(high, Free)) for low, high in self.boundary]

    def _images(self):
        """For each free surface: its axis, the halo beyond it, and the nodes mirrored there."""
        halo = self._halo
        for axis, (low, high) in enumerate(self._free()):
            beyond, within = slice(0, halo), slice(halo + 1, 2 * halo + 1)
            if low:
                yield axis, beyond, within
            if high:
                end = self._inner[axis] + 2 * halo
                yield axis, slice(end - halo, end), slice(end - 2 * halo - 1, end - halo - 1)

    def _mirror(self, p):
        """Fill the halo beyond free surfaces with the odd image of the field."""
        for axis, *parts in self._images():
            beyond, within = (stencil.along(axis, p.ndim, part) for part in parts)
            p = p.at[beyond].set(-jnp.flip(p[within], axis))
        return p

    def _unmirror(self, p_bar):
        """The transpose of `_mirror`."""
        for axis, *parts in reversed(list(self._images())):
            beyond, within = (stencil.along(axis, p_bar.ndim, part) for part in parts)
            p_bar = p_bar.at[within].add(-jnp.flip(p_bar[beyond], axis)).at[beyond].set(0)
        return p_bar

    def _points(self, positions):
        """Windows in the padded field around positions in metres.

        Outside the grid there is no wave to feel: positions known by now are refused; where a
        traced one leaves the grid, its weights are NaN rather than a silent zero.
        """
        if positions.ndim != 2 or positions.shape[1] != self.grid.ndim:
            raise ValueError(
                f"positions of shape {positions.shape}: give a row of {self.grid.ndim} numbers each"
            )
        outside = self.grid.outside(positions)
        if not isinstance(outside, jax.core.Tracer) and np.any(outside):
            first = positions[int(np.argmax(outside))].tolist()
            raise ValueError(
                f"{int(np.sum(outside))} of {len(positions)} positions are outside the grid "
                f"{self.grid.extent} m, the first at {first} m: move them inside"
            )
        nodes = self.grid.nodes(positions)
        nodes = [node + w[0] for node, w in zip(nodes, self._widths, strict=True)]
        points = stencil.points(nodes, self._inner, self.radius, self._free())
        lost = jnp.expand_dims(jnp.asarray(outside), tuple(range(1, self.grid.ndim + 1)))
        weights = jnp.where(lost, jnp.nan, points.weights)
        # places that XLA knew while compiling would be merged into the field's kernel, at half the
        # speed of the whole step
        start = lax.optimization_barrier(points.start + self._halo)
        return stencil.Points(start, weights)
