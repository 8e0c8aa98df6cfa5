"""The uplift by a fault: the table of the paper, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim.check import difference_test, taylor_test
from solvers.okada import Fault, uplift

DIP = 70.0


def table_fault(rake):
    """Okada 1985, table 2, case 2: lower edge from (0, 0) along x at depth 4, length 3, width 2,
    dip 70°; his x axis is the strike, his y axis points up the dip."""
    middle = np.array([1.5, np.cos(np.deg2rad(DIP)), 4 - np.sin(np.deg2rad(DIP))])
    return Fault(*middle, 3.0, 2.0, 90.0, DIP, rake, 1.0)


@pytest.mark.parametrize(("rake", "lift"), [(0.0, -2.747e-3), (90.0, -3.564e-2)])
def test_table_of_the_paper(rake, lift):
    """At (2, 3), to the four digits that it has."""
    assert float(uplift(table_fault(rake), 2.0, 3.0)) == pytest.approx(lift, rel=3e-4)


def test_a_fault_is_the_sum_of_its_parts():
    """The rectangle's uplift is that of its four quarters, to round-off, one by one or together."""
    fault = Fault(0.0, 0.0, 9e3, 2e4, 1e4, 20.0, 25.0, 70.0, 2.0)
    x, y = np.meshgrid(np.linspace(-4e4, 5e4, 7), np.linspace(-3e4, 6e4, 5))
    sin, cos = np.sin(np.deg2rad(fault.dip)), np.cos(np.deg2rad(fault.dip))
    strike, quarters = np.deg2rad(fault.strike), []
    for i in (-1, 1):
        for j in (-1, 1):
            along, down = i * fault.length / 4, j * fault.width / 4
            flat = down * cos
            quarter = fault._replace(
                x=along * np.sin(strike) + flat * np.cos(strike),
                y=along * np.cos(strike) - flat * np.sin(strike),
                depth=fault.depth + down * sin,
                length=fault.length / 2,
                width=fault.width / 2,
            )
            quarters.append(quarter)
    whole = pytest.approx(np.asarray(uplift(fault, x, y)), abs=1e-12)
    assert sum(uplift(quarter, x, y) for quarter in quarters) == whole
    together = Fault(*np.transpose(quarters))._replace(slip=fault.slip)
    assert np.asarray(uplift(together, x, y)) == whole


def test_derivatives_by_all_parameters():
    """Taylor remainders of order above 1.99, and differences to 1e-7."""
    fault = Fault(*map(jnp.asarray, (1e3, 2e3, 9e3, 2e4, 1e4, 20.0, 25.0, 70.0, 2.0)))
    x, y = np.meshgrid(np.linspace(-4e4, 5e4, 7), np.linspace(-3e4, 6e4, 5))
    weights = np.random.default_rng(0).random(x.shape)
    loss = lambda f: jnp.sum(weights * uplift(f, x, y) ** 2)  # noqa: E731
    assert np.all(taylor_test(loss, fault, step=1e-3) > 1.99)
    assert difference_test(loss, fault, step=1e-3) < 1e-7


@pytest.mark.slow
def test_grids_aligned_with_the_fault_have_no_nan():
    """Over the edges, the centre and the trace, values and derivatives are finite."""
    fault = Fault(*map(jnp.asarray, (0.0, 0.0, 10.0, 8.0, 4.0, 0.0, 45.0, 90.0, 1.0)))
    x, y = np.meshgrid(np.arange(-20.0, 21), np.arange(-20.0, 21))
    value, gradient = jax.value_and_grad(lambda f: jnp.sum(uplift(f, x, y) ** 2))(fault)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
