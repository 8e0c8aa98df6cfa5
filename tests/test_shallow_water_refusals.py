"""What cannot be run is refused with what was given, what is allowed and what to do."""

import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from shallow_water_case import basin, params

from solvers.shallow_water import (
    Coriolis,
    Discharge,
    Open,
    Periodic,
    ShallowWater,
    ShallowWaterForcing,
    Stage,
    Wall,
)


def channel(*faces, dt=0.1):
    return basin((10.0,), (5,), dt, (faces,) if faces else None)


LAKE = params(np.zeros(5), 1.0)


def test_the_example_is_accepted():
    solver, *values = ShallowWater.example()
    assert solver.check(*values) == []


def test_a_lake_is_accepted():
    assert channel().check(LAKE) == []


@pytest.mark.parametrize(
    ("values", "where", "part"),
    [
        (LAKE._replace(bed=jnp.zeros(4)), "params.bed", "shape (4,), but the grid needs (5,)"),
        (LAKE._replace(discharge=jnp.zeros(5)), "params.discharge", "needs (1, 5)"),
        (LAKE._replace(friction=jnp.full(5, -0.1)), "params.friction", "the lowest is -0.1"),
        (LAKE._replace(stage=jnp.full(5, -1.0)), "params.stage", "below the bed everywhere"),
        (LAKE._replace(bed=jnp.full(5, jnp.nan)), "params.bed", "5 values are not finite"),
        (LAKE._replace(uplift=jnp.ones(5)), "params.uplift", "give both or none"),
        (
            LAKE._replace(stage=jnp.array([1.0, 1, 1, 1, 0]), discharge=jnp.ones((1, 5))),
            "params.discharge",
            "where it is dry",
        ),
    ],
)
def test_parameters(values, where, part):
    (remark,) = channel().check(values)
    assert remark.where == where
    assert part in remark.text


def test_a_step_that_is_too_long():
    (remark,) = channel(dt=1.0).check(LAKE)
    assert remark.where == "solver.dt"
    assert "dt=1 s is above the stable 0.319 s" in remark.text


@pytest.mark.parametrize(("face", "name"), [(Stage(), "stage"), (Discharge(), "discharge")])
def test_a_face_without_its_series(face, name):
    solver = channel(Wall(), face)
    (remark,) = solver.check(LAKE, ShallowWaterForcing(rain=jnp.zeros(3)))
    assert remark.where == f"forcing.{name}"
    assert "give [step, face]" in remark.text
    with pytest.raises(ValueError, match=r"for 1 faces: give \[step, face\]"):
        solver.step(solver.coefficients(LAKE), solver.init(LAKE), None)


def test_a_series_without_its_face():
    (remark,) = channel().check(LAKE, ShallowWaterForcing(stage=jnp.zeros((3, 1))))
    assert remark.where == "forcing.stage"


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"boundary": ((Wall(), Periodic()),)}, "periodic at one end only"),
        ({"boundary": ((Wall(), Wall()),) * 2}, "faces for 2 axes"),
        ({"boundary": ((Wall(), Open()),), "coriolis": Coriolis(1e-4)}, "give a grid of two"),
        ({"boundary": ((Wall(), Open()),), "thin": 0.0}, "greater than 0"),
    ],
)
def test_solvers(fields, part):
    with pytest.raises(ValidationError, match=part):
        basin((10.0,), (5,), 0.1, **fields)


def test_gauges_outside():
    with pytest.raises(ValueError, match="1 of 2 positions are outside the grid"):
        channel().sampler(np.array([[2.0], [11.0]]))
