"""Where the nodes of a regular grid lie in space."""

from typing import Annotated

from annotated_types import Gt, MinLen

from diffsim.solver import frozen

Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Gt(0)]


@frozen
class Grid:
    """A regular grid of nodes: node ``i`` of an axis lies at ``origin + i * spacing``.

    Axes are ordered ``[..., z, x]`` (or ``[..., y, x]``), the fastest last; z points down.

    Args:
        shape: nodes along each axis, for example ``(187, 801)``
        spacing: m, the distance between nodes along each axis, for example ``(25.0, 25.0)``
        origin: m, where node 0 of each axis lies; zeros if absent
        axes: names; ``("x",)``, ``("z", "x")`` or ``("z", "y", "x")`` if absent
    """

    shape: Annotated[tuple[Count, ...], MinLen(1)]  # nodes
    spacing: tuple[Positive, ...]  # m
    origin: tuple[float, ...] = ()  # m
    axes: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.origin:
            object.__setattr__(self, "origin", (0.0,) * self.ndim)
        if not self.axes:
            object.__setattr__(self, "axes", (*("z", "y")[: self.ndim - 1], "x"))
        for name in ("spacing", "origin", "axes"):
            if len(values := getattr(self, name)) != self.ndim:
                raise ValueError(
                    f"{name} {values} has {len(values)} entries, but shape {self.shape} has "
                    f"{self.ndim} axes: give one entry for each axis"
                )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """m, the first and the last node of each axis."""
        ends = zip(self.shape, self.spacing, self.origin, strict=True)
        return tuple((o, o + (n - 1) * h) for n, h, o in ends)

    def nodes(self, positions) -> list:
        """Positions ``[..., axis]`` (m) as fractional node numbers of each axis; differentiable."""
        ends = enumerate(zip(self.origin, self.spacing, strict=True))
        return [(positions[..., axis] - o) / h for axis, (o, h) in ends]

    def outside(self, positions):
        """Whether each of the positions ``[..., axis]`` (m) lies outside the grid."""
        outside = False
        for axis, (low, high) in enumerate(self.extent):
            slack = 1e-6 * self.spacing[axis]  # a position on the last node may be off by round-off
            place = positions[..., axis]
            outside = outside | ~(
                (place >= low - slack) & (place <= high + slack)
            )  # NaN is outside
        return outside
