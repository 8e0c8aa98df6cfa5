"""Time series: slice n belongs to step n, at time ``n dt``."""

import numpy as np

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
