"""A case says all that is wrong with it: where, what is allowed, and what was probably meant."""

import numpy as np
import pytest

from diffsim.case import load
from diffsim.run import main

CASE = """\
title: a small case
precision: float64
solver:
  type: Wave
  grid: {shape: [20, 30], spacing: [10.0, 10.0]}
  dt: 2.0e-3
  order: 4
  boundary:
    - [{type: Free}, &layer {type: Absorbing, width: 4, speed: 2000.0, frequency: 15.0}]
    - [*layer, *layer]
params:
  speed: {type: File, path: models.npz, name: smooth} # m/s
  sources: [[20.0, 150.0]]
forcing:
  sources: {type: Ricker, frequency: 15.0, delay: 0.1}
observe:
  type: Receivers
  positions: {type: Line, first: [10.0, 20.0], last: [10.0, 250.0], count: 5}
steps: 40
adjoint: {type: Revolve, checkpoints: 3, block: 4}
task:
  type: Gradient
  misfit: {type: LeastSquares}
  respect_to: [speed]
  observed:
    type: Simulated
    params: {speed: {type: File, path: models.npz, name: real}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the models, in which ``a.yaml`` may be run."""
    speed = np.full((20, 30), 2000.0)
    holed = speed.copy()
    holed[3, 4] = np.nan
    true = np.where(np.arange(20)[:, None] > 10, 2400.0, speed)
    models = {"smooth": speed, "real": true, "holed": holed, "small": speed[:3]}
    np.savez(tmp_path / "models.npz", **models, words=np.array("fast"), null=-speed)
    np.savez(tmp_path / "pickled.npz", thing=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("vp: 2000")
    (tmp_path / "a.yaml").write_text(CASE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys, *argv):
    """What a refused run prints; nothing is left behind and nobody sees a traceback."""
    assert main(["a.yaml", "--out", "out", *argv]) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err


def test_a_case_becomes_objects_and_arrays(folder):
    _, case, problem, warnings = load(folder / "a.yaml")
    assert case.title == "a small case"
    assert problem.solver.grid.shape == (20, 30)
    assert problem.solver.boundary[1][0] == problem.solver.boundary[0][1]
    assert problem.params.speed.shape == (20, 30)
    assert problem.forcing.sources.shape == (40, 1)
    assert problem.truth["speed"].max() == 2400
    assert warnings == []


def test_one_wavelet_serves_all_sources(folder):
    both = "params.sources=[[20.0, 150.0], [20.0, 90.0]]"
    series = load(folder / "a.yaml", [both]).problem.forcing.sources
    np.testing.assert_array_equal(series[:, 0], series[:, 1])
    assert series.shape == (40, 2)


def test_an_override_may_set_what_the_file_leaves_out(folder):
    assert load(folder / "a.yaml", ["solver.radius=3"]).problem.solver.radius == 3
    assert load(folder / "a.yaml", ["solver.grid.shape.0=20"]).problem.solver.grid.shape[0] == 20
    assert load(folder / "a.yaml", ["solver.boundary.1.1={type: Free}"])


def test_a_users_own_class_is_found_by_its_dotted_name(folder, monkeypatch):
    text = (
        "import numpy as np\nfrom diffsim.fields import Maker\nfrom diffsim.solver import frozen\n"
        "@frozen\nclass Ramp(Maker):\n    top: float\n"
        "    def make(self, solver, steps):\n"
        "        return np.broadcast_to(np.linspace(2000, self.top, 30), solver.grid.shape)\n"
    )
    (folder / "ramps_for_test.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    named = "params.speed={type: ramps_for_test.Ramp, top: 2500}"
    assert load(folder / "a.yaml", [named]).problem.params.speed[0, -1] == 2500


# what stands in the file, what is put there instead, and what is said about it
MISTAKES = {
    "unknown field": (
        "  order: 4", "  ordr: 4",
        "a.yaml:7:3 solver.ordr: Wave has no field 'ordr'; did you mean 'order'?",
    ),
    "unknown section": (
        "steps: 40", "stepz: 40",
        "a.yaml:19:1 stepz: Case has no field 'stepz'; did you mean 'steps'?",
    ),
    "unknown class": (
        "type: Wave", "type: Wav",
        "a.yaml:4:3 solver.type: no class 'Wav' is known here; did you mean 'Wave'?",
    ),
    "unknown class deep inside": (
        "{type: Free}", "{type: Fre}",
        "a.yaml:9:9 solver.boundary.0.0.type: no class 'Fre' is known here; did you mean 'Free'?",
    ),
    "class of another section": (
        "{type: LeastSquares}", "{type: Ricker}",
        "a.yaml:23:12 task.misfit.type: no class 'Ricker' is known here; allowed: LeastSquares",
    ),
    "dotted class of another kind": (
        "{type: LeastSquares}", "{type: diffsim.grid.Grid}",
        "a.yaml:23:12 task.misfit.type: 'diffsim.grid.Grid' is no Misfit: name a subclass of it",
    ),
    "dotted name of nothing": (
        "{type: LeastSquares}", "{type: nowhere.Thing}",
        "a.yaml:23:12 task.misfit.type: 'nowhere.Thing' cannot be imported: ModuleNotFoundError",
    ),
    "dotted name of a function": (
        "{type: LeastSquares}", "{type: os.system}",
        "a.yaml:23:12 task.misfit.type: 'os.system' is no @frozen class",
    ),
    "no type": (
        "{type: LeastSquares}", "{}",
        "a.yaml:23:3 task.misfit: this needs a type: one of LeastSquares",
    ),
    "no object": (
        "{type: LeastSquares}", "LeastSquares",
        "a.yaml:23:3 task.misfit: 'LeastSquares' is no object: give {type: …}",
    ),
    "missing field": (
        "  dt: 2.0e-3\n", "",
        "a.yaml:3:1 solver.dt: Wave needs 'dt'",
    ),
    "missing section": (
        "steps: 40\n", "",
        "a.yaml:1:1 steps: Case needs 'steps'",
    ),
    "wrong type": (
        "steps: 40", "steps: many",
        "a.yaml:19:1 steps: 'many' is not allowed: it should be a valid integer",
    ),
    "out of range": (
        "dt: 2.0e-3", "dt: -1",
        "a.yaml:6:3 solver.dt: -1 is not allowed: it should be greater than 0",
    ),
    "not among the choices": (
        "order: 4", "order: 5",
        "a.yaml:7:3 solver.order: 5 is not allowed: it should be 2, 4, 6 or 8",
    ),
    "fields that contradict each other": (
        "spacing: [10.0, 10.0]", "spacing: [10.0]",
        "a.yaml:5:3 solver.grid: spacing (10.0,) has 1 entries, but shape (20, 30) has 2 axes",
    ),
    "key that stands twice": (
        "  order: 4", "  order: 4\n  order: 6",
        "a.yaml:8:3: the key 'order' stands here a second time: keep one of them",
    ),
    "a date": (
        "delay: 0.1", "delay: 2020-01-01",
        "a.yaml:15:44 forcing.sources.delay: datetime.date(2020, 1, 1): tags and dates",
    ),
    "YAML syntax": (
        "steps: 40", "steps: [40",
        "a.yaml:20:8: no valid YAML: ",
    ),
    "a tag that would run code": (
        "steps: 40", "steps: !!python/object/apply:os.getpid []",
        "a.yaml:19:1 steps: ",
    ),
    "data file that does not exist": (
        "path: models.npz, name: smooth", "path: model.npz, name: smooth",
        "a.yaml:12:23 params.speed.path: there is no file model.npz",
    ),
    "array that a file does not have": (
        "name: smooth", "name: smoth",
        "a.yaml:12:3 params.speed: models.npz has no array 'smoth': it holds smooth, real, holed",
    ),
    "data file that is none": (
        "path: models.npz, name: smooth", "path: text.npz, name: smooth",
        "a.yaml:12:3 params.speed: text.npz is not an npz file",
    ),
    "pickled data": (
        "path: models.npz, name: smooth", "path: pickled.npz, name: thing",
        "a.yaml:12:3 params.speed: pickled.npz: 'thing' cannot be read: Object arrays",
    ),
    "words instead of numbers": (
        "name: smooth", "name: words",
        "a.yaml:12:3 params.speed: models.npz: 'words' holds <U4: give real numbers",
    ),
    "array of another shape": (
        "name: smooth", "name: small",
        "a.yaml:12:3 params.speed: shape (3, 30), but the grid has (20, 30)",
    ),
    "NaN in a model": (
        "name: smooth", "name: holed",
        "a.yaml:12:3 params.speed: 1 values are not finite, the first at (3, 4)",
    ),
    "NaN in the true model": (
        "name: real", "name: holed",
        "a.yaml:27:14 task.observed.params.speed: with the params of the observed data: 1 values",
    ),
    "rows of unequal length": (
        "[[20.0, 150.0]]", "[[20.0, 150.0], [20.0]]",
        "a.yaml:13:3 params.sources: [[20.0, 150.0], [20.0]] is no array of numbers",
    ),
    "unknown parameter": (
        "  sources: [[", "  source: [[",
        "a.yaml:13:3 params.source: Wave has no parameter 'source'; did you mean 'sources'?",
    ),
    "missing parameter": (
        "  sources: [[20.0, 150.0]]\n", "",
        "a.yaml:11:1 params.sources: Wave needs this (source position, m)",
    ),
    "unknown forcing": (
        "  sources: {type: Ricker", "  source: {type: Ricker",
        "a.yaml:15:3 forcing.source: Wave has no forcing 'source'; did you mean 'sources'?",
    ),
    "forcing of another length": (
        "{type: Ricker, frequency: 15.0, delay: 0.1}", "[1.0, 2.0]",
        "a.yaml:15:3 forcing.sources: shape (2, 1), but steps is 40: give one time slice a step",
    ),
    "gradient by an unknown parameter": (
        "respect_to: [speed]", "respect_to: [sped]",
        "a.yaml:24:16 task.respect_to.0: Wave has no parameter 'sped'; did you mean 'speed'?",
    ),
    "time step above the stable one": (
        "dt: 2.0e-3", "dt: 4.0e-3",
        "a.yaml:6:3 solver.dt: dt=0.004 s is above the stable 0.00306 s",
    ),
    "source outside the grid": (
        "[[20.0, 150.0]]", "[[20.0, 1500.0]]",
        "a.yaml:13:3 params.sources: source 0 at [20.0, 1500.0] m is outside the grid",
    ),
    "receiver outside the grid": (
        "{type: Line, first: [10.0, 20.0], last: [10.0, 250.0], count: 5}", "[[1, 2], [1, 300]]",
        "a.yaml:18:23 observe.positions.1: 1 of 2 receivers are outside the grid",
    ),
    "receivers of another dimension": (
        "first: [10.0, 20.0], last: [10.0, 250.0]", "first: [10.0], last: [250.0]",
        "a.yaml:18:3 observe.positions: positions have shape (5, 1): give rows of 2 numbers",
    ),
    "receiver nowhere": (
        "{type: Line, first: [10.0, 20.0], last: [10.0, 250.0], count: 5}", "[[1, 2], [1, .nan]]",
        "a.yaml:18:23 observe.positions.1: 1 of 2 receivers are outside the grid",
    ),
    "motion along no axis": (
        "  type: Receivers", "  along: y\n  type: Receivers",
        "a.yaml:17:3 observe.along: along='y' is no axis of the grid: give one of z, x",
    ),
    "motion of an unknown mass": (
        "  type: Receivers", "  along: z\n  type: Receivers",
        "a.yaml:17:3 observe.along: particle acceleration is -1/density times the pressure's",
    ),
    "no forcing": (
        "  sources: {type: Ricker, frequency: 15.0, delay: 0.1}", "  {}",
        "a.yaml:14:1 forcing.sources: there is no sound",
    ),
    "sources that are no rows": (
        "[[20.0, 150.0]]", "5",
        "a.yaml:13:3 params.sources: shape (): give a row of 2 numbers for each source",
    ),
    "infinite number": (
        "dt: 2.0e-3", "dt: .inf",
        "a.yaml:6:3 solver.dt: inf is not allowed: it should be a finite number",
    ),
    "class that is no word": (
        "type: Wave", "type: [Wave]",
        "a.yaml:4:3 solver.type: no class ['Wave'] is known here",
    ),
    "observed params of another shape": (
        "params: {speed: {", "params: {sources: [[1, 2], [3, 4]], speed: {",
        "a.yaml:27:14 task.observed.params.sources: shape (2, 2), but params.sources has (1, 2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_shown_with_its_place(folder, capsys, name):
    old, new, said = MISTAKES[name]
    assert CASE.count(old) >= 1
    (folder / "a.yaml").write_text(CASE.replace(old, new, 1))
    lines = refusal(capsys).splitlines()
    assert any(line.startswith(said) for line in lines), lines
    assert {line.split()[0] for line in lines} == {said.split()[0]}, "one mistake has one place"
    assert not (folder / "out").exists()


def test_all_mistakes_are_shown_at_once_in_the_order_of_the_file(folder, capsys):
    text = CASE
    for old, new in (
        ("dt: 2.0e-3", "dt: 4.0e-3"),  # physics
        ("[[20.0, 150.0]]", "[[20.0, 1500.0]]"),
        ("[10.0, 250.0]", "[10.0, 2500.0]"),
        ("checkpoints: 3", "chekpoints: 3"),  # words
        ("{type: LeastSquares}", "{type: LeastSqares}"),
        ("name: real", "name: rael"),  # files
    ):
        text = text.replace(old, new)
    (folder / "a.yaml").write_text(text)
    lines = refusal(capsys).splitlines()
    paths = [line.split()[1].rstrip(":") for line in lines]
    assert list(dict.fromkeys(paths)) == [
        "solver.dt",
        "params.sources",
        "observe.positions.1",
        "adjoint.chekpoints",
        "task.misfit.type",
        "task.observed.params.speed",
    ]


def test_what_holds_for_both_models_is_said_once(folder, capsys):
    said = refusal(capsys, "-s", "params.sources=[[20.0, 1500.0]]")
    assert len(said.splitlines()) == 1


def test_a_failed_child_does_not_hide_its_siblings(folder, capsys):
    text = CASE.replace("spacing: [10.0, 10.0]", "spacing: wide").replace("order: 4", "order: 5")
    (folder / "a.yaml").write_text(text.replace("width: 4", "width: 1"))
    said = refusal(capsys)
    for path in ("solver.grid.spacing", "solver.order", "solver.boundary.0.1.width"):
        assert f" {path}: " in said
    assert len(said.splitlines()) == 3, "a layer that is named three times is wrong once"


OVERRIDES = {
    "slover.dt=1e-3": "slover: the case has no 'slover' here; did you mean 'solver'?",
    "solver.ddt=1e-3": "solver.ddt: Wave has no field 'ddt'; did you mean 'dt'?",
    "solver.boundary.2=3": "solver.boundary.2: the case has no 2 here; allowed: 0, 1",
    "steps.first=3": "steps.first: the case has no 'first' here",
    "steps": "steps: give path=value, such as solver.dt=1e-3",
    "solver.dt=soon": "solver.dt: 'soon' is not allowed: it should be a valid number",
    "solver.dt=4e-3": "solver.dt: dt=0.004 s is above the stable 0.00306 s",
    "solver.dt=[1": "solver.dt: '[1' is no valid YAML",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_is_checked_as_the_file_is(folder, capsys, override):
    assert refusal(capsys, "-s", override).startswith(f"-s {override} {OVERRIDES[override]}")


def test_few_points_per_wavelength_are_a_doubt_with_numbers(folder):
    """2000 m/s at 45 Hz are 44 m, 4.4 cells of 10 m; the spectrum's bins are 12.5 Hz wide."""
    high = ["forcing.sources.frequency=45.0", "forcing.sources.delay=0.03"]
    first, *_ = load(folder / "a.yaml", high).warnings
    assert "a.yaml:15:3 forcing.sources: 4.0 points per wavelength: 40 m at" in first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.yaml:1:1: the file is empty"),
        ("- 1", "a.yaml:1:1: [1] is no mapping"),
        ("a: \0", "a.yaml: no valid YAML"),
    ],
)
def test_a_file_that_is_no_case_is_refused(folder, capsys, content, said):
    (folder / "a.yaml").write_text(content)
    assert refusal(capsys).startswith(said)


def test_a_file_that_does_not_exist_is_refused(folder, capsys):
    (folder / "a.yaml").unlink()
    assert refusal(capsys) == "a.yaml: cannot be read: No such file or directory\n"
