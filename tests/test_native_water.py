"""The compiled sweeps of shallow water are their plain twins, with any limiter, on any face."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shallow_water_case import basin

from solvers import native, stencil
from solvers.earth import Sphere
from solvers.shallow_water import Discharge, Open, Periodic, ShallowWaterState, Stage, Wall

pytestmark = pytest.mark.skipif(
    not native.built(), reason="no compiled sweeps here: built without a C++ compiler, or refused"
)

FACES = {
    "all kinds": ((Stage(), Discharge()), (Wall(), Open(0.0))),
    "round": ((Wall(), Open()), (Periodic(), Periodic())),
}
SMALL, WIDE = (9, 8), (40, 300)
CASES = [
    (SMALL, "all kinds", None, float),
    (SMALL, "all kinds", stencil.Minmod(), float),
    (SMALL, "all kinds", stencil.MonotonizedCentral(), float),
    (WIDE, "round", stencil.VanLeer(), float),
    (WIDE, "all kinds", stencil.VanLeer(), np.float32),
    pytest.param(WIDE, "round", None, np.float32, marks=pytest.mark.slow),
]


def volumes_and_arrays(shape, faces, limiter, sphere, dtype):
    """Half-dry rough ground, what its faces are given, and cotangents of what they give."""
    lengths = 9.0 * shape[0], 7.0 * shape[1]
    solver = basin(lengths, shape, 0.1, FACES[faces], limiter=limiter, sphere=sphere)
    random = np.random.default_rng(2)
    bed = 2 * random.random(shape) - 1.2
    depth = np.maximum(0.3 + 0.2 * random.random(shape) - bed, 0)
    flow = [0.3 * random.standard_normal(shape) * (depth > 0) for _ in range(2)]
    cast = lambda tree: jax.tree.map(lambda u: jnp.asarray(u, dtype), tree)  # noqa: E731
    state = cast(ShallowWaterState(depth, tuple(flow), bed))
    given = cast([0.3, 0.2, None, None] if faces == "all kinds" else [None] * 4)
    noise = lambda: random.standard_normal(shape)  # noqa: E731
    return solver._volumes, state, given, cast(((noise(), (noise(), noise())), noise()))


@pytest.mark.parametrize(("shape", "faces", "limiter", "dtype"), CASES, ids=repr)
def test_a_step_and_its_transpose_are_those_of_plain_jax(shape, faces, limiter, dtype):
    """200 roundings of each quantity's largest entry, in the grid or beyond all of its faces, on a
    sphere whose pole the grid touches: fluxes are sums of some ten products, of which a cotangent
    gathers eight. The wide grid takes several tiles, and rows in several parts."""
    sphere = Sphere(9.0 * shape[0] * 2 / np.pi)
    volumes, state, given, bars = volumes_and_arrays(shape, faces, limiter, sphere, dtype)
    beyond = volumes._beyond(volumes.shores.inside(state), given)

    def plain(state, beyond, bars):
        return volumes._plain_advance(state, beyond), volumes._plain_pull(state, beyond, *bars)

    def compiled(state, beyond, bars):
        now, pull = volumes._vjp(state, beyond)
        return now, pull(*bars)

    own, twin = jax.jit(compiled)(state, beyond, bars), jax.jit(plain)(state, beyond, bars)
    assert "advance" in jax.jit(compiled).lower(state, beyond, bars).as_text()
    assert jax.tree.structure(own) == jax.tree.structure(twin)
    for a, b in zip(quantities(*own), quantities(*twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=200 * np.finfo(dtype).eps * np.abs(b).max())


def quantities(now, bars):
    """Depth and discharge; cotangents of the state; those beyond all faces, for each quantity."""
    state_bar, beyond_bar = bars
    faces = [[np.ravel(leaf) for leaf in jax.tree.leaves(face)] for face in beyond_bar]
    beyond = [np.concatenate(leaves) for leaves in zip(*faces, strict=True)]
    return [*jax.tree.leaves(now), *jax.tree.leaves(state_bar), *beyond]
