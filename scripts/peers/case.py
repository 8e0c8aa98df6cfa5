"""The shots that all tools run."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter


class Case(NamedTuple):
    """One shot: every tool gets the same."""

    shape: tuple[int, ...]  # nodes, without layers
    order: int
    width: int  # cells, of the absorbing layer around all faces
    steps: int
    receivers: int
    dtype: str = "float32"
    repeats: int = 3  # of each run in a process
    reach: int = 10_000  # nodes, from the source to the farthest receiver
    spacing: float = 25.0  # m
    dt: float = 2e-3  # s
    frequency: float = (
        6.0  # Hz, the wavelet's peak; where layers are thin, high enough for a damping one
    )
    fastest: float = 4500.0  # m/s, of the layers' damping

    @property
    def points(self):
        """Node updates in a forward run, layers not counted."""
        return float(np.prod(self.shape)) * self.steps

    def speed(self):
        """m/s: layers that bend and thicken, faster with depth, with scatterers; seeded."""
        random = np.random.default_rng(0)
        depth = np.linspace(0, 1, self.shape[0]).reshape(-1, *(1,) * (len(self.shape) - 1))
        bend = gaussian_filter(random.standard_normal((1, *self.shape[1:])), 30, mode="wrap")
        bent = depth * 24 + 1.5 * bend / np.abs(bend).max()
        contrast = random.uniform(-400, 400, 32)
        number = np.clip(bent.astype(int), 0, 31)
        rough = gaussian_filter(random.standard_normal(self.shape), 3)
        speed = 1800 + 2000 * depth + contrast[number] + 100 * rough / rough.std()
        return gaussian_filter(speed, 2).clip(1500, 4500).astype(self.dtype)

    def source(self):
        """The node of the source, near the top's middle."""
        return np.array([4, *(n // 2 for n in self.shape[1:])])

    def places(self):
        """The nodes of the receivers: a line along the last axis near the top."""
        places = np.tile(self.source(), (self.receivers, 1))
        places[:, 0] = 6
        last, middle = self.shape[-1], self.source()[-1]
        first, end = max(8, middle - self.reach), min(last - 9, middle + self.reach)
        places[:, -1] = np.linspace(first, end, self.receivers).round()
        return places

    def wavelet(self):
        """Ricker's, of the case's frequency: ``[step]``."""
        t = np.arange(self.steps) * self.dt - 1 / self.frequency
        a = (np.pi * self.frequency * t) ** 2
        return ((1 - 2 * a) * np.exp(-a)).astype(self.dtype)


CASES = {
    "A": Case((141, 681), 4, 50, 2000, 100),
    "B": Case((512, 512), 8, 20, 1000, 100, frequency=15.0),
    "C": Case((2048, 2048), 8, 20, 200, 100, repeats=2, reach=200, frequency=15.0),
    "D": Case((128, 128, 128), 4, 10, 200, 100, repeats=2, dt=1.5e-3, frequency=10.0),
    "E": Case((1000, 1000), 4, 20, 10_000, 100, repeats=1),
    "E64": Case((1000, 1000), 4, 20, 10_000, 100, "float64", repeats=1),
}


def small(case):
    """The same in a second, to try the tools: nothing that it measures means anything."""
    shape = tuple(40 if len(case.shape) == 3 else 80 for _ in case.shape)
    return case._replace(shape=shape, width=10, steps=160, receivers=20, repeats=1)
