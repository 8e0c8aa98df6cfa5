"""A run finds the programs that an earlier one compiled."""

import os
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_run import SMALL, outcome

from diffsim.run import _keep_programs

RUN = """
import sys
import jax
from diffsim import progress
from diffsim.run import main

progress.PAUSE = 0.0
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
assert main(sys.argv[1:]) == 0
print(events.count("compile_requests_use_cache"), events.count("cache_hits"))
"""


def run(folder, out):
    """Run a case in a new process: programs asked for and found, files kept."""
    where = {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    drop = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
    env = {k: v for k, v in os.environ.items() if k not in drop} | where
    argv = [sys.executable, "-W", "error", "-c", RUN]
    argv += [str(folder / "small.yaml"), "-s", "steps=200", "--out", str(folder / out)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked, found = map(int, done.stdout.splitlines()[-1].split())
    return asked, found, {path.name for path in (folder / "diffsim" / platform.node()).iterdir()}


@pytest.mark.slow
def test_a_second_run_finds_its_programs_and_they_still_call_the_host(tmp_path):
    """The same programs: the same bits."""
    (tmp_path / "small.yaml").write_text(SMALL)
    asked, _, kept = run(tmp_path, "first")
    assert {"jit_data", "jit_loss"} <= {name.partition("-")[0] for name in kept}
    assert run(tmp_path, "second") == (asked, asked, kept)
    (first, metrics), (second, again) = (outcome(tmp_path / out) for out in ("first", "second"))
    for name in ("predicted", "gradient_speed"):
        np.testing.assert_array_equal(first[name], second[name])
    assert metrics["temporary_bytes"] == again["temporary_bytes"]
    for out in ("first", "second"):
        log = (tmp_path / out / "run.log").read_text()
        assert "forward: 100 %" in log
        assert "gradient: 100 %" in log


def test_a_cache_that_the_user_chose_stays(monkeypatch):
    config = {}
    monkeypatch.setattr("jax.config.update", config.__setitem__)
    monkeypatch.setattr(type(jax.config), "jax_compilation_cache_dir", "elsewhere", raising=False)
    _keep_programs()
    assert config == {}
