"""A batch is done one member after the other where each takes all cores, as a batch elsewhere."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core
from outcome import assert_same
from wave_case import ricker, wave

import diffsim
from diffsim import Reversible, Revolve, Sampled, StoreAll, simulate
from diffsim.batch import one_by_one
from solvers import native
from solvers.wave import Absorbing, Free, WaveForcing, WaveParams

compiled_sweeps = pytest.mark.skipif(
    not native.built(), reason="no compiled sweeps here: built without a C++ compiler, or refused"
)
STEPS = 40
SPEED = jnp.full((12, 15), 2000.0)  # m/s
SHOTS = jnp.stack([jnp.full(7, 40.0), jnp.linspace(30.0, 120.0, 7)], -1)  # m


def energy(adjoint, speed, shot, coupled=False):
    """Of what two receivers see of a shot, or of all shots of a batch that is named."""
    layer = Absorbing(width=3, speed=2000.0, frequency=20.0)
    solver = wave(SPEED.shape, 10.0, 1e-3, ((Free(), layer), (layer, layer)), order=4)
    see = solver.sampler(jnp.array([[30.0, 50.0], [70.0, 100.0]]))
    observe = (lambda state: lax.psum(see(state), "shots")) if coupled else see
    wavelet = WaveForcing(jnp.asarray(ricker(1e-3 * np.arange(STEPS), 20.0, 0.02))[:, None])
    how = {"steps": STEPS, "forcing": wavelet, "adjoint": adjoint}
    return jnp.sum(simulate(solver, WaveParams(speed, shot[None]), observe, **how)[1] ** 2)


def loops_around(primitive: str, jaxpr, within=()):
    """The trip counts of the loops around each equation of a primitive, outermost first."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == primitive:
            yield within
        count = (eqn.params["length"],) if eqn.primitive.name == "scan" else ()
        for leaf in jax.tree.leaves(eqn.params):
            inner = getattr(leaf, "jaxpr", leaf)
            if isinstance(inner, core.Jaxpr):
                yield from loops_around(primitive, inner, (*within, *count))


@compiled_sweeps
@pytest.mark.parametrize("adjoint", [Revolve(3, block=4), Reversible(), Sampled(2)], ids=repr)
def test_a_loop_over_shots_is_around_that_over_steps(adjoint):
    """And around no other one: or each step would copy the fields of all shots."""

    def of(speed, shot):
        return energy(adjoint, speed, shot)

    def along(speed, shot):
        return jax.jvp(lambda v: of(v, shot), (speed,), (speed,))[1]

    def each(f):
        return jax.vmap(f, (None, 0))

    def total(speed, shots):
        return jnp.sum(each(of)(speed, shots))

    for f in each(of), each(jax.value_and_grad(of)), each(along), jax.grad(total):
        around = loops_around("twin", jax.make_jaxpr(f)(SPEED, SHOTS).jaxpr)
        in_loops = [loops for loops in around if len(loops) > 1]
        assert in_loops, "no sweep of a step in a batch: nothing was looked at"
        assert all(loops[0] == len(SHOTS) not in loops[1:] for loops in in_loops)


def test_a_step_without_sweeps_stays_a_batch():
    """A small state of many members is best batched: no loop is as long as there are members."""

    def member(a):
        return diffsim.scan(lambda u, _: (jnp.sin(a * u), None), a, None, 9, adjoint=Revolve(3))[0]

    jaxpr = jax.make_jaxpr(jax.vmap(jax.grad(member)))(jnp.linspace(0, 1, 77)).jaxpr
    around = list(loops_around("sin", jaxpr))
    assert around
    assert not any(77 in loops for loops in around)


@pytest.mark.parametrize("adjoint", [Revolve(3, block=4), Reversible()], ids=repr)
def test_a_sum_over_a_named_batch_couples_its_shots(adjoint):
    """What is seen is summed over all shots in each step: by ``StoreAll()`` JAX batches it. To
    1e-12 of the largest entry, some hundred roundings."""

    def outcome(adjoint):
        gradient = jax.value_and_grad(lambda v, shot: energy(adjoint, v, shot, coupled=True))
        return jax.jit(jax.vmap(gradient, (None, 0), axis_name="shots"))(SPEED, SHOTS)

    for ours, theirs in zip(outcome(adjoint), outcome(StoreAll()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


def bent(a, b, i):
    """Of two arrays and an integer, as pytrees, with a result that no argument but one moves."""
    return {"sum": jnp.sin(a) @ b["b"] * i, "of b": jnp.cos(b["b"]), "i": i + 1}


AXES = [*itertools.product([0, None], [1, 0, None], [0, None])][:-1]  # but for no batch at all
ARGS = jnp.arange(6.0).reshape(2, 3), {"b": jnp.array([0.3, -0.1, 0.7])}, jnp.int32(3)


@pytest.mark.parametrize("axes", AXES, ids=repr)
def test_one_by_one_is_the_function_itself(axes):
    """In a batch of any of its arguments, of batches, in forward mode and in reverse, inside of
    a batch and outside."""
    batch = [
        arg if d is None else jax.tree.map(lambda leaf, d=d: jnp.stack([leaf, 2 * leaf], d), arg)
        for arg, d in zip(ARGS, axes, strict=True)
    ]

    def outcomes(f):
        smooth = lambda a, b, i: f(a, b, i)["sum"] @ jnp.arange(1.0, 3.0)  # noqa: E731
        gradient = jax.grad(smooth, argnums=(0, 1))
        together = jax.vmap(f, axes)
        total = lambda a, b: jnp.sum(together(a, b, batch[2])["sum"] ** 2)  # noqa: E731
        along = lambda a: together(a, *batch[1:])["sum"]  # noqa: E731
        twice = jax.vmap(jax.vmap(f, axes), (None, None, 0))
        return (
            together(*batch),
            jax.vmap(gradient, axes)(*batch),
            jax.grad(total, argnums=(0, 1))(*batch[:2]),
            jax.jvp(along, (batch[0],), (jnp.cos(batch[0]),)),
            jax.jvp(jax.grad(total), batch[:2], batch[:2]),
            twice(*batch[:2], jnp.stack([batch[2], -batch[2]])),
        )

    assert_same(outcomes(one_by_one(bent)), outcomes(bent), rtol=1e-14)


def test_what_nobody_needs_of_one_by_one_is_not_computed():
    """Nor are the arguments that it alone reads: a loop would keep them for every step."""

    @one_by_one
    def both(x, y):
        return 2 * x, jnp.sin(y)

    def program(f):
        return jax.jit(f).lower(1.0, 2.0).as_text()

    assert "sine" in program(both)
    assert "sine" not in program(lambda x, y: both(x, y)[0])
