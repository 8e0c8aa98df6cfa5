"""Time series: slice n belongs to step n, at time ``n dt``."""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from diffsim.fields.maker import Maker, Positive
from diffsim.solver import frozen


@frozen
class Ricker(Maker):
    """The wavelet ``(1 - 2 a²) exp(-a²)`` with ``a = π f (t - delay)``, ``t = n dt``.

    Its spectrum peaks at f and is below 1 % of that peak beyond 2.8 f (Ricker 1953).

    Args:
        frequency: Hz, the peak frequency f
        delay: s, when the wavelet peaks; from ``1.5 / f`` on it starts from less than 1e-8
        amplitude: the peak value, in the units of the field that it fills
    """

    frequency: Positive  # Hz
    delay: float  # s
    amplitude: float = 1.0

    def make(self, solver, steps):
        """``[steps]``."""
        time = np.arange(steps) * solver.dt
        a = np.pi * self.frequency * (time - self.delay)
        return self.amplitude * (1 - 2 * a**2) * np.exp(-(a**2))


@frozen
class Rise(Maker):
    """The rate at which something happens evenly from start on: ``1 / duration``, then 0.

    Times ``dt`` it sums up to 1, if the run is long enough.

    Args:
        duration: s, such as a fault's rise time; one step or less is at once
        start: s
    """

    duration: Positive  # s
    start: Annotated[float, Ge(0)] = 0.0  # s

    def make(self, solver, steps):
        """``[steps]``, 1/s: the mean over each step."""
        time = np.arange(steps + 1) * solver.dt
        return np.diff(np.clip((time - self.start) / self.duration, 0, 1)) / solver.dt
