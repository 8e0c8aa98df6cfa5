"""Waves in a standard linear solid: what is lost, how fast what is left goes, and what is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wave_case import ricker, shoot, wave

from diffsim import Reversible, simulate
from diffsim.check import Derived
from diffsim.grid import Grid
from solvers import stencil
from solvers.attenuating_wave import (
    Absorbing,
    AttenuatingParams,
    AttenuatingWave,
    Free,
    Periodic,
    Rigid,
    WaveForcing,
)

SPEED, FREQUENCY = 2000.0, 15.0  # m/s, Hz
OMEGA = 2 * np.pi * FREQUENCY
FACE = {"F": Free(), "R": Rigid(), "P": Periodic(), "A": Absorbing(3, SPEED, FREQUENCY)}


def attenuating(shape, spacing, dt, faces=Free(), **fields):  # noqa: B008
    """A solver with cubic cells and, unless ``faces`` is a tuple, the same face everywhere."""
    boundary = faces if isinstance(faces, tuple) else ((faces, faces),) * len(shape)
    grid = Grid(shape=shape, spacing=(float(spacing),) * len(shape))
    return AttenuatingWave(grid=grid, dt=dt, boundary=boundary, frequency=FREQUENCY, **fields)


def record(solver, speed, quality, sources, receivers, wavelet, along=None, moments=None):
    """The data ``[step, receiver]`` of sources that fire together."""
    shape = solver.grid.shape
    medium = (jnp.broadcast_to(jnp.asarray(values, float), shape) for values in (speed, quality))
    moments = None if moments is None else jnp.asarray(moments)
    params = AttenuatingParams(*medium, jnp.asarray(sources, float), moments)
    observe = solver.sampler(jnp.asarray(receivers, float), along)
    forcing = WaveForcing(jnp.repeat(jnp.asarray(wavelet)[:, None], len(sources), 1))
    run = functools.partial(simulate, solver, observe=observe, steps=len(wavelet))
    return np.asarray(jax.jit(lambda p, f: run(params=p, forcing=f)[1])(params, forcing))


def relaxation_times(quality):
    """τε and τσ (s) of a solid whose Q is least at the frequency, in Carcione's words."""
    root = np.sqrt(np.asarray(quality) ** 2 + 1)
    return (root + 1) / quality / OMEGA, (root - 1) / quality / OMEGA


def modulus(omega, quality):
    """``M(ω)`` over the density (m²/s²), scaled to the phase speed at the frequency."""
    strain, stress = relaxation_times(quality)

    def shape(omega):
        return (1 + 1j * omega * strain) / (1 + 1j * omega * stress)

    return SPEED**2 * np.real(shape(OMEGA) ** -0.5) ** 2 * shape(omega)


def line(dt, quality, distances, duration=0.9):
    """Records on a line of nodes whose ends no wave reaches, and the wavelet."""
    solver = attenuating((801,), 5.0, dt)
    wavelet = ricker(dt * np.arange(round(duration / dt)), FREQUENCY, 0.1)
    receivers = 2000.0 + np.asarray(distances)[:, None]
    return record(solver, SPEED, quality, [[2000.0]], receivers, wavelet), wavelet


def exact(wavelet, dt, quality, distance):
    """``f / (2 i k) exp(-i k x)`` at each frequency, with ``k = ω / √M``."""
    count = 20 * len(wavelet)
    omega = 2 * np.pi * np.fft.rfftfreq(count, dt)
    k = omega / np.sqrt(modulus(omega, quality))
    spectrum = np.fft.rfft(wavelet, count)
    spectrum[0] = 0
    spectrum[1:] *= np.exp(-1j * k[1:] * distance) / (2j * k[1:])
    return np.fft.irfft(spectrum, count)[: len(wavelet)]


@pytest.mark.parametrize("quality", [5.0, 40.0])
def test_a_plane_wave_is_damped_and_dispersed_as_the_modulus_says(quality):
    """Second order in time, errors from 1.6 to 0.4 ms: the rate is 2 but for the next term of the
    series, ``(ω dt)²`` of the first at twice the peak frequency: 0.09 at 1.6 ms, a quarter at 0.8.

    Error: the leapfrog's ``(ω dt)²/24`` and at most as much of the trapezoidal rule over Q, of a
    phase of 38 rad: 2e-3 at the peak frequency and 0.4 ms, and eight times that at twice the
    frequency, where the spectrum is a fifth. Differences of order 8 at 27 points per wavelength are
    off by 1e-8. A wave that kept its energy would be off by half of its amplitude and more.
    """
    distance, errors = 800.0, []
    for dt in (1.6e-3, 8e-4, 4e-4):
        seen, wavelet = line(dt, quality, [distance])
        expected = exact(wavelet, dt, quality, distance)
        errors.append(np.abs(seen[:, 0] - expected).max() / np.abs(expected).max())
    assert errors[-1] < 4e-3
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.03)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("quality", [3.0, 30.0, 300.0])
def test_spectral_ratio_of_two_records_gives_quality_and_speed(quality):
    """``k = i ln(P₂/P₁) / Δx`` and ``M = ω²/k²``, of records 25 m apart, less than half a wave.

    At the reference frequency they are those given, an octave off Q is 5/4 of that either way. The
    rule sees ``2/dt tan(ω dt/2)``, which is ``(ω dt)²/12`` more: 1e-4 at 30 Hz, and Q there changes
    by 3/5 of it; the leapfrog multiplies M by a real number, ``1 - (ω dt)²/12``, the speed by half.
    """
    dt = 2e-4
    seen, _ = line(dt, quality, [500.0, 525.0], duration=1.5)
    time = dt * np.arange(len(seen))
    found = {}
    for omega in (OMEGA / 2, OMEGA, 2 * OMEGA):
        near, far = np.exp(-1j * omega * time) @ seen
        k = 1j * np.log(far / near) / 25.0
        m = (omega / k) ** 2
        found[omega / OMEGA] = m.real / m.imag
        if omega == OMEGA:
            assert omega / k.real == pytest.approx(SPEED, rel=(OMEGA * dt) ** 2 / 12)
    assert found[1] == pytest.approx(quality, rel=1e-5)
    assert found[0.5] == pytest.approx(1.25 * quality, rel=1e-4)
    assert found[2] == pytest.approx(1.25 * quality, rel=1e-4)


RANDOM = np.random.default_rng(0)
ROUGH = 2000 + 800 * RANDOM.random((26, 28))
LOSSY = 3 + 40 * RANDOM.random((26, 28))
PLACES = np.array([(13.3, 104.7), (121.1, 131.9)])  # m, between nodes; the first beside a mirror
WAVELET = ricker(1.5e-3 * np.arange(400), 20.0, 0.07)


def test_without_attenuation_it_is_the_wave_equation():
    """To round-off, 1e-12 as over 400 steps of Wave itself; and Q counts by its inverse: from 1e5
    to 1e6 the difference falls tenfold, to 1e-3, as terms in ``1/Q²`` are 1e-5 of it."""
    faces = ((FACE["F"], FACE["A"]), (FACE["R"], FACE["A"]))
    solver = attenuating((26, 28), 10.0, 1.5e-3, faces)
    ends = PLACES[:1], PLACES[1:]
    plain = shoot(wave((26, 28), 10.0, 1.5e-3, faces), ROUGH, *ends, WAVELET[:, None])
    off = [
        np.abs(record(solver, ROUGH, q, *ends, WAVELET) - plain).max() / np.abs(plain).max()
        for q in (1e5, 1e6, 1e30)
    ]
    assert off[2] < 1e-12
    assert off[0] / off[1] == pytest.approx(10, rel=1e-3)


def free_run(solver, steps, speed=ROUGH, quality=LOSSY):
    """All pressures of a run from noise, ``[step, *nodes]`` without their halo."""
    params = AttenuatingParams(jnp.asarray(speed), jnp.asarray(quality), None)
    coefficients, state = solver.coefficients(params), solver.init(params)
    halo = solver.order // 2
    inner, still = (slice(halo, -halo),) * 2, coefficients.kappa == 0

    def field():
        noise = jnp.asarray(RANDOM.standard_normal(still.shape))
        return jnp.where(still, 0, noise)

    p, previous = (solver.frame.mirror(field()) for _ in range(2))
    state = state._replace(pressure=p, previous=previous, lag=0.1 * field())

    def step(state, _):
        return solver.step(coefficients, state, None), state.pressure[inner]

    return np.asarray(jax.jit(lambda s: jax.lax.scan(step, s, None, steps)[1])(state))


@pytest.mark.parametrize(("order", "face"), [(2, Periodic()), (4, Free()), (8, Free())])
def test_energy_is_lost_by_what_the_dashpots_take(order, face):
    """Of kinetic energy, that of the springs, and what dashpots take at each step nothing is
    missing: 1e-12 of the energy, which is a sum of rounded squares. So it never grows.

    With ``m = ∇²p - p̈/c²`` and its sum over time R, as if all were integrated once in time:
    ``E = -½ Σ p'∇²p + ½ Σ (ṗ/c)² + ½ Σ c² (1/δ - 1) R²``, ``ΔE = -Σ c² τσ/(δ dt) (ΔR)²``,
    with ``δ = 1 - τσ/τε``. The step is 0.999 of the limit in a medium of random speed and quality.
    """
    fields = {"order": order, "faces": face}
    params = AttenuatingParams(ROUGH, LOSSY, None)
    dt = 0.999 * attenuating((26, 28), 10.0, 1e-3, **fields).stable_dt(params)
    solver = attenuating((26, 28), 10.0, dt, **fields)
    p = free_run(solver, 300)
    strain, stress = relaxation_times(LOSSY)
    delta = 1 - stress / strain
    square = modulus(1e9, LOSSY).real * (ROUGH / SPEED) ** 2  # c², of infinite frequency

    def laplacian(p):
        p = solver.frame.mirror(jnp.pad(p, order // 2))
        return stencil.laplacian(p, order, solver.grid.spacing)

    bend = np.asarray(jax.vmap(laplacian)(p))[(slice(None), *(slice(order // 2, -order // 2),) * 2)]
    rate = np.diff(p, axis=0) / dt  # at n + 1/2
    m = bend[1:-1] - np.diff(rate, axis=0) / dt / square  # at n from 1 on
    m *= (np.abs(p).max(axis=0) > 0)[None]  # not on free surfaces
    held = delta * rate[1:] / square + dt / 2 * (m - delta * bend[1:-1]) - stress * m  # R (1 - δ)
    held /= 1 - delta
    parts = rate[1:] ** 2 / square, -p[2:] * bend[1:-1], square * (1 / delta - 1) * held**2
    energy = np.sum(sum(parts), axis=(1, 2)) / 2
    taken = np.sum(square * stress / delta / dt * np.diff(held, axis=0) ** 2, axis=(1, 2))
    assert np.all(energy > 0)
    np.testing.assert_allclose(-np.diff(energy), taken, rtol=0, atol=1e-12 * energy[0])
    assert energy[-1] < 0.1 * energy[0]


@pytest.mark.parametrize("quality", [1.0, 50.0])
def test_the_stable_step_is_the_largest(quality):
    """Noise decays at 0.999 of it and explodes at 1.01 of it: the shortest mode between free
    surfaces 25 cells apart has ``cos(π/50) = 0.998`` of the frequency that a boundless grid has."""
    fields = {"order": 2, "faces": Free()}
    medium = np.full((26, 28), SPEED), np.full((26, 28), quality)
    limit = attenuating((26, 28), 10.0, 1e-3, **fields).stable_dt(AttenuatingParams(*medium, None))
    for part, steps in ((0.999, 2000), (1.01, 300)):
        p = free_run(attenuating((26, 28), 10.0, part * limit, **fields), steps, *medium)
        growth = np.abs(p[-1]).max() / np.abs(p[0]).max()
        assert growth < 1 if part < 1 else growth > 1e10


@pytest.mark.parametrize(("moments", "along"), [(None, None), ([[0.0, 0.0, 1.0]], 1)])
def test_source_and_receiver_may_be_swapped(moments, along):
    """Where the quality varies too, as sources drive the modulus like the curvature does; a dipole
    felt as pressure is a pressure source felt as its gradient. Round-off, 1e-12 as of Wave."""
    solver = attenuating((26, 28), 10.0, 1e-3, ((Free(), Rigid()), (Rigid(), Free())))
    a, b = PLACES[:1], PLACES[1:]
    there = record(solver, ROUGH, LOSSY, a, b, WAVELET, moments=moments)
    back = record(solver, ROUGH, LOSSY, b, a, WAVELET, along=along)
    assert there == pytest.approx(back, abs=1e-12 * np.abs(back).max())


def test_layers_absorb_what_attenuates():
    """As from an ordinary wave, 1e-3 of the largest pressure comes back from 20 cells, at most."""
    layer = Absorbing(20, SPEED, FREQUENCY)
    wavelet = ricker(1.5e-3 * np.arange(330), FREQUENCY, 0.08)
    near, far = (
        record(
            attenuating((count,) * 2, 10.0, 1.5e-3, face), SPEED, 20.0, source, receiver, wavelet
        )
        for count, face, source, receiver in (
            (31, layer, [[150.0, 150.0]], [[30.0, 290.0]]),
            (121, Free(), [[600.0, 600.0]], [[480.0, 740.0]]),
        )
    )
    assert near == pytest.approx(far, abs=1e-3 * np.abs(far).max())


def test_pullback_around_a_periodic_axis():
    """Against what JAX derives, as that of the example is: 1e-12, some hundred roundings."""
    boundary = ((FACE["P"], FACE["P"]), (FACE["R"], FACE["A"]))
    solver = attenuating((12, 11), 10.0, 1.5e-3, boundary, order=2)
    random = np.random.default_rng(1)
    medium = (2000 + 300 * random.random(solver.grid.shape), 5 + random.random(solver.grid.shape))
    params = AttenuatingParams(*map(jnp.asarray, (*medium, np.array([[14.0, 71.0]]))))
    forcing = WaveForcing(jnp.asarray(random.standard_normal((12, 1))))

    def gradient(solver):
        def loss(params, forcing):
            out = simulate(solver, params, lambda s: s.pressure, steps=12, forcing=forcing)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(out))

        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(params, forcing))

    for own, derived in zip(gradient(solver), gradient(Derived(solver)), strict=True):
        np.testing.assert_allclose(own, derived, rtol=0, atol=1e-12 * np.abs(derived).max())


def test_what_has_no_meaning_is_refused():
    """Each with its place; a low quality makes high frequencies fast, and the stable step small."""
    solver, params, forcing = AttenuatingWave.example()

    def told(**changes):
        return [
            (r.where, r.text) for r in solver.check(params._replace(**changes), forcing) if r.fatal
        ]

    assert told() == []
    quality = params.quality
    for bad, said in (
        (quality.at[2, 3].set(0.0), "the lowest quality is 0: it must be positive"),
        (quality.at[2, 3].set(jnp.nan), "1 values are not finite, the first at (2, 3)"),
        (quality[1:], "shape (9, 11), but the grid has (10, 11): resample one of them"),
    ):
        ((where, text),) = told(quality=bad)
        assert where == "params.quality"
        assert text.startswith(said)
    assert [where for where, _ in told(quality=0 * quality + 0.2)] == ["solver.dt"]
    assert [where for where, _ in told(sources=params.sources + 1e3)] == ["params.sources"] * 2
    with pytest.raises(ValueError, match=r"quality has shape \(9, 11\), but the grid has"):
        solver.coefficients(params._replace(quality=quality[1:]))
    message = (
        r"Reversible\(\) cannot run AttenuatingWave: a step of AttenuatingWave cannot be undone"
    )
    with pytest.raises(TypeError, match=message):
        simulate(solver, params, lambda s: 0, steps=19, forcing=forcing, adjoint=Reversible())
