"""Walls and periodic axes: exact transposes, no seam, and what does not fit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from diffsim.grid import Grid
from solvers.wave import Absorbing, Free, Periodic, Rigid, Wave, WaveForcing, WaveParams

FACE = {"F": Free(), "R": Rigid(), "P": Periodic(), "A": Absorbing(3, 2000.0, 25.0)}


def boundary(letters):
    return tuple(tuple(FACE[letter] for letter in pair) for pair in letters.split())


@pytest.mark.parametrize(
    ("faces", "order", "rough"),
    [
        ("RA AR", 4, False), ("RR FR", 8, False), ("PP RA", 8, False), ("AA", 8, True),
        ("RF", 6, True), ("PP RA", 4, True), ("FA AR", 8, True), ("AF PP", 2, True),
        ("RA PP FA", 4, True),
    ],
)  # fmt: skip
def test_pullback_is_the_transpose_of_a_step(faces, order, rough):
    """Of a step from a field with its images, as every step is, in a medium that is nothing in the
    halo: 1e-12, a hundred roundings.

    In one to three dimensions; where the medium is rough, the density is too.
    """
    random = np.random.default_rng(0)
    ndim = len(boundary(faces))
    shape = {1: (12,), 2: (11, 12), 3: (9, 8, 10)}[ndim]
    grid = Grid(shape=shape, spacing=(10.0, 12.0, 11.0)[:ndim])
    solver = Wave(grid=grid, dt=1.5e-3, boundary=boundary(faces), order=order)
    speed = jnp.asarray(2000 + 300 * random.random(shape))
    sources = jnp.array([[3.0, 8.0, 7.0], [79.0, 80.0, 60.0]])[:, :ndim]
    density = jnp.asarray(1000 + 800 * random.random(shape)) if rough else None
    coefficients = solver.coefficients(WaveParams(speed, sources, density))

    def noise(tree):
        return jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape)), tree)

    state = noise(solver.init(WaveParams(speed, None)))
    forcing, state_bar = WaveForcing(jnp.array([1.0, 2.0])), noise(state)

    inner = (slice(order // 2, -order // 2),) * ndim

    def still(coefficients):
        kappa = jnp.pad(coefficients.kappa[inner], order // 2)
        return coefficients._replace(kappa=kappa)

    def imaged(state):
        """With images, silence on free surfaces, and zeros behind layers."""
        frame = solver.frame

        def field(p):
            return frame.mirror(jnp.pad(frame.silence(p[inner]), order // 2))

        return state._replace(pressure=field(state.pressure), previous=field(state.previous))

    @jax.jit
    def both(coefficients, state):
        step = lambda c, s, f: solver.step(still(c), imaged(s), f)  # noqa: E731
        derived = jax.vjp(step, coefficients, state, forcing)[1](state_bar)
        of_still, of_imaged = jax.vjp(still, coefficients)[1], jax.vjp(imaged, state)[1]
        bars = solver.pullback(still(coefficients), imaged(state), forcing, state_bar)
        return derived, (of_still(bars[0])[0], of_imaged(bars[1])[0], bars[2])

    derived, by_hand = map(jax.tree.leaves, both(coefficients, state))
    for expected, own in zip(derived, by_hand, strict=True):
        if own.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(own, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_a_periodic_axis_has_no_seam():
    """A medium, its sources and receivers rolled around the axis give the same data: round-off.

    So that windows that straddle the seam, on its last node or in the gap behind it, are whole.
    """
    random = np.random.default_rng(0)
    speed, spacing, count = 2000 + 300 * random.random((14, 16)), 10.0, 16
    solver = wave((14, 16), spacing, 1.5e-3, faces=boundary("RF PP"))
    wavelet = ricker(1.5e-3 * np.arange(150), 20.0, 0.05)[:, None]
    source, receivers = np.array([[52.0, 71.3]]), np.array([[31.0, 74.4], [110.0, 20.0]])

    def rolled(nodes):
        shift = np.array((0, nodes * spacing))
        ends = ((end + shift) % (1e9, count * spacing) for end in (source, receivers))
        return shoot(solver, np.roll(speed, nodes, axis=1), *ends, wavelet)

    expected = rolled(0)
    for nodes in (8, 9):  # the source 1.3 m before the image of the first node, and behind it
        seen = rolled(nodes)
        assert seen == pytest.approx(expected, abs=1e-12 * np.abs(expected).max())


def test_faces_that_do_not_fit_are_refused():
    """Each with what to do."""
    grid = Grid(shape=(4, 20), spacing=(10.0, 10.0))
    for faces, message in (
        ("FF PR", "an axis is periodic at one end only: make both ends Periodic"),
        ("RF FF", "4 nodes beside a rigid wall: order 8 needs 5"),
        ("FF", "boundary names faces for 1 axes, but the grid has 2"),
    ):
        with pytest.raises(ValueError, match=message):
            Wave(grid=grid, dt=1e-3, boundary=boundary(faces))
