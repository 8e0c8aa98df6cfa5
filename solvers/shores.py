"""What lies beyond the faces of a grid of shallow water: walls, seas, rivers, the other side.

Each face fills the cells beyond it from as many inside: thin strips of the grid, so that their
transpose is thin as well.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffsim.solver import frozen
from solvers import stencil
from solvers.water import Law, positive


@frozen
class Wall:
    """No flow through the face."""

    def outside(self, depth, into, bed, given, law):
        """Depth beyond the face and flow into the grid there, from those of the mirrored cells."""
        return depth, -into


@frozen
class Open:
    """Waves leave.

    Beyond the face lies a sea at rest: the wave that comes in from there carries its ``2 √(g h)``,
    the one that leaves what the water inside has. Without a level water flows out as it comes, and
    none flows in, as at the end of a channel.

    Args:
        level: m, of the sea beyond
    """

    level: float | None = None  # m

    def outside(self, depth, into, bed, given, law):
        """Depth and inflow where both waves meet (Riemann's invariants)."""
        if self.level is None:
            return depth, jnp.minimum(into, 0)
        leaving = -into * law.slowness(depth)
        own, rest = law.celerity(depth), law.celerity(positive(self.level - bed))
        celerity = jnp.maximum((leaving + 2 * own + 2 * rest) / 4, 0)
        beyond, out = celerity**2 / law.gravity, leaving / 2 + own - rest
        fast = leaving > own  # nothing comes in against the flow
        return jnp.where(fast, depth, beyond), jnp.where(fast, into, -out * beyond)


@frozen
class Stage:
    """The water level beyond the face is given in time: ``forcing.stage``."""

    def outside(self, depth, into, bed, given, law):
        """The depth that is given, and the flow that the wave which leaves implies."""
        outside = positive(given - bed)
        # the wave that leaves carries u - 2c, counted inward
        wave = 2 * (law.celerity(outside) - law.celerity(depth))
        return outside, outside * (into * law.slowness(depth) + wave)


@frozen
class Discharge:
    """The flow into the grid through the face is given in time: ``forcing.discharge``."""

    def outside(self, depth, into, bed, given, law):
        """The flow that is given, at its critical depth at least."""
        critical = jnp.cbrt(given**2 / law.gravity)
        return jnp.maximum(depth, critical), jnp.full_like(into, given)


@frozen
class Periodic:
    """What leaves enters through the opposite face, which is periodic too."""


Face = Wall | Open | Stage | Discharge | Periodic


class Shores(NamedTuple):
    """The faces of a grid, in the order of the axes, before and after.

    States are records of depth, discharge along each axis, and bed.
    """

    boundary: tuple[tuple[Face, Face], ...]
    halo: int  # cells beyond each face

    @property
    def _faces(self):
        """Axis, side and face."""
        for axis, faces in enumerate(self.boundary):
            for high, face in enumerate(faces):
                yield axis, high, face

    def _inner(self, axis, high, face):
        """Where the cells lie that the halo beyond a face depends on."""
        far = isinstance(face, Periodic) != high
        part = slice(-self.halo, None) if far else slice(0, self.halo)
        return stencil.along(axis, len(self.boundary), part)

    def inside(self, state):
        """Of each face the cells that those beyond it depend on."""
        where = [self._inner(*face) for face in self._faces]
        parts = [jax.tree.map(lambda u, at=at: u[at], state) for at in where]
        return stencil.materialise(parts)  # columns are dear to read again

    def add_inside(self, state, strips):
        """The transpose of `inside`, added to a state."""
        for face, strip in zip(self._faces, strips, strict=True):
            state = stencil.add_part(state, self._inner(*face), strip)
        return state

    def beyond(self, strips, given, law: Law):
        """Of each face the cells beyond it, from those inside and what the face is given."""
        found = []
        for (axis, high, face), state, value in zip(self._faces, strips, given, strict=True):
            if not isinstance(face, Periodic):
                depth, discharge, bed = state = jax.tree.map(
                    lambda u, a=axis: jnp.flip(u, a), state
                )
                inward, flow = 1 - 2 * high, list(discharge)
                depth, into = face.outside(depth, inward * flow[axis], bed, value, law)
                flow[axis] = inward * into
                state = state._replace(depth=depth, discharge=tuple(flow))
            found.append(state)
        return found

    def extend(self, state, beyond, margin: int):
        """The state with its halo, and as many empty cells around as make up a margin."""
        state = jax.tree.map(lambda u: jnp.pad(u, margin), state)
        for (axis, high, _), strip in zip(self._faces, beyond, strict=True):
            first = -margin if high else margin - self.halo
            part = slice(first, first + self.halo or None)
            at = self._part(axis, part, margin)
            put = lambda u, part, at=at: stencil.put_part(u, at, part)  # noqa: E731
            state = jax.tree.map(put, state, strip)
        return stencil.materialise(state)

    def rims(self, fields, axis: int):
        """The halo at both ends of an axis."""
        ends = slice(0, self.halo), slice(-self.halo, None)
        at = [stencil.along(axis, len(self.boundary), end) for end in ends]
        return [jax.tree.map(lambda u, at=at: u[at], fields) for at in at]

    def _part(self, axis, part, margin):
        """An index of a part of an axis, and of the grid's own cells along the others."""
        own = slice(margin, -margin or None)
        return tuple(part if i == axis else own for i in range(len(self.boundary)))
