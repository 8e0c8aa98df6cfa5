"""The faces of a grid of waves, and the frame of layers and images that they put around it."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import lax

from diffsim.grid import Grid
from diffsim.solver import frozen
from solvers import off_grid, stencil

Positive = Annotated[float, Gt(0)]


@frozen
class Free:
    """A pressure-free surface through the outermost nodes: p = 0 there, odd mirror image beyond."""


@frozen
class Rigid:
    """A wall through the outermost nodes: ∂p/∂n = 0 there, even mirror image beyond."""


@frozen
class Periodic:
    """What leaves enters through the opposite face, one spacing on, which is periodic too."""


@frozen
class Absorbing:
    """A convolutional perfectly matched layer outside the grid.

    Args:
        width: thickness; up to 60° from the normal and at 10 points per wavelength 20 cells send
            back less than a ten-thousandth of the amplitude, 10 less than a thousandth
        speed: m/s, of the waves that reach it; sets the damping, a factor of 1.5 off does no harm
        frequency: Hz, the source's peak frequency
    """

    width: Annotated[int, Ge(2)]  # cells
    speed: Positive  # m/s
    frequency: Positive  # Hz


Face = Free | Rigid | Periodic | Absorbing
Boundary = tuple[tuple[Face, Face], ...]


def refuse_misfits(grid: Grid, boundary: Boundary, order: int):
    """``ValueError`` if the faces do not suit the grid, or each other."""
    if len(boundary) != grid.ndim:
        raise ValueError(
            f"boundary names faces for {len(boundary)} axes, but the grid has "
            f"{grid.ndim}: give a pair (before, after) for each axis"
        )
    for n, faces in zip(grid.shape, boundary, strict=True):
        if sum(isinstance(face, Periodic) for face in faces) == 1:
            raise ValueError("an axis is periodic at one end only: make both ends Periodic")
        for kind, least, where in (
            (Free, order // 2, "beside a free surface"),
            (Rigid, order // 2 + 1, "beside a rigid wall"),
            (Periodic, order // 2, "on a periodic axis"),
        ):
            if n < least and any(isinstance(face, kind) for face in faces):
                raise ValueError(f"{n} nodes {where}: order {order} needs {least}")


@dataclass(frozen=True)
class Frame:
    """A grid with the absorbing layers around it, and a halo of half a stencil around both.

    Args:
        grid: the nodes
        boundary: for each axis the faces before its first and after its last node
        order: of the space differences
    """

    grid: Grid
    boundary: Boundary
    order: int

    @property
    def halo(self) -> int:
        """Nodes that a stencil reaches beyond the layers."""
        return self.order // 2

    @property
    def widths(self) -> list[tuple[int, int]]:
        """Nodes of the layers before and after the grid, along each axis."""
        width = lambda face: face.width if isinstance(face, Absorbing) else 0  # noqa: E731
        return [(width(low), width(high)) for low, high in self.boundary]

    @property
    def inner(self) -> tuple[int, ...]:
        """Nodes of the grid and its layers along each axis."""
        return tuple(n + sum(w) for n, w in zip(self.grid.shape, self.widths, strict=True))

    @property
    def layers(self) -> list[tuple[int, bool, Absorbing]]:
        """Axis, whether it is the low end, and the face, of each absorbing layer."""
        return [(axis, low, face) for axis, low, face in self._faces(Absorbing)]

    def _faces(self, kind) -> list:
        pairs = [(axis, low) for axis in range(self.grid.ndim) for low in (True, False)]
        faces = [(axis, low, self.boundary[axis][not low]) for axis, low in pairs]
        return [place for place in faces if isinstance(place[-1], kind)]

    # --- the medium

    def medium(self, values):
        """A medium's values on the layers too: constant along the normal."""
        return jnp.pad(values, self.widths, mode="edge")

    def beyond(self, values, axis: int, count: int):
        """A medium's values with ``count`` nodes more at both ends of an axis: images are even."""
        mode = {Free: "reflect", Rigid: "reflect", Absorbing: "edge"}
        low, high = self.boundary[axis]
        pad = lambda v, *ends, mode: jnp.pad(  # noqa: E731
            v, [ends if i == axis else (0, 0) for i in range(v.ndim)], mode=mode
        )
        if isinstance(low, Periodic):
            return pad(values, count, count, mode="wrap")
        values = pad(values, count, 0, mode=mode[type(low)])
        return pad(values, 0, count, mode=mode[type(high)])

    def silence(self, values):
        """Zero on free surfaces, for values on grid and layers."""
        for axis, low, _ in self._faces(Free):
            row = slice(0, 1) if low else slice(-1, None)
            values = values.at[stencil.along(axis, values.ndim, row)].set(0)
        return values

    def walls(self):
        """Axis and place, in the field with its halo, of the nodes on each rigid wall."""
        for axis, low, _ in self._faces(Rigid):
            yield axis, self.halo if low else self.halo + self.inner[axis] - 1

    # --- images

    def images(self):
        """For each face with images: axis, halo beyond, nodes that it shows, and their sign.

        The sign is 0 where the nodes are shown as they are, not in a mirror.
        """
        halo = self.halo
        for axis, low, face in self._faces(Free | Rigid | Periodic):
            n = self.inner[axis]
            beyond, within = slice(0, halo), slice(halo + 1, 2 * halo + 1)
            if isinstance(face, Periodic):
                within = slice(n, n + halo)
            if not low:
                end = n + 2 * halo
                beyond, within = (slice(end - s.stop, end - s.start) for s in (beyond, within))
            places = (stencil.along(axis, self.grid.ndim, part) for part in (beyond, within))
            yield axis, *places, {Free: -1, Rigid: 1, Periodic: 0}[type(face)]

    def mirror(self, p):
        """Fill the halo beyond faces with the image of the field."""
        for axis, beyond, within, sign in self.images():
            p = p.at[beyond].set(_image(p[within], axis, sign))
        return p

    def unmirror(self, p_bar):
        """The transpose of `mirror`."""
        for axis, beyond, within, sign in reversed(list(self.images())):
            p_bar = p_bar.at[within].add(_image(p_bar[beyond], axis, sign)).at[beyond].set(0)
        return p_bar

    def weigh(self, values, factor: float, across: int | None = None):
        """A field, or its part on a layer across an axis, with rigid walls' nodes times ``factor``.

        Half of such a node's cell lies behind the wall. In the inner product that counts the node
        by half the Laplacian is symmetric, and a source there spreads over half the volume.
        """
        for axis, low, _ in self._faces(Rigid):
            if axis != across:
                halo = (values.shape[axis] - self.inner[axis]) // 2
                row = slice(halo, halo + 1) if low else slice(-halo - 1, -halo or None)
                values = values.at[stencil.along(axis, values.ndim, row)].multiply(factor)
        return values

    # --- points between nodes

    @property
    def copies(self) -> int:
        """Windows for each point: on a periodic axis one at either end."""
        return 2 ** sum(isinstance(low, Periodic) for low, _ in self.boundary)

    @property
    def reach(self) -> Grid:
        """Where points may be: the grid and, on a periodic axis, up to its first node's image."""
        ends = zip(self.grid.shape, self.boundary, strict=True)
        shape = tuple(n + isinstance(low, Periodic) for n, (low, _) in ends)
        return dataclasses.replace(self.grid, shape=shape)

    def points(
        self, positions, radius: int, along: int | None = None, on: tuple[bool, ...] = ()
    ) -> off_grid.Points:
        """Windows in the field around positions in metres, `copies` of them for each in turn.

        With ``along`` the weights are those of the derivative along that axis (1/m); for ``on``
        see `off_grid.sinc`.
        """
        if along is not None and not 0 <= along < self.grid.ndim:
            raise ValueError(
                f"along={along}, but the grid has {self.grid.ndim} axes: give one of 0 to "
                f"{self.grid.ndim - 1}"
            )
        return off_grid.located(self.reach, positions, Frame._windows, self, radius, along, on)

    @staticmethod
    def _windows(positions, frame, radius, along, on):
        nodes = frame.grid.nodes(positions)
        nodes = [node + w[0] for node, w in zip(nodes, frame.widths, strict=True)]
        signs = [tuple(_SIGN.get(type(face), 0) for face in faces) for faces in frame.boundary]
        nodes = frame._copied(nodes)
        start, weights = off_grid.sinc(nodes, frame.inner, radius, signs, along, on)
        if along is not None:
            weights = weights / frame.grid.spacing[along]
        # places that XLA knew while compiling would be merged into the field's kernel, at half the
        # speed of the whole step
        return off_grid.Points(lax.optimization_barrier(start + frame.halo), weights)

    def _copied(self, nodes):
        """Each point and, on a periodic axis, its nearer image, which shares the window's rest."""
        for axis, (low, _) in enumerate(self.boundary):
            if isinstance(low, Periodic):
                n = self.inner[axis]
                image = nodes[axis] + jnp.where(nodes[axis] < n / 2, n, -n)
                nodes = [jnp.stack([x, x if i != axis else image], -1) for i, x in enumerate(nodes)]
                nodes = [x.reshape(-1) for x in nodes]
        return nodes


_SIGN = {Free: -1, Rigid: 1}


def _image(part, axis, sign):
    image = jnp.flip(part, axis) if sign else part
    return -image if sign < 0 else image
