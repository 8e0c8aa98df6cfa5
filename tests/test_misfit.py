"""A misfit is the number its formula says, and its gradient goes where the formula points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim.misfit import LeastSquares, Peak

DATA = jnp.array([[0.0, 9.0], [3.0, 0.0], [2.0, 0.0]])


def test_least_squares_of_a_known_residual():
    """½ · 0.5 s · (1² + 2²) = 1.25, exactly in binary."""
    predicted, observed = np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])
    assert LeastSquares()(predicted, observed, 0.5) == 1.25
    assert LeastSquares().units("m/s") == "(m/s)^2 s"


def test_a_peak_is_the_highest_of_one_receiver_and_depends_on_that_value_alone():
    value, gradient = jax.value_and_grad(Peak(receiver=0))(DATA, jnp.zeros_like(DATA), 0.5)
    assert value == 3
    np.testing.assert_array_equal(gradient, [[0, 0], [1, 0], [0, 0]])
    assert Peak(receiver=1)(DATA, DATA, 0.5) == 9
    assert Peak().units("m") == "m"


def test_a_peak_of_no_receiver_is_refused():
    with pytest.raises(ValueError, match=r"receiver 2 .* there are 2: give a number from 0 to 1"):
        Peak(receiver=2)(DATA, DATA, 0.5)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Peak(receiver=-1)
