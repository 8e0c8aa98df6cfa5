"""A grid on the Earth: parallels are shorter towards the poles, and it rotates."""

from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Gt

from diffsim.grid import Grid
from diffsim.solver import frozen

Positive = Annotated[float, Gt(0)]


class Parallels(NamedTuple):
    """What the rows of a grid on a sphere need, arrays that broadcast to ``[y, x]``."""

    cell: Any  # [y, 1], the cosine of the latitude: m along a parallel for each m in x
    face: Any  # [y + 1, 1], the same before, between and after the cells
    turn: Any  # 1/m, [y, 1], tan(latitude) / radius: flow along a parallel turns by it in a metre


@frozen
class Sphere:
    """A grid in longitude x and latitude y, both in metres along a great circle.

    One degree is ``π / 180 radius``, 111.195 km on the Earth, in x as in y, wherever it is; y = 0
    is the equator. A face on a pole has no length: nothing flows through it.

    Args:
        radius: m
    """

    radius: Positive = 6.371e6  # m

    def parallels(self, grid: Grid) -> Parallels:
        """The rows of a grid, ``ValueError`` unless it has two axes and no cell beyond a pole."""
        if grid.ndim != 2:
            raise ValueError(f"a sphere has two axes, the grid has {grid.ndim}: leave sphere out")
        count, spacing, origin = grid.shape[0], grid.spacing[0], grid.origin[0]
        cells, faces = (
            (origin + spacing * np.arange(-half, count)[:, None]) / self.radius
            for half in (0.0, 0.5)
        )
        if np.abs(faces).max() > np.pi / 2 + 1e-6 * spacing / self.radius:
            raise ValueError("the grid reaches beyond a pole: keep |y| below π/2 radius")
        return Parallels(np.cos(cells), np.maximum(np.cos(faces), 0), np.tan(cells) / self.radius)


@frozen
class Coriolis:
    """The Earth's rotation on a plane: ``f = f0 + beta (y - y0)``, y the first axis, northward.

    Args:
        f: 1/s, ``2 Ω sin(latitude)``: 1.03e-4 at 45° north
        beta: 1/(m s), ``2 Ω cos(latitude) / Earth's radius``; 0 is the f-plane
        y0: m, where f holds
    """

    f: float  # 1/s
    beta: float = 0.0  # 1/(m s)
    y0: float = 0.0  # m

    def along(self, y: np.ndarray, sphere: Sphere | None) -> np.ndarray:
        """1/s, at each y (m)."""
        return self.f + self.beta * (y - self.y0)


@frozen
class Rotation:
    """The rotation of a sphere: ``f = 2 rate sin(latitude)``.

    Args:
        rate: rad/s, the Earth's if absent
    """

    rate: float = 7.292e-5  # rad/s

    def along(self, y: np.ndarray, sphere: Sphere | None) -> np.ndarray:
        """1/s, at each y (m)."""
        if sphere is None:
            raise ValueError("Rotation is that of a sphere: give one, or Coriolis on a plane")
        return 2 * self.rate * np.sin(y / sphere.radius)
