"""The example scripts do what their first lines promise."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.slow
def test_seismic_source_inversion_recovers_the_event(monkeypatch, tmp_path):
    """On every fourth node, with 10 % noise, from more than a wavelength off.

    Position and time to a hundredth of a wavelength and of a period (6.5 m, 1.7 ms): about the noise
    over √(receivers x periods in a record), 0.1 / √(40 x 10), with the same factor to spare for
    trade-offs between the unknowns. The data are then explained down to the noise.
    """
    script, drawn = str(SCRIPTS / "seismic_source_inversion.py"), tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", [script, "--stride", "4", "--figure", str(drawn)])
    names = runpy.run_path(script)
    place, function, data = names["events"]["estimate"]
    np.testing.assert_allclose(place, names["TRUTH"], atol=6.5)
    assert False, (place, names["misfit"](data), names["misfit"](names["clean"]))
