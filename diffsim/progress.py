"""What a running program tells: how far it is, and whether its state ends up finite.

How far is a bar on a terminal, a line in the log every few seconds elsewhere. A program calls
`tick` and `lose` by their names, so one kept on disk does, too; the `Progress` in whose ``with``
block it runs listens.
"""

import logging
import time

from tqdm import tqdm

from diffsim.body import TICK
from diffsim.host import named

log = logging.getLogger(__name__)
PAUSE = 5.0  # s between two lines


class Progress:
    """Counts step evaluations while its ``with`` block lasts.

    Args:
        label: what runs
        total: step evaluations to expect
    """

    def __init__(self, label: str, total: int):
        self.label, self.total = label, total
        self.lost = False  # whether the state at the end of a run was not finite

    def __enter__(self):
        _listening.append(self)
        self.done, self.start = 0, time.monotonic()
        self.told = self.start
        # disable=None: no bar unless stderr is a terminal
        self.bar = tqdm(desc=self.label, total=self.total, unit="step", leave=False, disable=None)
        return self

    def __exit__(self, *_):
        _listening.remove(self)
        self.bar.close()

    def tick(self):
        """Another ``TICK`` step evaluations are done."""
        self.done = min(self.done + TICK, self.total)
        self.bar.update(self.done - self.bar.n)
        now = time.monotonic()
        if self.bar.disable and now - self.told > PAUSE:
            self.told = now
            rate = self.done / (now - self.start)
            left = (self.total - self.done) / rate
            share = self.done / self.total
            log.info("%s: %.0f %%, %.3g steps/s, %.0f s left", self.label, 100 * share, rate, left)


_listening: list[Progress] = []


@named
def tick():
    """For ``simulate(…, tick=tick)``."""
    for progress in _listening:
        progress.tick()


@named
def lose():
    """For ``simulate(…, watch=lose)``."""
    for progress in _listening:
        progress.lost = True
