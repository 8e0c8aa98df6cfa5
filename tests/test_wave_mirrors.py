"""A free surface is a mirror that turns the sign, a rigid wall one that does not."""

import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from solvers.wave import Absorbing, Free, Rigid

SPACING, DT, FREQUENCY, DEPTH = 10.0, 1.5e-3, 20.0, 31  # m, s, Hz, nodes from the surface on
LAYER = Absorbing(width=8, speed=2000.0, frequency=FREQUENCY)
SIDES = ((LAYER, LAYER),)


@pytest.mark.parametrize(
    ("face", "depth", "order", "end"),
    [
        (Free(), 7.3, 2, "first"), (Free(), 7.3, 8, "last"), (Free(), 133.7, 8, "first"),
        (Rigid(), 7.3, 8, "first"), (Rigid(), 0.0, 4, "last"),
    ],
)  # fmt: skip
def test_source_and_its_image(face, depth, order, end):
    """Half a medium with a free surface equals the whole with a source of opposite sign above.

    With a rigid wall the sign is the same, and a source on it, half of which lies behind, is twice
    as strong.

    The source is 7.3 m deep, so that its window of 40 m reaches beyond the surface, or far below.
    Both runs compute the same sums in another order, so 500 steps differ by round-off only; layers
    surround the rest, and the medium varies.
    """
    random = np.random.default_rng(0)
    below = 1600 + 600 * random.random((DEPTH, 40))
    whole = np.concatenate([below[:0:-1], below])  # the surface once
    wavelet = ricker(DT * np.arange(500), FREQUENCY, 1.5 / FREQUENCY)[:, None]
    source, receivers = np.array((depth, 171.1)), np.array([(4.4, 233.3), (211.0, 305.5)])
    up, sign = np.array((-1, 1)), -1 if isinstance(face, Free) else 1

    solver = wave((2 * DEPTH - 1, 40), SPACING, DT, faces=SIDES * 2, order=order)
    shift = np.array((SPACING * (DEPTH - 1), 0))
    sources = np.array((source, up * source)) + shift
    expected = shoot(solver, whole, sources, receivers + shift, wavelet * np.array((1, sign)))

    faces = (face, LAYER)
    if end == "last":  # the same upside down
        faces, below = faces[::-1], below[::-1]
        source, receivers = up * source + shift, up * receivers + shift
    solver = wave((DEPTH, 40), SPACING, DT, faces=(faces, *SIDES), order=order)
    seen = shoot(solver, below, [source], receivers, wavelet)
    assert seen == pytest.approx(expected, abs=1e-12 * np.abs(expected).max())
