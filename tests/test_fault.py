"""A fault as a part of a solver's parameters: the uplift it makes, its derivatives, its case."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import solvers
from diffsim.case import CaseError, load
from diffsim.fields import Rise
from diffsim.grid import Grid
from diffsim.run import main
from solvers import linear_shallow_water, shallow_water
from solvers.earth import Sphere
from solvers.okada import Fault, uplift

GRID = Grid(shape=(9, 10), spacing=(1e4, 1e4), origin=(4.5e6, 0.0))
FAULT = Fault(*map(jnp.asarray, (4.3e4, 4.54e6, 1.5e4, 4e4, 2e4, 20.0, 25.0, 70.0, 4.0)))
STEPS = 12
Y, X = np.meshgrid(
    *(np.linspace(*e, n) for e, n in zip(GRID.extent, GRID.shape, strict=True)), indexing="ij"
)
each_ocean = pytest.mark.parametrize(
    "module", [shallow_water, linear_shallow_water], ids=lambda module: module.__name__
)


def ocean(module):
    """A solver over 4000 m of water at rest, and a rate at which a bed rises within a minute."""
    kind = solvers.ShallowWater if module is shallow_water else solvers.LinearShallowWater
    faces = ((module.Wall(), module.Wall()),) * 2
    quick = {"limiter": None} if module is shallow_water else {}
    solver = kind(grid=GRID, dt=10.0, boundary=faces, **quick)
    still = solver.Params(jnp.full(GRID.shape, -4000.0), jnp.zeros(GRID.shape))
    rate = jnp.asarray(Rise(duration=60.0).make(solver, STEPS))
    return solver, still, solver.Forcing(uplift=rate)


@each_ocean
def test_it_lifts_as_its_uplift_would(module):
    """As the field that Okada's formula gives, and half of it given as a field and half as a fault
    of half the slip is the same again."""
    solver, still, forcing = ocean(module)
    field = uplift(FAULT, X, Y)
    halves = still._replace(uplift=field / 2, fault=FAULT._replace(slip=FAULT.slip / 2))
    for params in (still._replace(fault=FAULT), halves):
        assert solver.check(params, forcing) == []
        lift = np.asarray(solver.coefficients(params).uplift)
        assert lift == pytest.approx(np.asarray(field), abs=1e-15)


def test_a_metre_east_is_shorter_on_a_sphere():
    """A fault at 60° north, where cells are half as wide: its uplift is that on a plane whose
    distances in x are halved, to 1e-3, as the width varies by that over the fault."""
    radius = 6.371e6
    middle = np.pi / 3 * radius
    grid = Grid(shape=(5, 41), spacing=(1e3, 1e4), origin=(middle - 2e3, 0.0))
    fault = FAULT._replace(x=2e5, y=middle)
    wall = linear_shallow_water.Wall()
    solver = solvers.LinearShallowWater(
        grid=grid, dt=1.0, boundary=((wall, wall),) * 2, sphere=Sphere(radius)
    )
    params = solver.Params(jnp.full(grid.shape, -4000.0), jnp.zeros(grid.shape), fault=fault)
    y, x = (o + h * np.arange(n) for n, h, o in zip(
        grid.shape, grid.spacing, grid.origin, strict=True))  # fmt: skip
    exact = np.asarray(uplift(fault._replace(x=1e5), *np.meshgrid(x / 2, y)))
    lift = np.asarray(solver.coefficients(params).uplift)
    assert lift == pytest.approx(exact, abs=1e-3 * np.abs(exact).max())


@pytest.mark.slow
@each_ocean
def test_its_derivatives_are_those_of_its_uplift(module):
    """By the chain rule, to round-off: of the level after a step by a field of uplift, then of
    the field by what describes the fault. The matrix of solvers has Taylor's test of a fault."""
    solver, still, forcing = ocean(module)
    weights = np.random.default_rng(0).random(GRID.shape).ravel()
    seen = solver.sampler(np.stack([Y, X], -1).reshape(-1, 2))

    @jax.jit
    @jax.grad
    def gradient(params):
        at_0 = jax.tree.map(lambda series: series[0], forcing)
        state = solver.step(solver.coefficients(params), solver.init(params), at_0)
        return jnp.sum(weights * seen(state) ** 2)

    found = gradient(still._replace(uplift=jnp.zeros(GRID.shape), fault=FAULT))
    expected = jax.jit(jax.grad(lambda f: jnp.sum(found.uplift * uplift(f, X, Y))))(FAULT)
    for name, value in found.fault._asdict().items():
        assert value != 0
        assert float(value) == pytest.approx(float(getattr(expected, name)), rel=1e-9), name


@each_ocean
@pytest.mark.parametrize(
    ("changed", "where", "part"),
    [
        ({"dip": 90.0}, "params.fault.dip", "give more than 0 and less than 90"),
        ({"length": 0.0}, "params.fault.length", "0.0 m is no length"),
        ({"depth": 2e3}, "params.fault.depth", "upper edge above the ground"),
    ],
)
def test_what_is_no_fault_in_the_ground_is_refused(module, changed, where, part):
    solver, still, forcing = ocean(module)
    (remark,) = solver.check(still._replace(fault=FAULT._replace(**changed)), forcing)
    assert remark.where == where
    assert part in remark.text


@each_ocean
def test_where_without_when_is_refused(module):
    solver, still, forcing = ocean(module)
    (remark,) = solver.check(still._replace(fault=FAULT))
    assert remark.where == "params.fault"
    assert "give both or none" in remark.text
    (remark,) = solver.check(still, forcing)
    assert "give both or none" in remark.text


def test_a_channel_has_no_fault():
    solver, params, forcing = solvers.ShallowWater.example()
    (remark,) = solver.check(params._replace(fault=FAULT), forcing)
    assert "it lifts a plane" in remark.text


CASE = """\
precision: float64
solver:
  type: LinearShallowWater
  grid: {shape: [9, 10], spacing: [1.0e+4, 1.0e+4], axes: [y, x]}
  dt: 15.0
  boundary: [[{type: Wall}, {type: Wall}], [{type: Wall}, {type: Wall}]]
params:
  bed: {type: Constant, value: -4000.0}
  stage: {type: Constant, value: 0.0}
  fault:
    {x: 4.3e+4, y: 4.0e+4, depth: 1.5e+4, length: 4.0e+4, width: 2.0e+4, strike: 20.0, dip: 25.0,
     rake: 70.0, slip: 4.0}
forcing:
  uplift: {type: Rise, duration: 60.0}
observe: {type: Receivers, positions: [[2.0e+4, 5.0e+4], [6.0e+4, 3.0e+4]]}
steps: 30
task:
  type: Gradient
  misfit: {type: LeastSquares}
  respect_to: [fault]
  observed: {type: Simulated, params: {fault: {slip: 5.0}}}
"""


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "case.yaml"
    path.write_text(CASE)
    return path


def test_a_case_gives_the_derivative_by_the_slip(case, capsys):
    """Waves are linear in the slip, so the misfit is a parabola with its foot at the slip that made
    the observed data: its derivative is twice the misfit over the distance, to round-off."""
    assert main([str(case)]) == 0
    folder = case.parent / "runs/case"
    result = xr.load_dataset(folder / "result.nc")
    misfit = json.loads((folder / "metrics.json").read_text())["misfit"]
    assert result.fault_slip.item() == 4.0
    assert result.observed_fault_slip.item() == 5.0
    assert result.observed_fault_depth.item() == 1.5e4
    assert result.gradient_fault_slip.item() == pytest.approx(-2 * misfit, rel=1e-10)
    assert result.gradient_fault_dip.attrs["units"] == "m^2 s/(degrees)"
    assert "slip at 4 m: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("params.fault={x: 1.0}", "params.fault: Fault needs y, depth, length"),
        ("params.fault.slop=1.0", "Fault has no field 'slop'; did you mean 'slip'?"),
        ("params.fault=3.0", "params.fault: give a mapping of x, y, depth"),
        ("params.bed={value: 3.0}", "params.bed: this is no record: give a number"),
        ("params.fault.dip=95.0", "95.0 degrees: give more than 0 and less than 90"),
        ("params.fault.x={type: Konstant}", "no class 'Konstant'"),
        ("task.observed.params.fault={slop: 5.0}", "did you mean 'slip'?"),
        ("task.observed.params.fault={slip: [5.0, 6.0]}", "has (): give the same shape"),
        ("task.respect_to=[fault, uplift]", "the case leaves uplift out: give params.uplift"),
        ("task.observed.params.fault={dip: 95.0}", "task.observed.params.fault.dip: "),
    ],
)
def test_a_mistake_in_a_fault_has_its_place(case, override, said):
    with pytest.raises(CaseError) as error:
        load(case, [override])
    assert said in str(error.value)


def test_a_rise_sums_up_to_one():
    """Times dt, however it lies to the steps: the bed is lifted by its uplift, no more or less."""
    solver, *_ = ocean(shallow_water)
    for rise in (Rise(duration=60.0), Rise(duration=1.0), Rise(duration=37.0, start=22.0)):
        rate = rise.make(solver, STEPS)
        assert solver.dt * rate.sum() == pytest.approx(1, rel=1e-14)
        assert rate.min() == 0
    assert rate[0] == 0
