"""The example scripts do what their first lines promise."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.slow
def test_seismic_source_inversion_recovers_the_event(monkeypatch, tmp_path):
    """On every fourth node, from more than a wavelength off, the event and its data are explained.

    The data down to their noise, a tenth of the rms, but for the eighth that early stopping leaves.
    Position, time and function to a hundredth of a wavelength, of a period and of one: twice
    0.1 / √(40 receivers x 10 periods), which so much noise does to one unknown on its own.
    """
    script, drawn = str(SCRIPTS / "seismic_source_inversion.py"), tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", [script, "--stride", "4", "--figure", str(drawn)])
    names = runpy.run_path(script)
    misfit, time, events = names["misfit"], names["time"], names["events"]
    (true_place, true_function, clean), (place, function, data) = (
        events["truth"],
        events["estimate"],
    )
    assert misfit(clean) == pytest.approx(0.01, rel=0.02)
    assert misfit(data) < 1.25 * misfit(clean)
    assert np.linalg.norm(place - true_place) < 6.5
    centroids = [np.sum(time * f**2) / np.sum(f**2) for f in (function, true_function)]
    assert centroids[0] == pytest.approx(centroids[1], abs=1.7e-3)
    assert np.corrcoef(function, true_function)[0, 1] > 0.99
    assert drawn.stat().st_size > 10_000
