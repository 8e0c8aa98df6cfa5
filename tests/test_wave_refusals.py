"""What the wave solver refuses, in Python as in a case: nothing wrong runs on in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, wave

from diffsim import Revolve, simulate
from diffsim.check import difference_test, random_directions
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

SOLVER = wave((20, 24), 10.0, 1e-3)
SPEED = jnp.full((20, 24), 2000.0)
LAYER = Absorbing(width=8, speed=2000.0, frequency=20.0)


def run(speed=SPEED, sources=((50.0, 60.0),), series=None, dtype=float):
    """Data of 20 steps."""
    sources = jnp.asarray(sources, dtype)
    if series is None:
        series = np.tile(ricker(1e-3 * np.arange(20), 30.0, 0.01)[:, None], len(sources))
    params, forcing = (
        WaveParams(speed.astype(dtype), sources),
        WaveForcing(jnp.asarray(series, dtype)),
    )
    observe = SOLVER.sampler(jnp.array([[80.0, 90.0]], dtype))
    how = {"steps": 20, "forcing": forcing, "adjoint": Revolve(2, block=4)}
    return simulate(SOLVER, params, observe, **how)[1]


@pytest.mark.parametrize("place", [(50.0, 1000.0), (-1.0, 60.0), (np.nan, 60.0)])
def test_positions_outside_the_grid(place):
    with pytest.raises(ValueError, match="1 of 1 positions are outside the grid"):
        SOLVER.sampler(np.array([place]))
    with pytest.raises(ValueError, match="1 of 1 positions are outside the grid"):
        run(sources=[place])
    traced = jax.jit(lambda sources: run(sources=sources))(jnp.array([place]))
    assert np.isnan(traced[-1, 0]), "a source that leaves the grid under jit is not silent"


def test_shapes_and_types():
    with pytest.raises(ValueError, match=r"speed has shape \(3, 4\), but the grid has \(20, 24\)"):
        run(speed=jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="give a row of 2 numbers"):
        run(sources=[[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="give one for each"):
        run(sources=[[50.0, 60.0], [50.0, 90.0]], series=np.ones((20, 1)))
    with pytest.raises(TypeError, match="give float32 or float64"):
        run(dtype="float16")


def test_float32_runs_where_float64_is_allowed():
    """To 1e-5 of the largest sample: 20 steps of 1e-7."""
    single, double = run(dtype="float32"), run()
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())


def test_a_grid_too_thin_for_its_free_surface():
    """Below half a stencil the image of the surface would reach into the layer beyond."""
    with pytest.raises(ValueError, match="3 nodes beside a free surface: order 8 needs 4"):
        Wave(
            grid={"shape": (3, 20), "spacing": (10.0, 10.0)},
            dt=1e-3,
            boundary=((Free(), LAYER), (LAYER, LAYER)),
        )


def test_silence_and_coarse_waves_are_remarked():
    params = WaveParams(SPEED, jnp.array([[50.0, 60.0]]))
    silent = SOLVER.check(params, WaveForcing(jnp.zeros((20, 1))))
    assert [remark.where for remark in silent] == ["forcing.sources"]
    series = ricker(1e-3 * np.arange(300), 60.0, 0.05)[:, None]
    (coarse,) = SOLVER.check(params, WaveForcing(jnp.asarray(series)))
    assert not coarse.fatal
    assert "3.3 points per wavelength" in coarse.text


def test_a_medium_and_a_field_are_checked():
    """A density of zero, a field of another shape, a step too large beside a contrast of ten."""
    params = WaveParams(SPEED, None, density=SPEED, initial=SPEED)
    assert SOLVER.check(params) == []
    wrong = params._replace(density=SPEED.at[3].set(0), initial=SPEED[1:])
    assert [r.where for r in SOLVER.check(wrong)] == ["params.density", "params.initial"]
    with pytest.raises(ValueError, match=r"initial has shape \(19, 24\), but the grid has"):
        SOLVER.init(wrong)
    rough = params._replace(density=SPEED.at[10:].multiply(10))
    limits = [SOLVER.stable_dt(p) for p in (rough, params, params._replace(density=None))]
    assert limits[0] < limits[1] < limits[2], "staggered differences reach higher wavenumbers"
    solver = wave((20, 24), 10.0, 1.01 * limits[0])
    assert [r.where for r in solver.check(rough)] == ["solver.dt"]


def test_the_checks_do_not_pass_what_is_no_number():
    assert np.isnan(difference_test(lambda x: jnp.sum(x) * jnp.nan, jnp.ones(2)))
    with pytest.raises(TypeError, match="cannot be moved"):
        random_directions(jnp.arange(3), 1, seed=0)
