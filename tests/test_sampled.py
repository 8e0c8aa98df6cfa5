"""Imaging every k-th step: what is exact, what is approximate, and by how much."""

import json
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, wave

from diffsim import Sampled, StoreAll, scan, simulate
from diffsim.adjoint.sampled import largest
from diffsim.case import CaseError, load
from diffsim.run import main
from diffsim.solver import ImagingSolver
from solvers import Heat, Wave, native
from solvers.wave import Absorbing, Free, Rigid, WaveForcing, WaveParams

CROSSHOLE = Path(__file__).parent.parent / "cases" / "crosshole.yaml"
DT, STEPS, FREQUENCY = 2e-3, 240, 15.0  # s, -, Hz
INSTRUMENTS = np.array([[31.0, -20.0], [77.0, 40.0]])


def with_density(params, grid):
    density = 1000 + 800 * np.random.default_rng(1).random(grid.shape)
    return params._replace(density=jnp.asarray(density))


def example(density):
    """The solver's own: all kinds of faces, initial field, two sources; far from Nyquist's rate."""
    solver, params, forcing = Wave.example()
    return solver, with_density(params, solver.grid) if density else params, forcing


def gradient(solver, values, adjoint, steps):
    """Of a sum of squares with respect to parameters, forcing and instruments."""

    def loss(values):
        params, forcing, places = values
        how = {"steps": steps, "forcing": forcing, "adjoint": adjoint}
        out = simulate(solver, params, solver.sampler(places), **how)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(out))

    return jax.jit(jax.grad(loss))(values)


def assert_close(ours, exact, tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(jnp.max(jnp.abs(b))))


def apart(bars):
    """The gradients with respect to the medium, and all others."""
    params, *others = bars
    medium = params.speed, params.density
    return medium, (params._replace(speed=None, density=None), *others)


@pytest.mark.parametrize(
    ("density", "every", "steps"),
    [
        (False, 7, 5),
        *(pytest.param(*args, marks=pytest.mark.slow) for args in ((False, 1, 6), (True, 4, 11))),
    ],
)
def test_all_but_the_medium_is_exact(density, steps, every):
    """Sources, wavelets, initial field and instruments to 1e-12 of the largest, a few hundred
    roundings, for lengths that stretches divide, others and shorter ones; the medium too if every
    step is imaged. Where it is not, so few steps of so short waves give something else."""
    solver, params, forcing = example(density)
    values = params, jax.tree.map(lambda f: f[:steps], forcing), jnp.asarray(INSTRUMENTS)
    exact, ours = (gradient(solver, values, a, steps) for a in (StoreAll(), Sampled(every)))
    (medium, others), (image, exactly) = apart(exact), apart(ours)
    assert_close(exactly, others, 1e-12)
    if every == 1:
        assert_close(image, medium, 1e-12)
    else:
        assert np.max(np.abs(image[0] - medium[0])) > 1e-3 * np.max(np.abs(medium[0]))


def shot(density=None, frequency=FREQUENCY):
    """A shot through a medium with scatterers, between layers, a wall and a surface, that is over
    when the run is; its data differ from those observed by their reflections."""
    layer = Absorbing(width=10, speed=2200.0, frequency=frequency)
    faces = ((Free(), layer), (Rigid(), layer))
    solver = wave((30, 40), 20.0, DT, faces, order=4)
    random = np.random.default_rng(0)
    speed = jnp.asarray(2000 + 200 * random.random((30, 40)))
    places = jnp.asarray([[300.0, 200.0]])
    params = WaveParams(speed, places)
    if density:
        params = with_density(params, solver.grid)
    time = DT * np.arange(STEPS)
    forcing = WaveForcing(jnp.asarray(ricker(time, frequency, 1.5 / frequency)[:, None]))
    return solver, params, forcing


@cache
def image(adjoint, density=False, frequency=FREQUENCY):
    """The gradient of the misfit with respect to the medium."""
    solver, params, forcing = shot(density, frequency)
    observe = solver.sampler(np.array([[40.0, 100.0], [40.0, 400.0], [200.0, 700.0]]))

    def data(params):
        return simulate(solver, params, observe, steps=STEPS, forcing=forcing, adjoint=adjoint)[1]

    observed = jax.jit(data)(params._replace(speed=jnp.full_like(params.speed, 2100.0)))
    loss = lambda params: jnp.sum((data(params) - observed) ** 2)  # noqa: E731
    bars = jax.jit(jax.grad(loss))(params)
    return [np.asarray(bar) for bar in (bars.speed, bars.density) if bar is not None]


def error(ours, exact):
    """Of an image, relative."""
    return [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ours, exact, strict=True)]


@pytest.mark.parametrize(
    "density", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "density"]
)
def test_image_is_exact_below_the_limit_and_aliased_above(density):
    """1e-3 where sampling is allowed: of a spectrum that ends at 1e-3 of its peak the product with
    itself, where the alias is, is at most 1e-6 of its own; times some ten each for the Laplacian
    and for a residual of nearly equal data, which prefer the high frequencies; and the record ends
    while some waves still arrive. At half the rate the alias is as large as the image."""
    solver, _, forcing = shot(density)
    most = largest(solver, forcing)
    assert most == 5  # 1 / (2 · 48 Hz · 2 ms)
    exact = image(StoreAll(), density)
    assert max(error(image(Sampled(most), density), exact)) < 1e-3
    if not density:
        assert min(error(image(Sampled(2 * most)), exact)) > 0.3


@pytest.mark.slow
def test_estimated_alias_is_the_size_of_the_error():
    """Its order, within a factor of 30 either way: the estimate adds magnitudes that in the image
    have phases, and knows nothing of a residual's spectrum."""
    solver, _, forcing = shot()
    exact = image(StoreAll())
    for every in (7, 10):
        (found,) = error(image(Sampled(every)), exact)
        assert found / 30 < Sampled(every).aliased(solver, forcing) < 30 * found
    assert Sampled(1).aliased(solver, forcing) == 0
    assert Sampled(5).aliased(solver, forcing) < 1e-3


@pytest.mark.parametrize("frequency", [5.0, 10.0, 20.0])
def test_the_limit_is_in_proportion_to_the_period(frequency):
    """3.2 peak frequencies are where a Ricker wavelet's spectrum is 1e-3 of its peak; to 3 %."""
    solver, _, forcing = shot(frequency=frequency)
    longer = WaveForcing(jnp.pad(forcing.sources, ((0, 4000), (0, 0))))
    limit = 1 / (2 * 3.2 * frequency * DT)
    assert np.floor(limit / 1.03) <= largest(solver, longer) <= np.floor(limit * 1.03)


def test_nothing_is_allowed_that_white_noise_would_alias():
    solver, _, _ = shot()
    noise = WaveForcing(jnp.asarray(np.random.default_rng(0).standard_normal((STEPS, 1))))
    assert largest(solver, noise) == 1
    (remark,) = Sampled(2).remarks(solver, noise)
    assert remark.fatal


@pytest.mark.parametrize("compiled", [True, False], ids=["at its best", "in plain JAX"])
@pytest.mark.parametrize("density", [False, True], ids=["", "density"])
def test_blind_transpose_is_that_of_the_step(density, compiled, monkeypatch):
    """By JAX's own transpose: 1e-12 of the largest, as a cotangent is a sum of some hundred rounded
    products. The step is linear: so at any state, but for one that has the images of the faces in
    its halo, as all have. The sources' weights and κ are varied in proportion: they are zero on a
    free surface, where no cotangent is known. The image counts twice, and adds to what there is.
    Without an exposure all but the medium's is the same."""
    if not compiled:
        monkeypatch.setattr(native, "built", lambda: False)
    solver, params, forcing = example(density)
    assert isinstance(solver, ImagingSolver)
    coefficients, state = solver.coefficients(params), solver.init(params)
    random = np.random.default_rng(0)
    state, bar = (
        jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape)), state)
        for _ in range(2)
    )
    forcing_n = jax.tree.map(lambda f: f[3], forcing)
    weights = coefficients.sources.weights

    frame = solver.frame

    def imaged(state):
        inner = (slice(frame.halo, -frame.halo),) * 2
        fields = (jnp.pad(frame.silence(p[inner]), frame.halo) for p in state[:2])
        return type(state)(*map(frame.mirror, fields), state.memory)

    kappa = coefficients.kappa

    def step(shares, buoyancy, state, forcing_n):
        sources = coefficients.sources._replace(weights=shares[0] * weights)
        varied = coefficients._replace(sources=sources, kappa=shares[1] * kappa, buoyancy=buoyancy)
        return solver.step(varied, imaged(state), forcing_n)

    shares = jnp.ones_like(weights), jnp.ones_like(kappa)
    exact = jax.vjp(step, shares, coefficients.buoyancy, state, forcing_n)[1](bar)
    scale = solver.scale(coefficients)
    scaled = solver.scaled(scale, bar)
    room = solver.exposures(coefficients, state, 3)
    expose = jax.jit(partial(solver.expose, coefficients))
    new, exposures = expose(imaged(state), forcing_n, room, 1)
    assert_close(new, step(shares, coefficients.buoyancy, state, forcing_n), 1e-14)

    def bars(transpose, *image):
        def found(*image):
            args = coefficients, forcing_n, scaled, scale, *image
            medium, state_bar, forcing_bar = transpose(*args)
            return medium.kappa, medium.buoyancy, medium.sources.weights, state_bar, forcing_bar

        *images, weights_bar, state_bar, forcing_bar = jax.jit(found)(*image)
        state_bar, _ = solver.unscaled(scale, state_bar, coefficients)
        (state_bar,) = jax.vjp(imaged, state)[1](state_bar)
        return images, weights_bar * weights, state_bar, forcing_bar

    def total(kappa, buoyancy):
        return coefficients._replace(kappa=kappa, buoyancy=buoyancy)

    zero = total(*jax.tree.map(jnp.zeros_like, (kappa, coefficients.buoyancy)))
    images, *others = bars(solver.image, exposures, 1, 2, zero)
    twice, *_ = bars(solver.image, exposures, 1, 2, total(*images))
    kappa_bar, buoyancy_bar = jax.tree.map(lambda bar: bar / 2, images)
    assert_close(jax.tree.map(lambda bar: bar / 4, twice), [kappa_bar, buoyancy_bar], 1e-14)
    _, medium = solver.unscaled(scale, scaled, total(kappa_bar, buoyancy_bar))
    shares_bar = others[0], medium.kappa * kappa
    assert_close((shares_bar, buoyancy_bar, *others[1:]), exact, 1e-12)
    images, *blindly = bars(solver.blind)
    assert images == [None, None]
    assert_close(blindly, others, 1e-15)


@pytest.mark.slow
def test_shots_by_vmap_are_shots_one_by_one():
    """To 1e-12: the same operations but for how they are put together."""
    solver, params, forcing = example(density=False)

    def of(params, forcing):
        values = params, forcing, jnp.asarray(INSTRUMENTS)
        return gradient(solver, values, Sampled(4), 19)

    forcings = jax.tree.map(lambda f: jnp.stack([f, 0.7 * f]), forcing)
    together = jax.vmap(of, (None, 0))(params, forcings)
    for i in range(2):
        alone = of(params, jax.tree.map(lambda f, i=i: f[i], forcings))
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, 1e-12)


def test_an_observation_of_any_kind_is_transposed_exactly():
    """Energy and number of large values beside traces, as the instruments' transpose to 1e-12."""
    solver, params, forcing = example(density=False)
    sampler = solver.sampler(INSTRUMENTS)

    def observe(state):
        field = state.pressure
        return sampler(state), jnp.sum(field**2), jnp.sum(field > 0.1)

    def loss(forcing, adjoint):
        how = {"steps": 19, "forcing": forcing, "adjoint": adjoint}
        _, (traces, energy, _) = simulate(solver, params, observe, **how)
        return jnp.sum(traces**2) + jnp.sum(energy**1.5)

    exact, ours = (
        jax.jit(jax.grad(partial(loss, adjoint=a)))(forcing) for a in (StoreAll(), Sampled(4))
    )
    assert_close(ours, exact, 1e-12)


@pytest.mark.slow
def test_memory_is_a_field_for_every_so_many_steps():
    """Twice the steps: one field, its curvature, for every so many of them, and some numbers of
    series and data; neither a state nor windows around instruments, whose weights nobody
    differentiates."""
    layer = Absorbing(width=10, speed=2200.0, frequency=15.0)
    solver = wave((60, 70), 20.0, DT, layer, order=4)
    places = np.stack([np.full(50, 40.0), np.linspace(20.0, 1300.0, 50)], 1)

    def temporary(steps, every):
        def loss(params):
            how = {"forcing": WaveForcing(jnp.ones((steps, 1))), "adjoint": Sampled(every)}
            return jnp.sum(
                simulate(solver, params, solver.sampler(places), steps=steps, **how)[1] ** 2
            )

        params = WaveParams(jnp.full((60, 70), 2000.0), jnp.asarray([[300.0, 300.0]]))
        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    field = solver.init(WaveParams(jnp.ones((60, 70)), None)).pressure
    for every in (4, 10):
        grown = (temporary(800, every) - temporary(400, every)) / 400
        assert grown < field.nbytes / every + 4 * 50 * 8 + 40


@pytest.mark.slow
def test_forward_over_reverse_is_the_derivative_of_the_sampled_gradient():
    """Against a central difference, 1e-7: truncation 1e-8, round-off 1e-16 / 1e-5 of the speed."""
    solver, params, forcing = example(density=False)
    speed, values = params.speed, (forcing, jnp.asarray(INSTRUMENTS))
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(speed.shape))
    slope = lambda c: gradient(solver, (params._replace(speed=c), *values), Sampled(4), 19)[0].speed  # noqa: E731
    bend = jax.jvp(slope, (speed,), (direction,))[1]
    h = 1e-2
    difference = (slope(speed + h * direction) - slope(speed - h * direction)) / (2 * h)
    assert_close(bend, difference, 1e-7)


def test_reverse_over_forward_is_refused():
    solver, params, forcing = example(density=False)

    def data(speed):
        how = {"steps": 19, "forcing": forcing, "adjoint": Sampled(4)}
        seen = simulate(solver, params._replace(speed=speed), solver.sampler(INSTRUMENTS), **how)[1]
        return jnp.sum(seen**2)

    speed = params.speed
    with pytest.raises(NotImplementedError, match="no reverse over forward mode"):
        jax.grad(lambda v: jax.jvp(data, (v,), (v,))[1])(speed)


def test_what_cannot_be_sampled_is_refused_with_what_to_take_instead():
    with pytest.raises(TypeError, match=r"nothing says how to transpose.*Revolve\(checkpoints=…\)"):
        scan(lambda c, _: (c, None), 1.0, None, 3, adjoint=Sampled(2))
    solver, params, forcing = Heat.example()
    steps = len(jax.tree.leaves(forcing)[0])
    with pytest.raises(TypeError, match=r"cannot run Heat: .*use Revolve\(checkpoints=…\)"):
        simulate(solver, params, lambda s: 0, steps=steps, forcing=forcing, adjoint=Sampled(2))
    solver, params, forcing = example(density=False)
    how = {"steps": 18, "every": 3, "adjoint": Sampled(2)}
    forcing = jax.tree.map(lambda f: f[:18], forcing)
    with pytest.raises(ValueError, match=r"every=3: .*data\[::3\]"):
        simulate(solver, params, solver.sampler(INSTRUMENTS), forcing=forcing, **how)
    (remark,) = Sampled(2).remarks(Heat.example().solver, Heat.example().forcing)
    assert "cannot run Heat" in remark.text


def test_of_an_initial_field_nothing_is_known():
    solver, _, _ = shot()
    (remark,) = Sampled(2).remarks(solver, None)
    assert not remark.fatal
    assert np.isnan(Sampled(2).aliased(solver, None))


def test_a_case_is_held_to_the_limit_and_its_run_says_what_is_aliased(tmp_path):
    """150 Hz and steps of 0.2 ms: every fifth step is allowed, 1 / (2 · 480 Hz · 0.2 ms)."""
    load(CROSSHOLE, ["adjoint={type: Sampled, every: 5}"])
    with pytest.raises(CaseError, match=r"adjoint\.every: every=6 images .*; give at most 5"):
        load(CROSSHOLE, ["adjoint={type: Sampled, every: 6}"])
    overrides = ("-s", "adjoint={type: Sampled, every: 4}", "-s", "steps=120")
    assert main([str(CROSSHOLE), "--out", str(tmp_path), *overrides]) == 0
    assert 0 <= json.loads((tmp_path / "metrics.json").read_text())["image_aliased"] < 1e-3
    assert "of one step in 4" in (tmp_path / "run.log").read_text()
