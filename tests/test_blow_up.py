"""A run that stops being finite, and an adjoint that explodes, say so; others stay silent."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_run import SMALL, main, outcome
from wave_case import wave

from diffsim import Multilevel, Periodic, Reversible, Revolve, StoreAll, scan, simulate
from diffsim.adjoint.growth import Exploded
from diffsim.blow_up import NotFinite, first_non_finite, warn
from solvers.wave import Absorbing, Free, WaveForcing, WaveParams

LAYER = Absorbing(width=12, speed=2000.0, frequency=10.0)
SOURCE = 200.0, 230.0  # m, on a node


def shot(dt=1e-3, steps=250, lost=None):
    """A solver with layers of unlike width, its params, and a forcing that is NaN in one step."""
    solver = wave((21, 26), 10.0, dt, ((Free(), LAYER), (LAYER, LAYER)), origin=100.0)
    speed = jnp.full(solver.grid.shape, 2000.0, jnp.float32)
    return solver, WaveParams(speed, jnp.array([SOURCE])), series(steps, lost)


def string(steps=250):
    """The same in one dimension, where the program of a gradient is short."""
    solver = wave((30,), 10.0, 1e-3, ((Free(), LAYER),), order=2)
    return (
        solver,
        WaveParams(jnp.full(30, 2000.0, jnp.float32), jnp.array([[150.0]])),
        series(steps),
    )


def series(steps, lost=None):
    values = np.sin(0.2 * np.arange(steps))[:, None].astype(np.float32)
    if lost is not None:
        values[lost] = np.nan
    return WaveForcing(jnp.asarray(values))


def test_an_unstable_run_is_lost_at_the_step_and_the_entry_that_a_plain_loop_finds():
    solver, params, forcing = shot(dt=3.6e-3)
    found = first_non_finite(solver, params, steps=250, forcing=forcing)
    coefficients, state = solver.coefficients(params), solver.init(params)

    def step(state, forcing_n):
        new = solver.step(coefficients, state, forcing_n)
        return new, new.pressure

    _, pressures = jax.jit(lambda: lax.scan(step, state, forcing))()
    bad = ~np.isfinite(pressures)
    n = int(np.argmax(bad.any(axis=(1, 2))))
    assert (found.step, found.field) == (n + 1, "pressure")
    assert found.index == tuple(np.argwhere(bad[n])[0])
    assert found.largest == pytest.approx(np.abs(pressures[n - 1]).max(), rel=1e-3)
    assert found.courant == pytest.approx(3.6e-3 / solver.stable_dt(params))
    assert found.cause == "the scheme is unstable: lower dt or coarsen the grid"


def test_a_bad_number_in_the_forcing_is_found_with_its_place_in_metres():
    """The first node of the window, four cells wide each way, that spreads the source over nodes:
    layers and halo around the grid do not count."""
    solver, params, forcing = shot(lost=137)
    found = first_non_finite(solver, params, steps=250, forcing=forcing)
    assert found.step == 138
    assert found.time == pytest.approx(0.138)
    distance = np.array(SOURCE) - found.position
    assert np.all((distance == 30) | (distance == 40))
    assert found.cause == "the forcing of step 137 is not finite: mend it"
    assert re.search(r"^pressure is not finite from step 138 on, t = 0\.138 s", str(found))


def test_bad_params_are_the_cause_and_a_finite_run_is_none():
    solver, params, forcing = shot()
    assert first_non_finite(solver, params, steps=250, forcing=forcing) is None
    params = params._replace(speed=params.speed.at[3, 4].set(jnp.nan))
    found = first_non_finite(solver, params, steps=250, forcing=forcing)
    assert found.cause == "the coefficients are not finite: mend the params"


@pytest.mark.parametrize(
    ("adjoint", "every"), [(StoreAll(), 1), (Revolve(3, 2), 5), (Reversible(), 1)], ids=str
)
def test_a_watched_run_tells_of_its_end_and_changes_no_gradient(adjoint, every):
    """Once a run that is lost, wherever it was. Round-off in float32: 1e-5."""
    solver, params, forcing = string()
    seen = solver.sampler(jnp.array([[70.0]]))

    def gradient(watch):
        def loss(speed, forcing):
            how = {"steps": 250, "forcing": forcing, "adjoint": adjoint, "every": every}
            moved = params._replace(speed=speed)
            return jnp.sum(simulate(solver, moved, seen, watch=watch, **how)[1] ** 2)

        return jax.jit(jax.grad(loss))

    losses = []
    watched = gradient(lambda: losses.append(1))
    result = told(watched, params.speed, forcing)
    assert losses == []
    if every == 5:
        plain = gradient(None)(params.speed, forcing)
        np.testing.assert_allclose(result, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the walk back drifted")
        for lost in (137, 220):
            told(watched, params.speed, series(250, lost))
    assert losses == [1, 1]


def test_warn_names_what_finds_the_place():
    with pytest.warns(NotFinite, match="blow_up.first_non_finite finds the step, the place"):
        warn()


def test_watching_copies_no_field():
    """What a step writes over must not be held on to: as many copies in the program as without."""
    solver, params, forcing = shot()
    seen = solver.sampler(jnp.array([[150.0, 250.0]]))

    def copies(watch):
        def run(forcing):
            how = {"steps": 250, "forcing": forcing, "watch": watch}
            state, data = simulate(solver, params, seen, **how)
            return state.pressure, data

        text = jax.jit(run).lower(forcing).compile().as_text()
        shape = ",".join(str(n) for n in solver.init(params).pressure.shape)
        return len(re.findall(rf"= f32\[{shape}\]\S* copy\(", text))

    assert copies(warn) <= copies(None)


def test_a_case_that_blows_up_ends_with_field_step_place_and_cause(tmp_path, monkeypatch, capsys):
    """Twenty sources of 3e38 Pa m in one place: above the largest number of float32, 3.4e38. What
    was computed is kept. Sums overflow a step or two earlier by the order of their terms, which is
    the compiler's."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    sources = f"params.sources={[[60.0, 70.0]] * 20}"
    argv = ["-s", "precision=float32", "-s", "forcing.sources.amplitude=3e38", "-s", sources]
    argv += ["-s", "task={type: Forward}"]
    assert main(["small.yaml", *argv]) == 1
    said = capsys.readouterr().out
    found = re.search(
        r"predicted data: pressure is not finite from step (\d) on, t = (\S+) s", said
    )
    assert found, said
    assert 4 <= int(found[1]) <= 6
    assert float(found[2]) == pytest.approx(2e-3 * int(found[1]))
    assert "(60, 70) m; " in said
    assert "dt is 0.566 of the stable one: it grew until it overflowed" in said
    assert "predicted" in outcome(tmp_path / "runs" / "small")[0]


# --- the adjoint


def told(function, *args):
    """What a compiled function gives, when all that it says is said."""
    result = jax.jit(function)(*args)
    jax.effects_barrier()
    return result


def lorenz(state, rho):
    """Lorenz (1963), J. Atmos. Sci. 20; a step of 0.01 by Runge and Kutta."""

    def rate(u):
        x, y, z = u
        return jnp.stack([10 * (y - x), x * (rho - z) - y, x * y - 8 / 3 * z])

    a = rate(state)
    b = rate(state + 0.005 * a)
    c = rate(state + 0.005 * b)
    return state + 0.01 / 6 * (a + 2 * b + 2 * c + rate(state + 0.01 * c))


def mean_height(rho, adjoint, steps=6000, start=(1.0, 2.0, 20.0)):
    """A climate that one would like to differentiate."""

    def step(state, _):
        return lorenz(state, rho), state[2]

    return jnp.mean(scan(step, jnp.array(start), None, steps, adjoint=adjoint)[1])


@pytest.mark.parametrize("adjoint", [Revolve(30), Periodic(100), Multilevel(60)], ids=repr)
def test_a_chaotic_run_warns_with_the_lyapunov_exponent(adjoint):
    """0.906 per time unit of 100 steps (Sprott 2003, Chaos and Time-Series Analysis); over 45 units
    it is found to a few per cent, 20 are allowed."""
    with pytest.warns(Exploded, match=r"exp\(\S+\) a step") as warned:
        told(jax.grad(functools.partial(mean_height, adjoint=adjoint)), 28.0)
    (warning,) = warned
    exponent = 100 * float(re.search(r"exp\((\S+)\)", str(warning.message))[1])
    assert abs(exponent / 0.906 - 1) < 0.2


def test_in_every_mode_one_warning():
    """A batch warns once, of its worst member; forward over reverse warns as reverse does."""
    height = functools.partial(mean_height, adjoint=Revolve(30), steps=3500)
    gradient = jax.grad(height)
    for mode in (
        lambda: jax.vmap(jax.vmap(gradient))(jnp.array([[28.0], [0.5]])),
        lambda: jax.jvp(gradient, (28.0,), (1.0,)),
    ):
        with pytest.warns(Exploded) as warned:
            told(mode)
        assert len(warned) == 1


def test_overflow_on_the_way_is_told_by_what_came_before():
    """In float32 the cotangents overflow; the growth is that of the quarters before."""
    start = np.array([1.0, 2.0, 20.0], np.float32)

    def height(rho):
        return mean_height(rho, Revolve(60), steps=14000, start=start)

    with pytest.warns(Exploded, match=r"over 3500 steps") as warned:
        gradient = told(jax.grad(height), np.float32(28.0))
    assert not np.isfinite(gradient)
    exponent = 100 * float(re.search(r"exp\((\S+)\)", str(warned[0].message))[1])
    assert abs(exponent / 0.906 - 1) < 0.2


def damped(weights, start):
    """Misfits ``[step]`` of a linear system that forgets: a factor of 1e-17 in 400 steps."""

    def step(state, weight):
        return 0.9 * (jnp.array([[0.8, 0.6], [-0.6, 0.8]]) @ state), weight * jnp.sum(state**2)

    return jnp.sum(scan(step, start, weights, adjoint=Revolve(20, block=2))[1])


@pytest.mark.parametrize(
    "weights",
    [
        np.ones(400),
        np.exp(0.1 * np.arange(400)),
        np.arange(400) < 20,
        (np.arange(400) < 20) + 1.0 * (np.arange(400) > 390),
        (np.arange(400) % 97 == 0) * 1.0,
    ],
    ids=["even", "growing", "early", "early and late", "bursts"],
)
def test_what_is_fed_by_a_growing_misfit_does_not_warn(weights):
    """Backwards in time the misfit of a decaying run grows exponentially, and so does the adjoint
    that it feeds: by 1e30 here, but no faster. (Warnings are errors.)"""
    gradient = told(jax.grad(damped, argnums=1), jnp.asarray(weights, float), jnp.ones(2))
    assert np.abs(gradient).max() > 0


def test_a_wave_that_starts_in_a_corner_does_not_warn():
    """Most of the field hears nothing of it in the last quarter of the run: all of it is looked at,
    as some entries of it would seem to grow without bounds when the wave arrives there."""
    speed = jnp.full(20_000, 2000.0)

    def loss(speed):
        def step(carry, push):
            u, old = carry
            bend = jnp.pad(u[2:] - 2 * u[1:-1] + u[:-2], 1)
            new = 2 * u - old + (speed * 1e-3 / 10) ** 2 * bend
            return (new.at[30].add(push), u), u[40]

        push = jnp.exp(-(((jnp.arange(400) - 300) / 30.0) ** 2))
        start = jnp.zeros_like(speed), jnp.zeros_like(speed)
        return jnp.sum(scan(step, start, push, adjoint=Revolve(10))[1] ** 2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.block_until_ready(jax.jit(jax.grad(loss))(speed))
        jax.effects_barrier()


@pytest.mark.parametrize("adjoint", [Revolve(10), Reversible()], ids=repr)
def test_a_misfit_of_waves_does_not_warn(adjoint):
    """Waves that have left through the layers, and a misfit that begins with their arrival."""
    solver, params, forcing = string()
    wavelet = forcing.sources * (jnp.arange(250) < 30)[:, None]

    def loss(speed):
        how = {"steps": 250, "forcing": WaveForcing(wavelet), "adjoint": adjoint}
        seen = solver.sampler(jnp.array([[70.0], [250.0]]))
        return jnp.sum(simulate(solver, params._replace(speed=speed), seen, **how)[1] ** 2)

    with warnings.catch_warnings():
        warnings.simplefilter("error", Exploded)
        warnings.filterwarnings("ignore", "the walk back drifted")
        assert np.isfinite(told(jax.grad(loss), params.speed)).all()


def test_short_loops_and_store_all_are_not_watched():
    """Neither has a callback: nothing is told, and nothing can slow it down."""
    for adjoint, steps in ((Revolve(30), 99), (StoreAll(), 6000)):
        gradient = jax.jit(jax.grad(lambda r, a=adjoint, n=steps: mean_height(r, a, n)))
        assert "callback" not in gradient.lower(28.0).as_text()
