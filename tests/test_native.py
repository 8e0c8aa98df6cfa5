"""The compiled sweeps of a wave step are their plain twins, on any faces, of any size and type."""

import ctypes
import os
import re
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Reversible, Revolve, Sampled, simulate
from diffsim.grid import Grid
from solvers import acoustics, constant_density, layers, native, off_grid
from solvers.faces import Absorbing, Frame, Free, Periodic, Rigid
from solvers.wave import Wave, WaveForcing, WaveParams

pytestmark = pytest.mark.skipif(
    not native.built(), reason="no compiled sweeps here: built without a C++ compiler, or refused"
)

DT = 1.5e-3
FACE = {"F": Free(), "R": Rigid(), "P": Periodic()}
FACE |= {str(width): Absorbing(width, 2000.0, 25.0) for width in range(2, 10)}
FACE |= {"N": Absorbing(12, 2000.0, 25.0), "W": Absorbing(17, 2000.0, 25.0)}


class Problem:
    """A frame and random arrays on it: what the functions take.

    Fields are zero behind layers, as they are for good; beyond other faces they are images, and
    cotangents random.
    """

    def __init__(self, faces, shape, order, dtype=np.float64, sources=3):
        """``faces`` by letters, an absorbing one by its width."""
        boundary = tuple(tuple(FACE[letter] for letter in pair) for pair in faces.split())
        spacing, axes = (10.0, 12.0, 11.0, 13.0)[: len(shape)], tuple("wzyx"[-len(shape) :])
        grid = Grid(shape=shape, spacing=spacing, axes=axes)
        self.frame = frame = Frame(grid, boundary, order)
        self.random, self.dtype = np.random.default_rng(0), dtype
        speed = 2000 + 300 * self.random.random(grid.shape)
        kappa = frame.silence((DT * frame.medium(jnp.asarray(speed, dtype))) ** 2)
        silent = layers.silent(frame, dtype)
        self.kappa = jnp.pad(kappa, frame.halo)
        self.shown = abs(frame.mirror(jnp.pad(jnp.ones(frame.inner, dtype), frame.halo)))
        self.p, self.other = (frame.mirror(self.noise(self.kappa)) for _ in range(2))
        self.memory = jax.tree.map(self.noise, silent)
        self.shot = self._shot(sources) if sources else None
        self.total, self.exposed = self.noise(self.kappa), self._exposed()
        self.bars = jax.tree.map(self.noise, (self.p, self.other, silent))

    def noise(self, like):
        values = jnp.asarray(self.random.standard_normal(like.shape), self.dtype)
        return values * self.shown if like.shape == self.shown.shape else values

    def _exposed(self):
        """Three curvatures, without meaning in the halo as behind layers."""
        fields = [self.noise(self.kappa) for _ in range(3)]
        return jnp.where(self.kappa > 0, jnp.stack(fields), 0)

    def _shot(self, sources):
        """Windows anywhere on grid and layers; the last one is where the first one is."""
        window = min(4, *self.frame.inner)
        starts = [self.random.integers(0, n - window + 1, sources) for n in self.frame.inner]
        start = np.stack(starts, -1) + self.frame.halo
        start[-1] = start[0]
        weights = self.noise(np.empty((sources, *[window] * len(starts))))
        points = off_grid.Points(jnp.asarray(start), weights)
        return acoustics.Shot(points, self.noise(np.empty(sources)))

    @property
    def arrays(self):
        fields = self.kappa, self.p, self.other, self.memory, self.shot, self.total, self.exposed
        return *fields, self.bars

    def all_of(self, advance, expose, transpose, adjoin, image, retrace):
        """A function of `arrays`; κ̄ and what is scaled without the halo, where κ is zero."""
        frame, inner = self.frame, (slice(self.frame.halo, -self.frame.halo),) * self.p.ndim

        def within(count, *values):
            return *(value[inner] for value in values[:count]), *values[count:]

        def results(kappa, p, other, memory, shot, total, exposed, bars):
            points, step = shot and shot.points, (kappa, p, other, memory, shot)
            old, before, *back = retrace(frame, DT, *step, *bars, total)
            new, after, exposures = expose(frame, DT, *step, exposed, 1)
            imaged = image(frame, DT, kappa, points, *bars, exposed, 2, 3, total)
            return {
                "advance": advance(frame, DT, *step),
                "expose": (new, after, exposures[::2], within(1, exposures[1])),
                "image": (*within(2, *imaged[:-1]), within(1, imaged[-1])),
                "transpose": within(1, *transpose(frame, DT, kappa, p, memory, points, *bars)),
                "adjoin": within(2, *adjoin(frame, DT, kappa, points, *bars)),
                "retrace": (old, before, *within(3, *back)),
            }

        return results

    @property
    def plain(self):
        names = "_advance", "_expose", "_transpose", "_adjoin", "_image", "_retrace"
        return self.all_of(*(getattr(constant_density, name) for name in names))

    @property
    def twins(self):
        names = "advance", "expose", "transpose", "adjoin", "image", "retrace"
        return self.all_of(*(getattr(constant_density, name) for name in names))


def same(ours, expected, roundings=50):
    """To so many roundings of the largest value of each array.

    A value is a sum of up to 25 neighbours and a layer's gain, in another order and with fused
    multiplications: 1e-14 in float64 and 6e-6 in float32.
    """
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True
    ):
        assert a.dtype == b.dtype
        tolerance = roundings * jnp.finfo(b.dtype).eps * np.abs(b).max(initial=0)
        place = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=place)


@pytest.mark.parametrize(
    ("faces", "shape", "order", "dtype", "sources"),
    [
        ("23", (1,), 8, "float64", 3),  # layers that reach into each other and into the halo
        ("RF", (37,), 6, "float32", 3),
        ("PP", (4,), 8, "float64", 0),  # as small as may be
        ("F9", (30,), 2, "float64", 1),
        ("23 92", (1, 1), 8, "float64", 3),
        ("34 25", (60, 523), 8, "float32", 3),  # more than two rows of lanes, several threads
        ("R3 F4", (90, 270), 4, "float64", 3),
        ("2F PP", (4, 9), 8, "float64", 2),
        ("PP RR", (5, 6), 8, "float32", 0),
        ("23 22 92", (1, 2, 1), 8, "float64", 3),
        ("R3 PP F2", (13, 14, 261), 4, "float64", 3),
        ("2R 3R 53", (7, 9, 37), 6, "float32", 3),
        ("FR PP RF", (9, 8, 200), 6, "float64", 3),  # images of images, several threads
        # along rows: some lanes of one vector of 4 to 16, and several vectors; lines in two pieces
        ("RW NW", (60, 257), 8, "float32", 3),
        ("W3 RN", (60, 17), 4, "float32", 3),
        ("33 W4 N9", (5, 12, 50), 4, "float32", 2),
        ("33 W4 6W", (5, 12, 50), 8, "float64", 2),
    ],
)
def test_a_compiled_sweep_is_its_plain_twin(faces, shape, order, dtype, sources):
    """All of them, each in the same program as the others."""
    problem = Problem(faces, shape, order, dtype, sources)
    same(*(jax.jit(f)(*problem.arrays) for f in (problem.twins, problem.plain)))


def test_a_batch_is_one_after_the_other():
    """Bit by bit: three fields over one medium, with the cotangents of one."""
    problem = Problem("R3 2F", (12, 13), 4)
    kappa, *varying, shot, total, exposed, bars = problem.arrays
    batch = [jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), v) for v in varying]

    def one(p, other, memory):
        return problem.twins(kappa, p, other, memory, shot, total, exposed, bars)

    def each(i):
        return jax.jit(one)(*jax.tree.map(lambda leaf: leaf[i], batch))

    together = jax.jit(jax.vmap(one))(*batch)
    same(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(each, range(3))), 0)


@pytest.mark.parametrize("sweep", ["advance", "retrace"])
def test_a_sweep_has_the_same_values_in_either_order(sweep):
    """Bit by bit: every second one goes from the middle of a field to its ends, and no value of it
    depends on what another share has made. 7 rounds, so that both ways meet idle and busy threads.
    """
    problem = Problem("R3 F4", (300, 301), 4)
    once = jax.jit(lambda *arrays: problem.twins(*arrays)[sweep])  # XLA drops the other sweeps
    first, *others = (once(*problem.arrays) for _ in range(7))
    for other in others:
        same(other, first, 0)


def test_derivatives_are_those_of_the_plain_twin():
    """Forward and reverse, by every array at once, and the value beside them: twice the roundings
    of one sweep. The loss is linear, as a walk back divides by what a layer leaves: a few
    hundredths here, so that the slope of a curved loss would be a thousand roundings off."""
    problem = Problem("R3 2F", (12, 13), 4)
    *fields, shot, total, exposed, bars = problem.arrays
    assert shot is not None
    at = *fields, shot.values, total, exposed, bars
    along = jax.tree.map(problem.noise, at)
    shapes = {
        leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(problem.plain, *problem.arrays))
    }
    weights = {shape: problem.noise(np.empty(shape)) for shape in shapes}

    def derivatives(results):
        def f(kappa, p, other, memory, values, *rest):
            return results(kappa, p, other, memory, shot._replace(values=values), *rest)

        def loss(at):
            leaves = jax.tree.leaves(f(*at))
            return sum(jnp.vdot(weights[leaf.shape], leaf) for leaf in leaves)

        return jax.jit(lambda: (jax.jvp(f, at, along), jax.value_and_grad(loss)(at)))()

    same(derivatives(problem.twins), derivatives(problem.plain), 100)


@pytest.mark.parametrize("types", [("float32", "float64"), ("float64", "float32")])
def test_a_medium_of_another_type_than_the_field_promotes(types):
    """As JAX promotes: a sweep, which knows one type, would read numbers that aren't there."""
    medium, field = (Problem("RF PP", (9, 8), 4, dtype, 0) for dtype in types)
    args = medium.kappa, field.p, field.other, (), None
    advance, plain = (
        jax.jit(lambda *args, f=f: f(medium.frame, DT, *args))(*args)
        for f in (constant_density.advance, constant_density._advance)
    )
    same(advance, plain, 0)


def test_four_axes_have_no_sweep_and_run_all_the_same():
    problem = Problem("RF PP 2F FF", (3, 2, 4, 3), 2)
    same(*(jax.jit(f)(*problem.arrays) for f in (problem.twins, problem.plain)), 0)


class Field(NamedTuple):
    values: jax.Array


def windows(shape, width, dtype):
    """A field and 20 windows on it, which overlap, with values for each."""
    random = np.random.default_rng(0)
    field = jnp.asarray(random.standard_normal(shape), dtype)
    wide = np.broadcast_to(width, len(shape))
    start = np.stack(
        [random.integers(0, n - w + 1, 20) for n, w in zip(shape, wide, strict=True)], -1
    )
    weights = random.standard_normal((20, *wide))
    points = off_grid.Points(jnp.asarray(start), jnp.asarray(weights, dtype))
    return field, points, jnp.asarray(random.standard_normal(20), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "width"),
    [
        *[((40,), 8), ((40,), 1), ((30, 31), 8), ((30, 31), 2), ((5, 9), 3), ((20, 33), 14)],
        *[((30, 31), (1, 8)), ((30, 31), (8, 1)), ((30, 31), 1)],
        *[((12, 13, 14), 8), ((12, 13, 14), (1, 8, 3)), ((12, 13, 14), (8, 1, 8))],
    ],
)
def test_what_is_seen_and_put_at_points_is_that_of_the_plain_twin(shape, width, dtype):
    field, points, values = windows(shape, width, dtype)
    same(jax.jit(off_grid.take)(field, points), off_grid._take(field, points))
    same(jax.jit(off_grid.put)(field, points, values), off_grid._put(field, points, values))


def test_derivatives_of_what_is_seen_are_those_of_plain_jax():
    """Of every mode and of second order, by the field and by the weights, whether the field is
    handed on or not: to 1e-12 of the largest."""
    field, points, _ = windows((30, 31), 8, "float64")
    at = field, points.weights
    along = tuple(jnp.sin(3 * value) for value in at)

    def handed_on(field, weights):
        points_there = points._replace(weights=weights)
        state, seen = off_grid.see(Field(field**2), "values", points_there)
        return jnp.sum(jnp.sin(state.values)) + jnp.sum(seen**3)

    def seen_only(field, weights):
        state = Field(field**2)
        seen = off_grid.see(state, "values", points._replace(weights=weights))[1]
        return jnp.sum(jnp.sin(state.values)) + jnp.sum(seen**3)

    def plain(field, weights):
        seen = off_grid._take(field**2, points._replace(weights=weights))
        return jnp.sum(jnp.sin(field**2)) + jnp.sum(seen**3)

    def derivatives(f):
        slopes = jax.grad(f, (0, 1))
        batch = jnp.stack([at[0], along[0]])
        return [
            jax.jvp(f, at, along),
            jax.jvp(slopes, at, along),
            jax.grad(lambda *at: jax.jvp(f, at, along)[1], (0, 1))(*at),
            jax.grad(lambda *at: sum(jnp.sum(slope**2) for slope in slopes(*at)), (0, 1))(*at),
            jax.vmap(slopes, (0, None))(batch, at[1]),
            jax.vmap(slopes, (None, 0))(at[0], jnp.stack([at[1], along[1]])),
        ]

    expected = derivatives(plain)
    for f in (handed_on, seen_only):
        for a, b in zip(jax.tree.leaves(derivatives(f)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("adjoint", [Reversible(2), Revolve(4), Sampled(1), Sampled(4)], ids=repr)
@pytest.mark.parametrize("count", [1, 3])
def test_the_way_back_makes_no_field_for_instruments(adjoint, count):
    """What they felt is put where the cotangent is: the loop that does so neither fills, copies nor
    adds a field. Of a single one XLA makes no scatter, which it would merge with the sum. In 120
    steps the largest cotangent is looked at, which copies no field either."""
    layer = Absorbing(3, 2000.0, 25.0)
    solver = Wave(Grid((30, 41), (10.0, 10.0)), DT, ((layer, layer),) * 2, order=4)
    places = jnp.linspace(50.0, 200.0, 2 * count).reshape(count, 2)
    forcing = WaveForcing(jnp.ones((120, 1)))

    def loss(speed):
        params, sampler = WaveParams(speed, jnp.array([[100.0, 100.0]])), solver.sampler(places)
        how = {"steps": 120, "forcing": forcing, "adjoint": adjoint}
        return jnp.sum(simulate(solver, params, sampler, **how)[1] ** 2)

    text = jax.jit(jax.grad(loss)).lower(jnp.full((30, 41), 2000.0)).compile().as_text()
    bodies = [body for body in text.split("\n}\n") if '"diffsim_put_' in body]
    assert bodies
    for body in bodies:
        assert not re.findall(r"= f64\[40,51\]\S* (?:add|broadcast|copy|fusion|scatter)\(", body)


def in_another_process(program, **environment):
    """Its standard output; a minute is several times what it takes."""
    command = [sys.executable, "-c", program]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"} | environment
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


MANY = """
import jax
from test_native import DT, Problem, constant_density
problem = Problem("RF 34", (300, 301), 4)
def steps(p, other, memory):
    for _ in range(3):
        new, memory = constant_density.advance(
            problem.frame, DT, problem.kappa, p, other, memory, None
        )
        p, other = new, p
    return p
def many(p):
    return [steps(i * p, problem.other, problem.memory) for i in range(8)]
jax.block_until_ready(jax.jit(many)(problem.p))
"""


def test_more_sweeps_at_once_than_threads_do_not_wait_for_each_other():
    """A sweep that runs on each of the pool's threads leaves none for the sweeps' shares."""
    in_another_process(MANY, PYTHONPATH=os.pathsep.join(sys.path))


@pytest.mark.parametrize("stamp", [None, lambda: b"of other sources"], ids=["none", "another"])
def test_a_library_of_other_sources_is_told_and_not_called(stamp, monkeypatch):
    """As after an update without another install: its sweeps might take other arguments."""

    class Library:
        diffsim_sources = stamp

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    with pytest.warns(UserWarning, match="compiled from other sources .*: install the package"):
        assert not native.built.__wrapped__()


def test_the_environment_says_no():
    program = "from solvers import native; print(native.built())"
    assert in_another_process(program, DIFFSIM_NATIVE="0").strip() == "False"
