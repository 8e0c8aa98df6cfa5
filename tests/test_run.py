"""A run leaves its case, numbers, data with units, a log and figures, or says why not."""

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import solvers
from diffsim.__main__ import main as verbs
from diffsim.case import load
from diffsim.progress import Progress
from diffsim.run import main

CASES = sorted((Path(__file__).parents[1] / "cases").glob("*.yaml"))
QUICK = ("-s", "steps=30")
# A gradient takes ten seconds to compile: these stand for all, the others are predicted only
DIFFERENTIATED = ("overthrust_kernel", "fault_tsunami")
PREDICTED = ("-s", "task={type: Forward}", "-s", "observe.highest=false")
SMALL = """\
title: a small case
precision: float64
solver:
  type: Wave
  grid: {shape: [12, 14], spacing: [10.0, 10.0]}
  dt: 2.0e-3
  order: 2
  boundary: [[{type: Free}, {type: Free}], [{type: Free}, {type: Free}]]
params:
  speed: {type: Constant, value: 2000.0}
  sources: [[20.0, 50.0]] # kept
forcing:
  sources: {type: Ricker, frequency: 15.0, delay: 0.05}
observe: {type: Receivers, positions: [[30.0, 20.0], [40.0, 90.0]]}
steps: 30
adjoint: {type: Revolve, checkpoints: 2, block: 2}
task:
  type: Gradient
  misfit: {type: LeastSquares}
  respect_to: [speed, sources]
  observed: {params: {speed: {type: Constant, value: 2100.0}}}
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder, made the current one, with ``small.yaml``."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run of ``small.yaml``, and what it printed."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "small.yaml").write_text(SMALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([str(folder / "small.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run", printed.getvalue()


def outcome(folder):
    return xr.load_dataset(folder / "result.nc"), json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_every_case_of_the_repository_runs(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(case).warnings == []  # all of it is in order, its task too
    assert main([str(case), *QUICK, *(() if case.stem in DIFFERENTIATED else PREDICTED)]) == 0
    folder = tmp_path / "runs" / case.stem
    result, metrics = outcome(folder)
    assert metrics["steps"] == 30
    assert result.sizes["time"] == 30
    assert np.isfinite(result.predicted).all()
    assert all("units" in value.attrs for value in result.variables.values())
    assert list(folder.glob("*.png"))
    assert load(folder / "case.yaml").problem.steps == 30  # a run can be run again
    if case.stem in DIFFERENTIATED:
        assert metrics["gradient_norm"] > 0


def test_every_solver_has_two_cases():
    named = [type(load(case).problem.solver).__name__ for case in CASES]
    for solver in solvers.__all__:
        assert named.count(solver) >= 2, solver


def test_a_run_leaves_what_it_computed(done):
    folder, printed = done
    log = (folder / "run.log").read_text()
    assert all(line in log for line in printed.splitlines())
    assert {"misfit", "gradient", "memory", "results"} <= set(printed.split())
    figures = {path.stem for path in folder.glob("*.png")}
    assert {"model", "gather", "sensitivity_speed", "schedule"} <= figures
    assert "# kept" in (folder / "case.yaml").read_text()


def test_the_dataset_has_units_and_coordinates(done):
    result, _ = outcome(done[0])
    units = {name: value.attrs["units"] for name, value in result.variables.items()}
    assert units["speed"] == units["observed_speed"] == "m/s"
    assert units["gradient_speed"] == "Pa^2 s/(m/s)"
    assert units["gradient_sources"] == "Pa^2 s/(m)"
    assert {units[name] for name in ("observed", "predicted", "residual")} == {"Pa"}
    assert result.speed.dims == result.gradient_speed.dims == ("z", "x")
    assert result.predicted.dims == ("time", "receiver")
    np.testing.assert_allclose(result.x, 10.0 * np.arange(14))
    np.testing.assert_allclose(result.time, 2e-3 * np.arange(30))
    np.testing.assert_allclose(result.receiver_x, [20.0, 90.0])
    np.testing.assert_allclose([result.source_z.item(), result.source_x.item()], [20.0, 50.0])
    assert result.observed_speed.max() == 2100
    assert result.attrs["title"] == "a small case"
    assert result.attrs["adjoint"] == "Revolve(checkpoints=2, block=2, walk=True)"


def test_the_numbers_agree_with_the_data(done):
    """Float64: sums in another order differ by round-off, some 1e-15 of the sum."""
    result, metrics = outcome(done[0])
    misfit = 2e-3 / 2 * float((result.residual**2).sum())
    np.testing.assert_allclose(metrics["misfit"], misfit, rtol=1e-12)
    gradients = [result.gradient_speed.values.ravel(), result.gradient_sources.values.ravel()]
    norm = np.linalg.norm(np.concatenate(gradients))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-12)
    assert metrics["cells"] == 12 * 14
    assert metrics["states_kept"] == 2 + 2  # slots; the end of a walk back and one state
    assert 1 < metrics["evaluations_per_step"] < 10
    assert all(metrics[name] > 0 for name in ("compile_s", "forward_s", "gradient_s"))
    assert metrics["peak_rss_bytes"] > 50e6


def test_the_gradient_is_that_of_the_misfit(small, done):
    """A step along the gradient g changes the misfit by |g|² times the step.

    A difference of steps both ways, of 0.1 m/s in 2000 at most, errs by some 1e-8 of that.
    """
    result, _ = outcome(done[0])
    gradient = result.gradient_speed.values
    step = 0.1 / np.abs(gradient).max()
    misfits = []
    for sign in (-1, 1):
        np.savez(small / "moved.npz", speed=result.speed.values + sign * step * gradient)
        moved = "params.speed={type: File, path: moved.npz, name: speed}"
        misfits.append(run_with(small, moved, f"moved{sign}")[1]["misfit"])
    slope = (misfits[1] - misfits[0]) / (2 * step)
    np.testing.assert_allclose(slope, np.sum(gradient**2), rtol=1e-6)


def test_what_storing_all_takes_grows_with_the_steps_and_revolve_does_not(small, done):
    """Two fields of 14 x 16 nodes, one halo node around, a step: at least 3.5 kB in float64."""
    _, few = outcome(done[0])
    _, many = run_with(small, "steps=60", "many")
    grown = many["store_all_bytes"] - few["store_all_bytes"]
    assert grown >= 30 * 2 * 14 * 16 * 8
    assert grown == pytest.approx(few["store_all_bytes"], rel=0.2)
    assert many["temporary_bytes"] < 1.5 * few["temporary_bytes"]


def run_with(small, override, out):
    assert main(["small.yaml", "-s", override, "--out", out]) == 0
    return outcome(small / out)


def test_float32_is_float32(small, done):
    assert {str(outcome(done[0])[0][n].dtype) for n in ("speed", "predicted")} == {"float64"}
    result, _ = run_with(small, "precision=float32", "single")
    assert {str(result[n].dtype) for n in ("speed", "predicted", "gradient_speed")} == {"float32"}


def test_a_forward_task_predicts_only(small):
    result, metrics = run_with(small, "task={type: Forward}", "forward")
    assert "predicted" in result
    assert not {"observed", "gradient_speed", "misfit"} & {*result, *metrics}
    assert (small / "forward" / "gather.png").exists()


def test_stations_have_names_arrivals_and_peaks(small, capsys):
    """Arrival: a twentieth of the greatest departure from the first value, here from rest."""
    argv = ["small.yaml", "-s", "task={type: Forward}", "-s", "observe.names=[near, far]"]
    assert main(argv) == 0
    result, _ = outcome(small / "runs/small")
    seen = result.predicted.values
    assert list(result.station.values) == ["near", "far"]
    np.testing.assert_array_equal(result.peak, seen.max(axis=0))
    for number, time in enumerate(result.arrival_time.values):
        before = result.time.values < time - 1e-9
        limit = 0.05 * np.abs(seen[:, number]).max()
        assert (np.abs(seen[before, number]) <= limit).all()
        assert np.abs(seen[~before, number])[0] > limit
    assert result.arrival_time[0] < result.arrival_time[1]
    assert "near: arrives at " in capsys.readouterr().out
    refused = ["small.yaml", "-s", "observe.names=[near]", "--out", "refused"]
    assert main(refused) == 2
    assert "1 names for 2 positions: give one each, or none" in capsys.readouterr().err


@pytest.mark.slow
def test_receivers_of_motion_say_what_they_feel(small):
    argv = ["small.yaml", "-s", "observe.along=z", "-s", "observe.highest=true"]
    argv += ["-s", "params.density={type: Constant, value: 1000.0}"]
    assert main(argv) == 0
    result, _ = outcome(small / "runs/small")
    assert result.predicted.attrs == {"long_name": "particle acceleration along z", "units": "m/s²"}
    assert result.highest.attrs["units"] == result.peak.attrs["units"] == "m/s²"
    assert result.gradient_speed.attrs["units"] == "(m/s²)^2 s/(m/s)"
    assert np.abs(result.predicted).max() > 0


def test_the_highest_at_a_node_is_what_a_receiver_there_sees(small):
    """The state after the last step counts too: the run sees one more than the receiver's data."""
    flags = ["task={type: Forward}", "observe.highest=true", "observe.positions=[[60.0, 80.0]]"]
    flags += ["steps=60"]
    assert main(["small.yaml", *(word for flag in flags for word in ("-s", flag))]) == 0
    result, _ = outcome(small / "runs/small")
    seen = result.predicted.values
    assert seen.argmax() < 59
    np.testing.assert_allclose(result.highest.sel(z=60, x=80), seen.max(), rtol=1e-12)
    assert np.isnan(result.highest[0]).all()  # the free surface: nothing happens
    assert (small / "runs/small/highest.png").exists()


def test_a_peak_is_called_a_peak_and_has_no_observed_data(small, capsys):
    peak = "task={type: Gradient, misfit: {type: Peak}, respect_to: [sources], observed: "
    assert main(["small.yaml", "-s", peak + "{params: {}}}", "-s", "adjoint={type: StoreAll}"]) == 0
    result, metrics = outcome(small / "runs/small")
    assert metrics["misfit"] == result.peak[0]
    assert "observed" not in result
    assert result.gradient_sources.attrs["long_name"] == "derivative of the peak by source position"
    assert "  peak " in capsys.readouterr().out


def test_a_run_is_not_overwritten_without_force(small, capsys):
    argv = ["small.yaml", "-s", "task={type: Forward}", "--out", "here"]
    assert main(argv) == 0
    before = (small / "here" / "metrics.json").read_text()
    assert main(argv) == 2
    assert "--force" in capsys.readouterr().err
    assert (small / "here" / "metrics.json").read_text() == before
    assert main([*argv, "--force"]) == 0
    assert (small / "here" / "metrics.json").read_text() != before  # seconds differ


def test_a_folder_that_cannot_be_made_is_a_mistake(small, capsys):
    assert main(["small.yaml", "--out", "small.yaml"]) == 2
    assert capsys.readouterr().err.startswith("small.yaml cannot be used: ")


def test_a_non_finite_result_ends_the_run_but_keeps_what_was_computed(small, capsys):
    """1e30 Pa squared is above the largest number of float32, 3.4e38."""
    argv = ["small.yaml", "-s", "precision=float32", "-s", "forcing.sources.amplitude=1e30"]
    assert main(argv) == 1
    assert "the misfit is not finite" in capsys.readouterr().out
    result, metrics = outcome(small / "runs" / "small")
    assert np.isfinite(result.predicted).all()
    assert metrics["misfit"] is None


def test_debug_shows_the_traceback(small):
    with pytest.raises(ValueError, match="no-such"):
        main(["no-such.yaml", "--debug"])


def test_the_verb_run_is_the_same(small):
    assert verbs(["run", "small.yaml", "-s", "task={type: Forward}", "--out", "verb"]) == 0
    assert (small / "verb" / "result.nc").exists()
    assert verbs(["run", "no-such.yaml"]) == 2


def test_storing_all_gives_the_same_gradient(small, done):
    """The same steps in another order of evaluation: equal to round-off."""
    checkpointed, _ = outcome(done[0])
    stored, metrics = run_with(small, "adjoint={type: StoreAll}", "stored")
    assert metrics["evaluations_per_step"] == 1
    assert not (small / "stored" / "schedule.png").exists()
    scale = float(np.abs(stored.gradient_speed).max())
    np.testing.assert_allclose(
        checkpointed.gradient_speed, stored.gradient_speed, rtol=0, atol=1e-13 * scale
    )


def test_states_on_disk_give_the_same_gradient(small, done):
    """1e-13 of the largest, as for any strategy; Python drives it, and no file is left."""
    assert main(["small.yaml", "-s", "adjoint.store={type: Disk, folder: states}"]) == 0
    (result, metrics), (expected, _) = outcome(small / "runs" / "small"), outcome(done[0])
    for name in ("gradient_speed", "gradient_sources"):
        atol = 1e-13 * np.abs(expected[name]).max()
        np.testing.assert_allclose(result[name], expected[name], rtol=0, atol=atol)
    assert metrics["temporary_bytes"] is None
    assert not list((small / "states").iterdir())


def test_without_a_terminal_progress_is_lines_in_the_log(caplog, monkeypatch):
    monkeypatch.setattr("diffsim.progress.PAUSE", 0.0)
    caplog.set_level(logging.INFO, "diffsim")
    with Progress("gradient", 250) as progress:
        for _ in range(4):  # one more than there are hundreds
            progress.tick()
    assert [message.partition(" %")[0] for message in caplog.messages] == [
        "gradient: 40",
        "gradient: 80",
        "gradient: 100",
        "gradient: 100",
    ]
