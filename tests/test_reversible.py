"""Walking back: `Reversible` on every solver that can undo its step."""

import inspect
import re
import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import solvers
from diffsim import (
    Grid,
    Host,
    Invertible,
    Periodic,
    Reversible,
    Revolve,
    StoreAll,
    scan,
    simulate,
)
from diffsim.adjoint.reversible import Drifted
from diffsim.solver import RetracingSolver, ReversibleSolver, Solver, added
from solvers import Heat, layers, native
from solvers.wave import Absorbing, Free, Wave, WaveForcing, WaveParams

SOLVERS = [
    cls
    for name in solvers.__all__
    if inspect.isclass(cls := getattr(solvers, name)) and issubclass(cls, Solver)
]
UNDONE = [cls for cls in SOLVERS if issubclass(cls, ReversibleSolver)]
RETRACED = [cls for cls in SOLVERS if issubclass(cls, RetracingSolver)]


def string(adjoint, speed, steps, dtype=jnp.float64):
    """A string that is plucked, with a damper on its first three nodes that no step can undo."""
    nodes = jnp.arange(40, dtype=dtype)
    pluck = jnp.exp(-((nodes - 20) ** 2) / 9)

    def forward(carry, force):
        u, old, damper = carry
        after = 0.9 * damper + (u - old)[:3]
        bend = jnp.roll(u, 1) + jnp.roll(u, -1) - 2 * u
        new = (2 * u - old + speed * bend).at[:3].add(-0.1 * after).at[5].add(force)
        return (new, u, after), new[7], damper

    def backward(carry, force, damper):
        new, u, after = carry
        new = new.at[5].add(-force).at[:3].add(0.1 * after)
        bend = jnp.roll(u, 1) + jnp.roll(u, -1) - 2 * u
        return u, 2 * u - new + speed * bend, damper

    init = pluck, pluck, jnp.zeros(3, dtype)
    force = jnp.sin(jnp.arange(steps, dtype=dtype) / 5)
    (u, *_), seen = scan(Invertible(forward, backward), init, force, adjoint=adjoint)
    return jnp.sum(seen**2) + jnp.sum(u**2)


def gradient(adjoint, steps, dtype=jnp.float64):
    speed = jnp.asarray(0.2 + 0.1 * np.cos(np.arange(40)), dtype)
    return jax.jit(jax.grad(lambda v: string(adjoint, v, steps, dtype)))(speed)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 103])
def test_gradient_is_that_of_storing_all(steps):
    """Lengths that the stretches divide and others; 1e-10 as the rounding of the walk allows."""
    exact = gradient(StoreAll(), steps)
    for stretches in (1, 4):
        ours = gradient(Reversible(stretches), steps)
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-10 * float(jnp.max(abs(exact))))


def test_gradient_in_float32():
    """A thousand steps: 1e-4 of the largest value, some hundred times the rounding of one step."""
    exact = gradient(StoreAll(), 1000)
    ours = gradient(Reversible(), 1000, jnp.float32)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-4 * float(jnp.max(abs(exact))))


@pytest.mark.parametrize(("steps", "states"), [(1, 2), (499, 2), (500, 3), (1000, 5), (10_000, 5)])
def test_a_state_is_kept_every_250_steps_and_no_more_than_four(steps, states):
    """And the one after the last step. Who says how many gets them, in a run as long."""
    assert Reversible().states(steps) == states
    assert Reversible(4).states(steps) == min(4, steps) + 1


def test_memory_is_the_stretches_and_what_a_step_destroys():
    """Twice the steps cost twice the three dampers (24 bytes a step) and five numbers
    of inputs, what is seen and their cotangents, no states."""

    def temporary(steps):
        def loss(speed):
            return string(Reversible(2), speed, steps)

        compiled = jax.jit(jax.grad(loss)).lower(jnp.ones(40)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert (temporary(8000) - temporary(4000)) / 4000 <= 24 + 5 * 8


@pytest.mark.parametrize("cls", UNDONE, ids=lambda cls: cls.__name__)
def test_unstep_undoes_step(cls):
    """To 1e-13 of each array's largest value in the run: a step and its inverse round alike."""
    solver, params, forcing = cls.example()
    coefficients, state = solver.coefficients(params), solver.init(params)
    steps = len(jax.tree.leaves(forcing)[0])

    def there_and_back(state, forcing_n):
        new = solver.step(coefficients, state, forcing_n)
        back = solver.unstep(coefficients, new, forcing_n, solver.keep(state))
        return new, (state, back)

    _, (there, back) = lax.scan(there_and_back, state, forcing, steps)
    for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(back), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-13 * float(jnp.max(jnp.abs(a))))


def with_density(cls):
    """The example in a medium whose density varies."""
    solver, params, forcing = cls.example()
    density = 1000 + 800 * np.random.default_rng(1).random(solver.grid.shape)
    return solver, params._replace(density=jnp.asarray(density)), forcing


# with a density what is compiled is sources and receivers, which other tests hold to plain JAX
RETRACINGS = [(cls.__name__, cls.example, how) for cls in RETRACED for how in (True, False)] + [
    (f"{cls.__name__}, density", partial(with_density, cls), True)
    for cls in RETRACED
    if "density" in cls.Params._fields
]


@pytest.mark.parametrize(
    ("example", "compiled"),
    [(example, how) for _, example, how in RETRACINGS],
    ids=[f"{name}-{'at its best' if how else 'in plain JAX'}" for name, _, how in RETRACINGS],
)
def test_retrace_undoes_step_and_is_its_pullback(example, compiled, monkeypatch):
    """The state before a step to 1e-13 and the cotangents to 1e-12 of each array's largest value in
    the run: a step and its inverse round alike, a cotangent is a sum of some hundred roundings. Of
    cotangents what reaches anything: those of images folded back, none of what is silent for good.

    The memory of layers that damp to a tenth within a step is divided by as much.
    """
    if not compiled:
        monkeypatch.setattr(native, "built", lambda: False)
    solver, params, forcing = example()
    coefficients, state = solver.coefficients(params), solver.init(params)
    steps, random = len(jax.tree.leaves(forcing)[0]), np.random.default_rng(0)
    bar = jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape)), state)
    _, transpose = jax.vjp(solver.step, coefficients, state, jax.tree.map(lambda s: s[0], forcing))
    total = transpose(bar)[0]
    scale, to_params = solver.scale(coefficients), jax.vjp(solver.coefficients, params)[1]

    def there_and_back(state, forcing_n):
        new = solver.step(coefficients, state, forcing_n)
        back, *bars = solver.retrace(
            coefficients, new, forcing_n, solver.scaled(scale, bar), total, scale
        )
        state_bar, sums = solver.unscaled(scale, bars[1], bars[0])
        ours = to_params(sums), state_bar, bars[2]
        sums, state_bar, forcing_bar = solver.pullback(coefficients, state, forcing_n, bar)
        state_bar, before = solver.unscaled(scale, solver.scaled(scale, state_bar), total)
        pulled = to_params(added(before, sums)), state_bar, forcing_bar
        undone = list(zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True))
        return new, (undone, with_derivative(pulled), with_derivative(ours))

    _, (undone, pulled, bars) = lax.scan(there_and_back, state, forcing, steps)
    assert undone
    for pairs, tolerance in ((undone, 1e-13), (zip(pulled, bars, strict=True), 1e-12)):
        for a, b in pairs:
            atol = tolerance * float(jnp.max(jnp.abs(a)))
            np.testing.assert_allclose(b, a, rtol=0, atol=atol)


@pytest.mark.parametrize("cls", RETRACED, ids=lambda cls: cls.__name__)
def test_cotangents_that_are_heard_come_back_from_their_scale(cls):
    """As they are, to 1e-15 of the largest: two roundings. What the first round trip left out, of
    what is silent for good, and folded back, of images, the second one finds so."""
    solver, params, _ = cls.example()
    coefficients, random = solver.coefficients(params), np.random.default_rng(0)
    scale = solver.scale(coefficients)

    def there_and_back(bar):
        return solver.unscaled(scale, solver.scaled(scale, bar), coefficients)[0]

    state = solver.init(params)
    bar = jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape)), state)
    heard = there_and_back(bar)
    for a, b in zip(*map(jax.tree.leaves, (heard, there_and_back(heard))), strict=True):
        largest = float(jnp.max(jnp.abs(a), initial=0))
        assert largest > 0 or not a.size
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-15 * largest)


def layered(density, steps=400, every=1, dtype=jnp.float32):
    """A wave that has left through layers: its solver, its medium, and a loss by an adjoint."""
    layer = Absorbing(width=8, speed=2000.0, frequency=25.0)
    grid = Grid(shape=(24, 26), spacing=(10.0, 10.0))
    solver = Wave(grid=grid, dt=2e-3, order=4, boundary=((layer, layer), (Free(), layer)))
    y, x = np.mgrid[:24, :26]
    bell = np.exp(-((y - 12) ** 2 + (x - 13) ** 2) / 8)
    bell = bell.astype(np.float32)  # the same numbers in both types
    speed, rho, bell = (jnp.asarray(v, dtype) for v in (2000 + x, 1000 + 20 * y, bell))
    sampler = solver.sampler(np.array([[60.0, 80.0]], dtype))

    def loss(speed, adjoint):
        params = WaveParams(speed, None, rho if density else None, bell)
        how = {"steps": steps, "every": every, "adjoint": adjoint}
        return jnp.sum(simulate(solver, params, sampler, **how)[1] ** 2)

    return solver, speed, loss


@pytest.mark.parametrize(("density", "every"), [(False, 1), (True, 1), (False, 20), (False, 2)])
def test_a_walk_back_through_layers_is_as_exact_as_storing(density, every):
    """In float32, through 20 and more restarts of one stretch, which lie between observations or
    several in the steps from one to the next: off from float64, in the mean square, by no more than
    three times what storing all in float32 is. Before step t of T the walk has been rounded 2T - t
    times and what is stored t times: √3 times as much over a run, more where early steps matter
    (1.3 to 2.1 were seen, as versions of XLA round what is stored). The drift of what no restart
    puts right stays below 1e-5 of the field, or a warning would be an error."""

    def gradient(adjoint, dtype):
        solver, speed, loss = layered(density, every=every, dtype=dtype)
        assert 2 < solver.steps_back < 20
        return np.asarray(jax.jit(jax.grad(loss), static_argnums=1)(speed, adjoint), float)

    exact = gradient(StoreAll(), jnp.float64)
    stored, walked = (
        np.linalg.norm(gradient(adjoint, jnp.float32) - exact)
        for adjoint in (StoreAll(), Reversible(1, drift=1e-5))
    )
    assert walked <= 3 * stored


@pytest.mark.parametrize("every", [1, 10])
def test_a_wave_that_comes_from_rest_and_has_left_is_no_drift(every):
    """One stretch, from silence to silence: the walk arrives at 0 but for the rounding of what was
    there between, and that is what drift is measured by. A warning would be an error."""
    layer = Absorbing(width=20, speed=2000.0, frequency=15.0)
    grid = Grid(shape=(60, 60), spacing=(10.0, 10.0))
    solver = Wave(grid=grid, dt=2e-3, order=4, boundary=((layer, layer),) * 2)
    a = (np.pi * 15 * (np.arange(480) * 2e-3 - 0.08)) ** 2
    wavelet = WaveForcing(jnp.asarray(((1 - 2 * a) * np.exp(-a))[:, None], jnp.float32))
    at = jnp.asarray([[300.0, 300.0]], jnp.float32)
    sampler = solver.sampler(at)

    def loss(speed):
        how = {"steps": 480, "forcing": wavelet, "every": every, "adjoint": Reversible()}
        return jnp.sum(simulate(solver, WaveParams(speed, at), sampler, **how)[1] ** 2)

    jax.jit(jax.grad(loss))(jnp.full((60, 60), 2000, jnp.float32)).block_until_ready()
    jax.effects_barrier()


def test_without_restarts_a_walk_back_through_layers_is_lost(monkeypatch):
    """Rounding grows as fast as layers damp: the warning says that the walk has left its path."""
    monkeypatch.setattr(layers, "GROWTH", float("1e300"))
    solver, speed, loss = layered(density=False)
    assert solver.steps_back > 400
    with pytest.warns(Drifted):
        jax.jit(jax.grad(loss), static_argnums=1)(speed, Reversible(1)).block_until_ready()
        jax.effects_barrier()


def test_memory_of_a_walk_back_is_what_lies_on_layers_every_so_many_steps():
    """400 more steps cost ``400 / steps_back`` restarts, each of both levels and both memories on
    all nodes of layers, to 3 %: a step's number and what was seen at it are 3 numbers more."""
    solver, speed, _ = layered(density=False)

    def temporary(steps):
        _, speed, loss = layered(density=False, steps=steps)
        program = jax.jit(jax.grad(loss), static_argnums=1).lower(speed, Reversible(1))
        return program.compile().memory_analysis().temp_size_in_bytes

    kept = jax.eval_shape(solver.keep, solver.init(WaveParams(speed, None)))
    restart = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    more = (799 // solver.steps_back - 399 // solver.steps_back) * restart
    assert temporary(800) - temporary(400) == pytest.approx(more, rel=0.03)


@pytest.mark.parametrize("adjoint", [Revolve(3), Periodic(96)], ids=repr)
def test_checkpointed_steps_are_walked_back_where_they_can_be(adjoint):
    """By `Revolve` in blocks of 128, unless ``walk=False``; the gradient is that by storing all
    either way, in float64 to 1e-13, some hundred roundings: that they grow by 1e6 at the outer edge
    of layers is not to be seen (2e-15 were). A block that is walked back keeps less."""
    solver, speed, loss = layered(density=False, dtype=jnp.float64)
    exact = np.asarray(jax.grad(loss)(speed, StoreAll()))
    replayed = replace(adjoint, walk=False)
    temporary = []
    for strategy in adjoint, replayed:
        program = jax.jit(jax.grad(loss), static_argnums=1).lower(speed, strategy).compile()
        np.testing.assert_allclose(program(speed), exact, rtol=0, atol=1e-13 * np.abs(exact).max())
        temporary.append(program.memory_analysis().temp_size_in_bytes)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(solver.init(WaveParams(speed, None))))
    walked, kept = (strategy.suited(walks=True) for strategy in (adjoint, replayed))
    if isinstance(adjoint, Revolve):
        assert (walked.block, kept.block) == (128, 8)
    else:
        more = kept.states(400) - walked.states(400)
        assert temporary[1] - temporary[0] > 0.5 * more * state


def test_what_cannot_be_walked_back_is_replayed_or_refused():
    """A `Heat` has forgotten; and so has whoever keeps states in a store that Python drives."""
    solver, params, forcing = Heat.example()
    warmth = lambda state: jnp.sum(state.temperature**2)  # noqa: E731
    how = {"steps": len(jax.tree.leaves(forcing)[0]), "forcing": forcing}

    def run(adjoint):
        def total(start):
            given = params._replace(initial=start)
            return jnp.sum(simulate(solver, given, warmth, adjoint=adjoint, **how)[1])

        return jax.grad(total)(params.initial)

    np.testing.assert_allclose(run(Revolve(3)), run(StoreAll()), rtol=1e-12)
    with pytest.raises(TypeError, match="cannot walk this step back"):
        run(Revolve(3, walk=True))
    assert not Revolve(3, store=Host()).suited(walks=True).walk
    with pytest.raises(TypeError, match="leave walk out"):
        Revolve(3, store=Host(), walk=True).suited(walks=True)


@pytest.mark.skipif(not native.built(), reason="no compiled sweeps: XLA makes fields in plain JAX")
@pytest.mark.parametrize("every", [1, 4, 10])
def test_a_step_with_restarts_moves_no_field_but_by_its_sweep(every):
    """Forth and back, seen at each step or now and then, the loop's body around the sweep holds no
    copy and no slice as large as a layer: what a restart reads and writes is done where it is due,
    not at each step."""
    solver, speed, loss = layered(density=False, steps=40, every=every)  # what was seen is small
    program = jax.jit(jax.grad(loss), static_argnums=1).lower(speed, Reversible(1)).compile()
    strip = min(leaf.size for leaf in jax.tree.leaves(solver.init(WaveParams(speed, None)).memory))
    bodies = re.split(r"\n(?=%|ENTRY)", program.as_text())
    for sweep in "leap", "retrace":
        around = [body for body in bodies if f'"diffsim_{sweep}_float32"' in body]
        assert around
        for shape in re.findall(r"= f32\[([\d,]+)\]\S* (?:copy|fusion)\(", "".join(around)):
            assert np.prod([int(n) for n in shape.split(",")]) < strip


def with_derivative(record):
    """The leaves that are no zeros of type ``float0``, which a loop can't carry."""
    return [leaf for leaf in jax.tree.leaves(record) if leaf.dtype != jax.dtypes.float0]


@pytest.mark.parametrize("cls", UNDONE + RETRACED, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("by", ["instruments", "energy"])
def test_gradient_of_a_solver(cls, every, by):
    """By parameters and forcing, observed at every step and at some, in the middle and near a
    corner, or by a function of all that is in a state; 1e-10 of the largest value."""
    solver, params, forcing = cls.example()
    steps = 18
    forcing = jax.tree.map(lambda series: series[:steps], forcing)
    places = [
        [low + part * (high - low) for low, high in solver.grid.extent] for part in (0.5, 0.1)
    ]
    energy = lambda state: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state))  # noqa: E731
    observe = solver.sampler(np.array(places)) if by == "instruments" else energy

    def loss(values, adjoint):
        params, forcing = values
        how = {"steps": steps, "forcing": forcing, "every": every, "adjoint": adjoint}
        out = simulate(solver, params, observe, **how)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(out))

    exact, ours = (
        jax.jit(jax.grad(loss), static_argnums=1)((params, forcing), adjoint)
        for adjoint in (StoreAll(), Reversible(3))
    )
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * float(jnp.max(jnp.abs(a))))


def test_forward_over_reverse():
    """Hessian-vector products, and forward mode, as through `Revolve`; round-off of the walk."""
    speed = jnp.asarray(0.2 + 0.1 * np.cos(np.arange(40)))

    def product(adjoint):
        slope = jax.grad(lambda v: string(adjoint, v, 30))
        return jax.jvp(slope, (speed,), (speed,))[1]

    np.testing.assert_allclose(product(Reversible()), product(Revolve(3)), rtol=1e-9)
    with pytest.raises(NotImplementedError, match="no reverse over forward mode"):
        jax.grad(lambda v: jax.jvp(lambda v: string(Reversible(), v, 9), (v,), (v,))[1])(speed)


def test_a_drift_beyond_the_limit_is_told_with_its_size():
    """float32 drifts by more than 1e-9; the warning comes from inside the compiled program."""
    with pytest.warns(Drifted, match=r"drifted by \d\.\de-\d\d of the field, more than 1.0e-09"):
        gradient(Reversible(drift=1e-9), 100, jnp.float32).block_until_ready()
        jax.effects_barrier()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient(Reversible(), 100, jnp.float32).block_until_ready()
        jax.effects_barrier()


def test_a_wrong_way_back_shows_as_drift():
    """An `unstep` that is not the inverse is found by the run itself."""

    def loss(u):
        wrong = Invertible(lambda u, _: (0.5 * u, u, ()), lambda u, _, __: 1.9 * u)
        return jnp.sum(scan(wrong, u, None, 12, adjoint=Reversible())[1] ** 2)

    with pytest.warns(Drifted):
        jax.grad(loss)(jnp.ones(3))
        jax.effects_barrier()


def test_steps_that_cannot_be_undone_are_refused():
    with pytest.raises(TypeError, match=r"nothing says how to undo it.*Revolve\(checkpoints=…\)"):
        scan(lambda c, _: (c, None), 1.0, None, 3, adjoint=Reversible())
    cls = next(cls for cls in SOLVERS if cls not in UNDONE + RETRACED)
    solver, params, forcing = cls.example()
    steps = len(jax.tree.leaves(forcing)[0])
    message = (
        rf"Reversible\(\) cannot run {cls.__name__}: a step of {cls.__name__} cannot be undone"
    )
    with pytest.raises(TypeError, match=message):
        simulate(solver, params, lambda s: 0, steps=steps, forcing=forcing, adjoint=Reversible())
