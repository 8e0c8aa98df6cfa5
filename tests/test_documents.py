"""What README and CONTRIBUTING show runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from diffsim import Revolve, simulate
from diffsim.check import taylor_test

ROOT = Path(__file__).parents[1]


def python_blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def test_the_readme_example_gives_a_gradient():
    (block,) = python_blocks("README.md")
    names = {}
    exec(block, names)
    assert names["gradient"].shape == (120, 120)
    assert np.all(np.isfinite(names["gradient"]))
    assert np.abs(names["gradient"]).max() > 0


def test_the_example_of_a_pde_is_a_solver():
    """Its gradient passes the Taylor test like any other's: order above 1.99."""
    (block,) = python_blocks("CONTRIBUTING.md")
    names = {"__name__": "rod"}
    exec(block, names)
    solver, params, forcing = names["Rod"].example()
    assert solver.dt < solver.stable_dt(params)

    def loss(params):
        observe = solver.sampler(np.array([[0.23], [0.61]]))
        _, data = simulate(
            solver, params, observe, steps=19, forcing=forcing, adjoint=Revolve(2, block=2)
        )
        return (data**2).sum()

    assert np.all(taylor_test(loss, params) > 1.99)


def test_contributing_stays_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (ROOT / target).exists(), target
