"""A dam breaks: exact solutions and their derivatives by the depths on both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import GRAVITY, basin, centres, end, params

from diffsim import Revolve
from solvers import stencil
from solvers.shallow_water import Open

LEFT, RIGHT, DAM, TIME, LENGTH = 0.005, 0.001, 5.0, 6.0, 10.0  # m, m, m, s, m
MIDDLE, FLOW, SHOCK = 0.00253936, 0.1272797, 0.2099634  # m, m/s, m/s behind and of the shock
LIMITERS = [stencil.Minmod(), stencil.VanLeer(), stencil.MonotonizedCentral()]


def dam(cells, limiter=stencil.VanLeer()):  # noqa: B008
    """The solver, the number of steps, and depths at the end as a function of those before."""
    steps = 3 * cells // 8
    solver = basin((LENGTH,), (cells,), TIME / steps, ((Open(), Open()),), limiter=limiter)
    (x,) = centres(solver)

    def depth(left, right, **how):
        stage = jnp.where(x < DAM, left, right)
        return end(solver, params(0.0, 0.0)._replace(bed=0 * stage, stage=stage), steps, **how)

    return solver, x, depth


def fan(x, time):
    """Depth in the rarefaction that runs from the dam to the left."""
    speed = (2 * np.sqrt(GRAVITY * LEFT) - (x - DAM) / time) / 3
    return np.clip(speed, 0, np.sqrt(GRAVITY * LEFT)) ** 2 / GRAVITY


def stoker(x, time):
    """Stoker 1957, chapter 10.8: a fan, a plateau, a shock."""
    depth = np.maximum(fan(x, time), MIDDLE)
    return np.where(x < DAM + SHOCK * time, depth, RIGHT)


@pytest.mark.parametrize("limiter", LIMITERS, ids=repr)
def test_stoker_wet_bed(limiter):
    """Depth within 1 % in the mean and 0.1 % on the plateau, which only the shock speed and the
    conserved sums can place, at 400 cells; flow on the plateau within 0.2 %; the shock, where the
    depth is half of its jump, within half a cell."""
    _, x, run = dam(400, limiter)
    state = jax.jit(run)(LEFT, RIGHT)
    depth, exact = np.asarray(state.depth), stoker(x, TIME)
    assert np.abs(depth - exact).sum() < 0.01 * exact.sum()
    plateau = (x > 5.1) & (x < 6.0)
    assert depth[plateau].mean() == pytest.approx(MIDDLE, rel=1e-3)
    flow = np.asarray(state.discharge[0])[plateau].mean() / MIDDLE
    assert flow == pytest.approx(FLOW, rel=2e-3)
    right = x > 5.5
    shock = np.interp(-(MIDDLE + RIGHT) / 2, -depth[right], x[right])
    assert shock == pytest.approx(DAM + SHOCK * TIME, abs=LENGTH / 400 / 2)


def test_first_order_is_right_too():
    """3 %: at the first order a jump is smeared over √steps cells."""
    _, x, run = dam(400, None)
    depth, exact = np.asarray(jax.jit(run)(LEFT, RIGHT).depth), stoker(x, TIME)
    assert np.abs(depth - exact).sum() < 0.03 * exact.sum()


def test_ritter_dry_bed():
    """Ritter 1892, depth within 2 % of the water that there is, and never negative; depth and speed
    where the dam was within 0.5 %."""
    _, x, run = dam(400)
    state = jax.jit(run)(LEFT, 0.0)
    depth, discharge = np.asarray(state.depth), np.asarray(state.discharge[0])
    assert np.abs(depth - fan(x, TIME)).sum() < 0.02 * depth.sum()
    assert depth.min() == 0
    here = np.interp(DAM, x, depth)
    assert here == pytest.approx(0.0022222, rel=5e-3)
    assert np.interp(DAM, x, discharge) / here == pytest.approx(0.1476482, rel=5e-3)


SLOPES = np.array([0.32153965, 0.93165890])  # of the plateau by the depth to the left and right


def plateau_slopes(cells, derive, **how):
    _, x, run = dam(cells)
    middle = (x > 5.2) & (x < 5.9)

    def plateau(depths):
        return jnp.mean(run(*depths, **how).depth[middle])

    return np.asarray(jax.jit(derive(plateau))(jnp.array([LEFT, RIGHT])))


def test_sensitivity_through_the_shock():
    """The plateau's depth by the depth on either side, differentiated through fan and shock: within
    1 % of the exact derivative at 400 cells."""
    slopes = plateau_slopes(400, jax.grad, adjoint=Revolve(6))
    assert slopes == pytest.approx(SLOPES, rel=0.01)


@pytest.mark.slow
def test_sensitivity_converges():
    """From 100 to 400 cells the error of both derivatives, by forward mode, falls at least by
    half."""
    coarse, fine = (np.abs(plateau_slopes(n, jax.jacfwd) - SLOPES) for n in (100, 400))
    assert np.all(fine < coarse / 2), (coarse, fine)
