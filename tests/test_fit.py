"""``Fit`` picks the fastest strategy that fits, from forecasts that hold."""

import functools
import io
import itertools
import json
import re
from contextlib import redirect_stdout

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

import solvers
from diffsim import Grid, Invertible, Periodic, Revolve, StoreAll, scan, simulate
from diffsim.__main__ import main as verbs
from diffsim.adjoint.fit import choose as fit
from diffsim.adjoint.fit.choose import Fit, foretell
from diffsim.adjoint.fit.trial import planned_bytes
from diffsim.adjoint.reversible import Reversible
from diffsim.adjoint.store.states import Disk
from diffsim.run import main
from solvers.heat import Explicit, HeatParams, Neumann
from solvers.wave import Free, WaveForcing, WaveParams

STEPS = 400


def bend(u):
    """The Laplacian on a torus."""
    return sum(jnp.roll(u, way, axis) for way in (1, -1) for axis in (0, 1)) - 4 * u


def leap(speed, carry, x):
    """A leapfrog in time on a field, pushed at one place."""
    u, old = carry
    new = 2 * u - old + speed * bend(u)
    return new.at[3, 5].add(x), u


def loss(speed, adjoint, steps=STEPS, dtype=float, f=None):
    zero = jnp.zeros((32, 33), dtype)
    f = f or (lambda carry, x: (leap(speed, carry, x), carry[0][7, 8]))
    push = jnp.sin(jnp.arange(steps, dtype=dtype))
    return jnp.sum(scan(f, (zero, zero), push, adjoint=adjoint)[1] ** 2)


SPEED = jnp.full((32, 33), 0.1)


@functools.cache
def menu():
    by = lambda adjoint: jax.grad(functools.partial(loss, adjoint=adjoint))  # noqa: E731
    return foretell(by, (SPEED,), own=[Periodic(7)])


@functools.cache
def stored():
    return jax.jit(jax.grad(loss), static_argnums=1)(SPEED, StoreAll())


def assert_stored(gradient):
    """1e-13: same operations, but for how XLA rounds a·b + c, over 400 steps that do not grow."""
    np.testing.assert_allclose(gradient, stored(), rtol=0, atol=1e-13 * np.abs(stored()).max())
    assert np.abs(stored()).max() > 0


@pytest.mark.parametrize(
    ("memory", "size"),
    [("2 GB", 2e9), ("500 MB", 5e8), ("2 GiB", 2**31), ("1.5kB", 1500), (4096, 4096)],
)
def test_memory_in_words(memory, size):
    assert Fit(memory).bytes == size


def test_free_memory_is_some_of_what_the_machine_has():
    assert 1e7 < Fit("free").bytes < 1e14


@pytest.mark.parametrize("memory", ["2 GX", "much", "0 B", -1, "-2 GB", None])
def test_what_is_no_amount_of_memory_is_refused(memory):
    with pytest.raises(ValidationError):
        Fit(memory)


def test_more_memory_is_never_slower_and_never_overspent():
    chosen = [Fit(round(size)).choose(menu()) for size in np.geomspace(5e5, 1e8, 40)]
    assert all(after.seconds <= before.seconds for before, after in itertools.pairwise(chosen))
    sizes = np.geomspace(5e5, 1e8, 40)
    assert all(forecast.bytes <= size for forecast, size in zip(chosen, sizes, strict=True))
    assert len({repr(forecast.adjoint) for forecast in chosen}) > 3


def test_a_strategy_of_ones_own_is_foretold_too():
    """58 blocks, the last one never replayed; of the others all steps but the last are."""
    own = menu()[0]
    assert own.adjoint == Periodic(7)
    assert own.states == 57 + 7
    assert own.evaluations == 1 + 57 * 6 / 400


def test_of_stretches_between_observations_a_block_may_be_one():
    """Which has blocks of its own, so with few checkpoints nothing takes less: of a heat that is
    seen every ten steps. What is foretold of it is what XLA plans, to 10 %."""
    solver, params, _ = solvers.Heat.example()
    observe = solver.sampler(np.array(solver.grid.extent).mean(axis=1)[None])

    def by(adjoint):
        def seen(params):
            how = {"steps": 400, "every": 10, "adjoint": adjoint}
            return jnp.sum(simulate(solver, params, observe, **how)[1] ** 2)

        return jax.grad(seen)

    least = min(foretell(by, (params,)), key=lambda each: each.bytes)
    assert isinstance(least.adjoint, Revolve)
    assert least.adjoint.block == 1
    planned = planned_bytes(jax.jit(by(least.adjoint)).lower(params).compile())
    assert least.bytes == pytest.approx(planned, rel=0.1)


def test_of_evaluations_the_fewest_count_where_nothing_was_timed():
    untimed = [each._replace(seconds=np.nan) for each in menu()]
    assert Fit("1 TB").choose(untimed).adjoint == StoreAll()
    tight = Fit("500 kB").choose(untimed)
    assert tight.evaluations == min(each.evaluations for each in menu() if each.bytes <= 5e5)


def test_a_budget_too_small_is_refused_with_the_one_that_is_not():
    by = jax.jit(jax.grad(loss), static_argnums=1)
    with pytest.raises(ValueError, match=r"memory='1 kB' is 1\.0KB, but the smallest") as refusal:
        by(SPEED, Fit("1 kB"))
    (least,) = re.findall(r"takes (\d+) bytes", str(refusal.value))
    with pytest.raises(ValueError, match="the smallest"):
        by(SPEED, Fit(int(least) - 1))
    assert_stored(by(SPEED, Fit(f"{least} B")))


@pytest.mark.parametrize("memory", ["600 kB", "1 GB"])
def test_the_gradient_is_that_of_store_all(memory, caplog):
    caplog.set_level("INFO", "diffsim")
    assert_stored(jax.jit(jax.grad(lambda v: loss(v, Fit(memory))))(SPEED))
    (line,) = [text for text in caplog.messages if text.startswith(f"Fit(memory='{memory}'")]
    name = re.search(r"takes (\w+)\(", line)[1]
    assert name == "Revolve" if memory == "600 kB" else name in {"Revolve", "Periodic", "StoreAll"}


def test_batches_and_second_derivatives():
    """Of a scalar map: 1e-12 for sums of some hundred rounded products."""

    def end(w, adjoint):
        return scan(lambda c, _: (jnp.sin(w * c + 1), None), w, None, 50, adjoint=adjoint)[0]

    ws = jnp.array([0.3, 0.9])
    for by in (jax.grad(end), lambda w, a: jax.jvp(lambda w: jax.grad(end)(w, a), (w,), (w,))[1]):
        ours, theirs = (
            jax.jit(jax.vmap(functools.partial(lambda a, w: by(w, a), adjoint)))(ws)  # noqa: B023
            for adjoint in (Fit("10 kB"), StoreAll())
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_run_that_is_not_differentiated_is_not_planned(monkeypatch):
    monkeypatch.setattr(fit, "basis_of", None)  # would fail
    np.testing.assert_allclose(loss(SPEED, Fit("1 B")), loss(SPEED, StoreAll()), rtol=1e-13)


def test_a_step_that_calls_the_host_is_not_called_on_trial():
    calls = []

    def by(adjoint):
        def told(speed):
            def f(carry, x):
                jax.debug.callback(lambda _: calls.append(1), x)
                return leap(speed, carry, x), carry[0][7, 8]

            return loss(speed, adjoint, 8, f=f)

        return jax.grad(told)

    found = foretell(by, (SPEED,))
    assert all(np.isnan(each.seconds) for each in found)
    assert not calls


def undo(carry, x, _):
    """The leapfrog backwards."""
    new, u = carry
    past = new.at[3, 5].add(-x)
    return u, 2 * u - past + SPEED.astype(u.dtype) * bend(u)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_are_undone_where_they_can_be_without_drift(dtype):
    def run(push, adjoint):
        speed = SPEED.astype(dtype)
        f = Invertible(lambda carry, x: (leap(speed, carry, x), carry[0][7, 8] * push, ()), undo)
        return loss(speed, adjoint, steps=40, dtype=dtype, f=f)

    by = lambda adjoint: jax.grad(functools.partial(run, adjoint=adjoint))  # noqa: E731
    found = foretell(by, (jnp.ones((), dtype),))
    assert any(isinstance(each.adjoint, Reversible) for each in found) == (dtype == "float64")


def test_files_are_on_the_menu_outside_jit_alone(tmp_path, monkeypatch):
    menus = []

    def choose(self, menu):
        menus.append([each.adjoint for each in menu])
        return menu[-1]

    monkeypatch.setattr(Fit, "choose", choose)
    by = functools.partial(loss, adjoint=Fit("1 GB", folder=tmp_path / "states"))
    assert_stored(jax.grad(by)(SPEED))
    jax.jit(jax.grad(by)).lower(SPEED)
    filed = Revolve(49, 8, Disk(tmp_path / "states"))
    assert [filed in menu for menu in menus] == [True, False]
    assert set(tmp_path.iterdir()) <= {tmp_path / "states"}  # what was tried is gone


def wave():
    """One axis, free ends: quickly compiled."""
    grid, ends = Grid(shape=(400,), spacing=(10.0,)), ((Free(), Free()),)
    solver = solvers.Wave(grid=grid, dt=1e-3, order=2, boundary=ends)
    params = WaveParams(jnp.full(400, 2000.0), jnp.asarray([[55.0]]))
    return solver, params, lambda steps: WaveForcing(jnp.ones((steps, 1)))


def heat():
    """One axis, insulated; so long that single numbers, of which each step makes many, count for
    little beside fields."""
    grid, ends = Grid(shape=(4000,), spacing=(1.0,)), ((Neumann(), Neumann()),)
    solver = solvers.Heat(grid=grid, dt=0.2, boundary=ends, scheme=Explicit())
    params = HeatParams(jnp.ones(4000), jnp.ones(4000), jnp.linspace(0.0, 1.0, 4000) ** 2)
    return solver, params, lambda steps: None


@pytest.mark.parametrize("problem", [wave, heat])
def test_bytes_are_those_that_xla_plans(problem):
    """To a tenth, of arguments, results and temporaries; the forecast comes from fewer steps."""
    solver, params, forcing = problem()
    args = params, forcing(300)
    places = np.array(solver.grid.extent)[:, :1].T + 0.7 * np.array(solver.grid.spacing)

    def by(adjoint):
        def seen(params, forcing):
            how = {"steps": 300, "forcing": forcing, "adjoint": adjoint}
            return jnp.sum(simulate(solver, params, solver.sampler(places), **how)[1] ** 2)

        return jax.grad(seen, argnums=(0, 1) if args[1] else 0)

    found = {each.adjoint: each.bytes for each in foretell(by, args)}
    size = planned_bytes(jax.jit(by(Revolve(20, 4))).lower(*args).compile())
    assert found[Revolve(20, 4)] == pytest.approx(size, rel=0.1)


CASE = """\
title: a string
precision: float64
solver:
  type: Wave
  grid: {shape: [40], spacing: [10.0]}
  dt: 2.0e-3
  order: 2
  boundary: [[{type: Free}, {type: Free}]]
params:
  speed: {type: Constant, value: 2000.0}
  sources: [[50.0]]
forcing:
  sources: {type: Ricker, frequency: 15.0, delay: 0.05}
observe: {type: Receivers, positions: [[30.0], [200.0]]}
steps: 60
adjoint: {type: Fit, memory: 1 GB}
task:
  type: Gradient
  misfit: {type: LeastSquares}
  respect_to: [speed]
  observed: {params: {speed: {type: Constant, value: 2100.0}}}
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tmp_path_factory.mktemp("case") / "string.yaml"
    path.write_text(CASE)
    return path


def planned(case, *more):
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = verbs(["plan", str(case), *more])
    return code, printed.getvalue()


def test_the_verb_plan_shows_every_strategy_and_marks_one(case, capsys):
    code, text = planned(case)
    assert code == 0
    assert "40 nodes, 40 cells" in text
    assert "60 of 0.002 s, stable up to 0.005 s" in text
    for name in ("StoreAll", "Periodic", "Multilevel", "Revolve"):
        assert re.search(rf"^.  {name}\(.*\) +\d+ +[\d.]+[KM]?B +[\d.]+ +[\d.e-]+$", text, re.M)
    assert len(re.findall("^>", text, re.M)) == 1
    code, text = planned(case, "-s", "adjoint.memory=1 kB")
    assert code == 2
    assert not re.search("^>", text, re.M)
    assert "the smallest gradient of this loop takes" in capsys.readouterr().err


def test_a_case_may_leave_the_choice_to_fit(case, tmp_path):
    out = tmp_path / "run"
    assert main([str(case), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["gradient_norm"] > 0
