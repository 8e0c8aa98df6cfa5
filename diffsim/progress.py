"""How far a program is: a bar on a terminal, a line in the log every few seconds elsewhere."""

import logging
import time

from tqdm import tqdm

from diffsim.simulate import TICK

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

    def __enter__(self):
        self.done, self.start = 0, time.monotonic()
        self.told = self.start
        # disable=None: no bar unless stderr is a terminal
        self.bar = tqdm(desc=self.label, total=self.total, unit="step", leave=False, disable=None)
        return self

    def __exit__(self, *_):
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
