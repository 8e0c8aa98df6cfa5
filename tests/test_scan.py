"""``diffsim.scan`` is ``lax.scan`` with another memory."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffsim import Periodic, Reversible, Revolve, StoreAll, scan
from diffsim.adjoint.schedule.splits import fewest_advances

STRATEGIES = [Periodic(1), Periodic(4), Periodic(99), Revolve(1, 1), Revolve(3, 2), Revolve(99)]
each_strategy = pytest.mark.parametrize("adjoint", STRATEGIES, ids=repr)


def system(key=0):
    """A nonlinear map with all that may ride along: closures, integers, keys of dicts, inputs."""
    keys = jax.random.split(jax.random.key(key), 3)
    weight = jax.random.normal(keys[0], (4, 4)) / 3
    table = jnp.arange(6) % 4

    def run(weight, init, xs, adjoint, length=None, **how):
        def f(carry, x):
            u, moment, count = carry["u"], carry["moment"], carry["count"]
            push = 0.1 * jnp.cos(u) if x is None else x["a"] * moment[count % 3] + 0.1 * x["b"]
            new = jnp.tanh(weight @ u + push[table[count % 6]])
            carry = {"u": new, "moment": 1.01 * moment, "count": count + 1, "none": None}
            return carry, (jnp.sum(u**2), count, {"u": u})

        return scan(f, init, xs, length, adjoint=adjoint, **how)

    init = {"u": jnp.ones(4), "moment": jnp.arange(1.0, 4.0), "count": 0, "none": None}
    return run, weight, init


def inputs(n):
    return {"a": jnp.linspace(0, 1, 4 * n).reshape(n, 4), "b": jnp.arange(4 * n).reshape(n, 4) % 3}


def loss_of(run, adjoint, **how):
    def loss(weight, init, xs):
        carry, (energy, count, seen) = run(weight, init, xs, adjoint, **how)
        weighted = jnp.sum(seen["u"] * count[:, None])
        return jnp.sum(carry["u"] ** 2) + jnp.sum(jnp.sin(energy)) + weighted

    return loss


def assert_same(one, other, rtol=1e-13):
    """Relative to each leaf's largest entry; float0 leaves only have to be there."""
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(np.asarray(b)).max())


@functools.cache
def reference(n):
    run, weight, init = system()
    gradient = jax.value_and_grad(loss_of(run, StoreAll()), argnums=(0, 1, 2), allow_int=True)
    return jax.jit(gradient)(weight, init, inputs(n))


@each_strategy
@pytest.mark.parametrize("n", [1, 2, 7, 12, 16, 31])
def test_gradients_of_carry_inputs_and_closures_are_those_of_lax_scan(adjoint, n):
    """1e-13: same operations in the same order, but for how XLA rounds a·b + c. N = 1, primes,
    fewer steps than slots and remainders that are no whole block are among the n."""
    run, weight, init = system()
    gradient = jax.value_and_grad(loss_of(run, adjoint), argnums=(0, 1, 2), allow_int=True)
    assert_same(jax.jit(gradient)(weight, init, inputs(n)), reference(n))


@pytest.mark.parametrize(
    "adjoint", [pytest.param(Periodic(4), marks=pytest.mark.slow), Revolve(3, 2)], ids=repr
)
def test_without_jit_with_no_inputs_and_in_reverse(adjoint):
    run, weight, init = system()
    for how, xs in (
        ({"length": 9}, None),
        ({"reverse": True}, inputs(9)),
        ({"unroll": 3}, inputs(9)),
    ):
        args = weight, init, xs
        ours = jax.value_and_grad(loss_of(run, adjoint, **how), argnums=(0, 1), allow_int=True)
        stored = jax.value_and_grad(loss_of(run, StoreAll(), **how), argnums=(0, 1), allow_int=True)
        assert_same(ours(*args), stored(*args))
        assert_same(run(*args, adjoint, **how), run(*args, StoreAll(), **how))


def test_vmap_over_everything():
    """Batched carry, inputs and closures; integer leaves of the carry batched too."""
    run, weight, init = system()
    loss = loss_of(run, Revolve(3, 2))
    batch = functools.partial(jax.tree.map, lambda a: jnp.stack([a, a + a // 2]))
    args = batch(weight), batch(init), batch(inputs(11))
    together = jax.vmap(jax.grad(loss))(*args)
    alone = [jax.grad(loss)(*jax.tree.map(lambda a, i=i: a[i], args)) for i in range(2)]
    assert_same(together, jnp.stack(alone))


def test_hessian_vector_product_by_forward_over_reverse():
    """The backward pass is plain JAX itself, so ``jvp(grad)`` goes through it."""
    run, weight, init = system()

    def product(adjoint):
        gradient = jax.grad(lambda w: loss_of(run, adjoint)(w, init, inputs(11)))
        return jax.jit(lambda w, v: jax.jvp(gradient, (w,), (v,))[1])(weight, weight.T)

    assert_same(product(Revolve(3, 2)), product(StoreAll()), rtol=1e-12)


def test_a_custom_transpose_that_closes_over_constants_stays_in_use():
    """Constants that nobody differentiates get no cotangent, so a step may hide them."""
    constant = jnp.arange(3.0)

    @jax.custom_vjp
    def double(x):
        return 2 * x + 0 * constant

    double.defvjp(lambda x: (double(x), None), lambda _, bar: (7 * bar,))
    gradient = jax.jit(
        jax.grad(
            lambda u: jnp.sum(
                scan(lambda c, _: (double(c), None), u, None, 5, adjoint=Revolve(2, 1))[0]
            )
        )
    )
    np.testing.assert_allclose(gradient(constant), 7.0**5, rtol=1e-15)


@pytest.mark.parametrize(
    ("length", "slots", "block"), [(1, 1, 1), (7, 2, 1), (40, 3, 1), (64, 4, 2), (61, 3, 4)]
)
def test_steps_evaluated_are_those_of_the_closed_form(length, slots, block):
    """A counter on the host: t(l, s) + l blocks; the reversal of a step calls it once more, as the
    counter is part of the primal that its transpose replays."""
    calls = []

    def f(carry, _):
        jax.debug.callback(lambda _: calls.append(1), carry)
        return jnp.sin(carry), None

    adjoint = Revolve(slots, block)
    jax.grad(lambda u: scan(f, u, None, length, adjoint=adjoint)[0])(0.3)
    jax.effects_barrier()
    blocks = -(-length // block)
    missing = blocks * block - length  # the last block may be short
    expected = (fewest_advances(blocks, slots) + blocks) * block - missing
    assert adjoint.evaluations(length) == expected
    assert len(calls) == expected + length


def field_step(shape=(64, 65)):
    """A leapfrog on a field that no other array of the program resembles."""

    def f(carry, _):
        u, old, c = carry
        new = 2 * u - old + c * (jnp.roll(u, 1, 0) + jnp.roll(u, -1, 1) - 2 * u)
        return (new, u, c), new[3, 5]

    zero = jnp.zeros(shape)
    return f, (zero.at[5, 5].set(1.0), zero, jnp.full(shape, 0.1))


def compiled_gradient(adjoint, steps):
    f, (u, old, c) = field_step()

    def loss(u, c):
        _, seen = scan(f, (u, old, c), None, steps, adjoint=adjoint)
        return jnp.sum(seen**2)

    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(u, c).compile()


def test_the_slot_buffer_is_never_copied():
    """The compiled program fills the buffer once and then only reads and writes single slots."""
    slots = 11
    text = compiled_gradient(Revolve(slots, block=4), 400).as_text()
    buffer = rf"\S+\[{slots},64,65\]\S*"
    assert re.search(rf"{buffer} dynamic-update-slice\(", text)
    assert not re.findall(rf"= {buffer} copy\(", text)
    assert not re.findall(rf"{buffer}[^=\n]* conditional\(", text)


def test_memory_is_the_slots_and_a_small_constant_of_states():
    """Ten more slots cost ten more states (to a tenth of one), whatever the number of steps; all
    else, two blocks of states included, fits in three blocks."""
    block, state = 4, 3 * 64 * 65 * 8

    def temporary(slots, steps):
        compiled = compiled_gradient(Revolve(slots, block), steps)
        return compiled.memory_analysis().temp_size_in_bytes / state

    base = temporary(10, 400)
    assert abs(temporary(20, 400) - base - 10) < 0.1
    assert abs(temporary(10, 4000) - base) < 0.5  # what was seen at each step is 0.15 of a state
    assert base < 10 + 3 * block


def test_a_short_block_is_no_loop_and_keeps_what_its_transposes_need():
    """No array of eight states; a step more costs the two of a state's three fields that its
    transpose reads, to a tenth of a state."""
    state = 3 * 64 * 65 * 8
    four, eight = (compiled_gradient(Revolve(11, block), 400) for block in (4, 8))
    assert not re.findall(r"\[(8|4,2),64,65\]", eight.as_text())
    more = [each.memory_analysis().temp_size_in_bytes / state for each in (four, eight)]
    assert abs(more[1] - more[0] - 4 * 2 / 3) < 0.1


def test_the_program_does_not_grow_with_the_number_of_steps():
    """The step is traced a fixed number of times: as many instructions for 10² as for 10⁵ steps."""
    traced = []

    def f(carry, _):
        traced.append(1)
        return jnp.sin(carry), None

    def instructions(steps):
        traced.clear()
        loss = jax.jit(jax.grad(lambda u: scan(f, u, None, steps, adjoint=Revolve(20))[0]))
        text = loss.lower(0.3).as_text()
        assert len(traced) <= 2  # once to check the arguments, once to keep
        return len(re.findall(r"stablehlo\.sine|stablehlo\.cosine", text))

    assert instructions(104) == instructions(100_000) > 0  # both whole blocks


def test_a_loop_holds_as_many_steps_as_unroll_says():
    """Two if it says nothing; each is a sine or a cosine, of which XLA saves or adds a few."""

    def f(carry, _):
        return jnp.sin(carry), None

    def instructions(unroll):
        loss = lambda u: scan(f, u, None, 100, unroll=unroll, adjoint=Revolve(3, 20))[0]  # noqa: E731
        text = jax.jit(jax.grad(loss)).lower(0.3).compile().as_text()
        return len(re.findall(r"(sine|cosine)\(", text))

    one, two, four = (instructions(unroll) for unroll in (1, 2, 4))
    assert instructions(None) == two > 1.7 * one
    assert four > 1.7 * two


def test_value_and_gradient_take_one_forward_sweep():
    """With a slot for every block each step is evaluated twice: once forward, once in its block."""
    calls = []

    def f(carry, _):
        jax.debug.callback(lambda _: calls.append(1), carry)
        return jnp.sin(carry), carry

    jax.value_and_grad(lambda u: scan(f, u, None, 24, adjoint=Revolve(99, 4))[1].sum())(0.3)
    jax.effects_barrier()
    assert len(calls) == 24 + 20 + 24  # forward, replays of all blocks but the last, reversals


@pytest.mark.parametrize("n", [0, 3])
def test_mistakes_raise_what_lax_scan_raises(n):
    mistakes = [
        lambda scan: scan(lambda c, x: (c, None), 0.0, jnp.ones(3), 4),
        lambda scan: scan(lambda c, x: (c, None), 0.0, (jnp.ones(3), jnp.ones(4))),
        lambda scan: scan(lambda c, x: (c, None), 0.0),
        lambda scan: scan(lambda c, x: (jnp.ones(2), None), jnp.ones(3), None, n),
        lambda scan: scan(lambda c, x: c, 0.0, None, n),
    ]
    for mistake in mistakes:
        with pytest.raises((TypeError, ValueError)) as theirs:
            mistake(lax.scan)
        with pytest.raises(type(theirs.value)) as ours:
            mistake(functools.partial(scan, adjoint=Revolve(2)))
        assert str(ours.value) == str(theirs.value)


def test_zero_steps_give_the_initial_carry():
    carry, ys = scan(lambda c, x: (c + x, c), 1.5, jnp.ones(0), adjoint=Revolve(2))
    assert carry == 1.5
    assert ys.shape == (0,)


def test_a_strategy_must_be_one():
    with pytest.raises(TypeError, match=r"adjoint='revolve' is not a strategy: give StoreAll\(\)"):
        scan(lambda c, x: (c, None), 0.0, None, 3, adjoint="revolve")


@pytest.mark.parametrize("kind", [Revolve, Periodic])
def test_sizes_must_be_positive(kind):
    with pytest.raises(ValueError, match="greater than 0"):
        kind(0)


@pytest.mark.parametrize(
    "adjoint",
    [StoreAll(), Revolve(3), Revolve(3, walk=False), Periodic(4), Reversible(drift=1e-3)],
)
def test_the_name_of_a_strategy_makes_it_again_and_leaves_out_defaults(adjoint):
    assert eval(repr(adjoint)) == adjoint
    assert "None" not in repr(adjoint)
    assert "store" not in repr(adjoint)
