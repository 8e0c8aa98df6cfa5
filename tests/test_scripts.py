"""The example scripts do what their first lines promise, run as a user runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.slow
def test_seismic_source_inversion_recovers_the_event(tmp_path):
    """From 1.1 km off, data and event are explained.

    The data down to their noise, a tenth of the rms, hence 0.01 of the energy; position, time and
    function to about a hundredth of the 0.6 km wavelength, of the period and of one, which is what
    0.1 / √(40 receivers x 10 periods) of noise does to one unknown, with room for trade-offs.
    """
    script = [sys.executable, str(SCRIPTS / "seismic_source_inversion.py")]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = r"(\w+) +z, x = \[ *(\S+) +(\S+) *\] m, at (\S+) s, correlation (\S+)"
    found = re.findall(row, done.stdout)
    rows = {name: [float(number) for number in numbers] for name, *numbers in found}
    assert rows["estimate"][:2] == pytest.approx(rows["truth"][:2], abs=6.5)  # m
    assert rows["estimate"][2] == pytest.approx(rows["truth"][2], abs=1.7e-3)  # s
    assert rows["estimate"][3] > 0.99
    misfits = [float(number) for number in re.findall(r"misfit (\S+)", done.stdout)]
    assert misfits[-1] < 1.25 * 0.01
    assert (tmp_path / "runs/seismic_source_inversion.png").stat().st_size > 10_000
