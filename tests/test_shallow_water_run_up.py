"""A solitary wave runs up a plane beach: benchmark problem 1 of the NTHMP (Synolakis 1987)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import basin, centres, params

from diffsim import simulate
from solvers.shallow_water import Open, Wall

PROFILES = Path(__file__).parents[2] / "shared/data/nthmp_bp1/canonical_profiles.txt"
SLOPE, HEIGHT = 1 / 19.85, 0.019  # of the beach; of the wave, in still depths
TIMES = np.arange(35, 75, 5)  # of the profiles, in √(depth / g)


def solitary(x):
    """The wave at its start, half a wavelength off the toe of the beach."""
    decay = np.sqrt(0.75 * HEIGHT)
    crest = 1 / SLOPE + np.arccosh(np.sqrt(20)) / decay
    return HEIGHT / np.cosh(decay * (x - crest)) ** 2


@pytest.mark.skipif(not PROFILES.exists(), reason=f"the benchmark's data are not in {PROFILES}")
def test_profiles_and_run_up():
    """Highest water within 5 % of the exact solution; profiles within 1 % of it in the mean square,
    the accuracy to which their tables agree with each other where they overlap. Depth and gravity
    are 1, and water shallower than a thousandth is taken for dry."""
    table = np.genfromtxt(PROFILES, skip_header=5)
    places, levels = table[:, 0], table[:, 1:]
    seaward, cells, steps_a_unit = 5.0, 650, 28
    solver = basin((65.0,), (cells,), 1 / steps_a_unit, ((Wall(), Open()),), gravity=1.0)
    x = centres(solver)[0] - seaward  # from the shore of still water, out to sea
    bed = np.maximum(-1.0, -SLOPE * x)
    wave = np.where(bed < 0, solitary(x), 0)
    flow = -np.maximum(wave - bed, 0) * wave

    def surface(state):
        return jnp.where(state.depth > 1e-3, state.depth + state.bed, jnp.nan)

    start = params(bed, np.maximum(wave, bed), discharge=jnp.asarray(flow[None]))
    run = jax.jit(lambda p: simulate(solver, p, surface, steps=71 * steps_a_unit)[1])
    seen = np.asarray(run(start))
    highest = np.nanmax(levels)
    assert np.nanmax(seen) == pytest.approx(highest, rel=0.05)
    for time, exact in zip(TIMES, levels.T, strict=True):
        wet = ~np.isnan(exact)
        error = (np.interp(places, x, seen[time * steps_a_unit]) - exact)[wet]
        assert np.sqrt(np.nanmean(error**2)) < 0.01 * highest, time
