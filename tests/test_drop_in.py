"""Programs as people write them for ``jax.lax.scan``, with ``scan`` swapped and nothing else.

Each takes the ``scan`` that it uses, and gives a scalar function with what it also returns. The
values, gradients, products with the Hessian and batches must be those of ``jax.lax.scan``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from outcome import assert_same

import diffsim
from diffsim import Multilevel, Periodic, Revolve


class LSTMState(NamedTuple):
    hidden: jax.Array
    cell: jax.Array


def lstm(scan):
    """Predict the next value of a signal; weights in nested dicts, a batch in the carry."""
    size, batch, length = 5, 3, 21

    def cell(params, state, x):
        gates = x @ params["x"]["w"] + state.hidden @ params["h"]["w"] + params["b"]
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new = jax.nn.sigmoid(f + 1) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(new), new)

    def loss(params, signal):
        def step(state, x):
            state = cell(params, state, x)
            return state, state.hidden @ params["out"]

        zero = jnp.zeros((batch, size))
        state, seen = scan(step, LSTMState(zero, zero), signal[:-1])
        return jnp.mean((seen - signal[1:]) ** 2), state

    keys = jax.random.split(jax.random.key(1), 3)
    draw = functools.partial(jax.random.normal, dtype=float)
    params = {
        "x": {"w": draw(keys[0], (1, 4 * size))},
        "h": {"w": draw(keys[1], (size, 4 * size)) / 2},
        "b": jnp.zeros((1, 4 * size)),
        "out": draw(keys[2], (size, 1)),
    }
    phase = jnp.arange(float(batch))[None, :, None]
    signal = jnp.sin(0.4 * jnp.arange(float(length))[:, None, None] + phase)
    return loss, (params, signal)


def runge_kutta(scan):
    """Lotka-Volterra by the 3/8 rule, times as inputs, cubic Hermite output between the steps."""

    def rhs(y, rates):
        hare, lynx = y
        a, b, c, d = rates
        return jnp.stack([hare * (a - b * lynx), lynx * (c * hare - d)])

    def solve(rates, start, times):
        def step(y, interval):
            t, h = interval
            k1 = rhs(y, rates)
            k2 = rhs(y + h * k1 / 3, rates)
            k3 = rhs(y + h * (k2 - k1 / 3), rates)
            k4 = rhs(y + h * (k1 - k2 + k3), rates)
            new = y + h / 8 * (k1 + 3 * k2 + 3 * k3 + k4)
            return new, (t, h, y, new, k1, rhs(new, rates))

        return scan(step, start, (times[:-1], jnp.diff(times)))

    def dense(pieces, t):
        starts, *_ = pieces
        i = jnp.searchsorted(starts, t, side="right") - 1
        t0, h, y0, y1, k0, k1 = (piece[i] for piece in pieces)
        s = (t - t0) / h
        curve = (1 - s) * y0 + s * y1
        bend = (1 - 2 * s) * (y1 - y0) + (s - 1) * h * k0 + s * h * k1
        return curve + s * (s - 1) * bend

    def loss(rates, start, times):
        last, pieces = solve(rates, start, times)
        seen = jax.vmap(functools.partial(dense, pieces))(jnp.linspace(0.1, 5.9, 12))
        return jnp.sum(jnp.log(seen) ** 2), (last, seen)

    times = jnp.cumsum(jnp.concatenate([jnp.zeros(1), jnp.linspace(0.1, 0.3, 30)]))
    return loss, (jnp.array([1.1, 0.4, 0.1, 0.4]), jnp.array([8.0, 3.0]), times)


class AdamState(NamedTuple):
    count: jax.Array
    mean: jax.Array
    square: jax.Array
    schedule: None = None


def adam(scan):
    """Hypergradient: the loss after training, by the learning rate and the penalty's logarithm."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, held = jax.random.normal(keys[0], (2, 12, 4))
    truth = jax.random.normal(keys[1], (4,))
    noise = 0.3 * jax.random.normal(keys[2], (12,))

    def train_loss(w, penalty):
        return jnp.mean((inputs @ w - inputs @ truth - noise) ** 2) + penalty * jnp.sum(w**2)

    def final_loss(hyper):
        def step(carry, _):
            w, state = carry
            value, g = jax.value_and_grad(train_loss)(w, jnp.exp(hyper["penalty"]))
            count = state.count + 1
            mean = 0.9 * state.mean + 0.1 * g
            square = 0.99 * state.square + 0.01 * g**2
            scaled = mean / (1 - 0.9**count) / (jnp.sqrt(square / (1 - 0.99**count)) + 1e-8)
            return (w - hyper["rate"] * scaled, AdamState(count, mean, square)), value

        zero = jnp.zeros(4)
        (w, state), losses = scan(step, (zero, AdamState(0, zero, zero)), None, length=25)
        return jnp.mean((held @ (w - truth)) ** 2), (w, state, losses)

    return final_loss, ({"rate": 0.05, "penalty": -3.0},)


def kalman(scan):
    """A filter with missing observations, its likelihood, and the smoother back in time."""

    def likelihood(noise, observed, present):
        dynamics = jnp.array([[1.0, 0.1], [-0.1, 0.97]])
        q, r = jnp.exp(noise["q"]) * jnp.eye(2), jnp.exp(noise["r"])

        def update(mean, cov, y):
            spread = cov[0, 0] + r
            gain = cov[:, 0] / spread
            gap = y - mean[0]
            evidence = -0.5 * (jnp.log(spread) + gap**2 / spread)
            return mean + gain * gap, cov - jnp.outer(gain, cov[0]), evidence

        def forward(belief, inputs):
            y, seen = inputs
            ahead = dynamics @ belief[0], dynamics @ belief[1] @ dynamics.T + q
            mean, cov, evidence = lax.cond(seen, update, lambda m, c, _: (m, c, 0.0), *ahead, y)
            return (mean, cov), (mean, cov, ahead, evidence)

        def backward(after, inputs):
            mean, cov, (mean_ahead, cov_ahead) = inputs
            gain = jnp.linalg.solve(cov_ahead, dynamics @ cov).T
            smooth = mean + gain @ (after - mean_ahead)
            return smooth, smooth

        start = jnp.zeros(2), jnp.eye(2)
        (mean, _), (means, covs, ahead, evidence) = scan(forward, start, (observed, present))
        rest = jax.tree.map(lambda a: a[1:], ahead)
        _, smoothed = scan(backward, mean, (means[:-1], covs[:-1], rest), reverse=True)
        return evidence.sum() + 0.1 * jnp.sum(smoothed**2), (means, smoothed)

    observed = jnp.cos(0.3 * jnp.arange(26.0))
    present = jnp.arange(26) % 4 != 2
    return likelihood, ({"q": -2.0, "r": -1.0}, observed, present)


def metropolis(scan):
    """Langevin proposals, accepted or not; the key, counts and flags ride in the carry."""

    def energy(x, width):
        return jnp.sum(x**4 / 4 - x**2 / 2 + x[0] * x[1] / width)

    def mean_energy(width, step_size, key):
        def step(carry, _):
            key, x, accepted = carry["key"], carry["x"], carry["accepted"]
            key, move, toss = jax.random.split(key, 3)
            slope = jax.grad(energy)(x, width)
            noise = jax.random.normal(move, x.shape)
            proposal = x - step_size * slope + jnp.sqrt(2 * step_size) * noise
            gain = energy(x, width) - energy(proposal, width)
            yes = jnp.log(jax.random.uniform(toss)) < gain
            x = jnp.where(yes, proposal, x)
            return {"key": key, "x": x, "accepted": accepted + yes}, (energy(x, width), yes, toss)

        carry = {"key": key, "x": jnp.array([0.5, -0.5]), "accepted": 0}
        carry, (energies, *rest) = scan(step, carry, length=30)
        return energies.mean(), (carry, rest)

    return mean_energy, (1.5, 0.1, jax.random.key(7))


PROGRAMS = [lstm, runge_kutta, adam, kalman, metropolis]


def swapped(adjoint):
    """The one change to somebody's program."""
    return functools.partial(diffsim.scan, adjoint=adjoint)


def derivatives(program, scan):
    """Value, gradient, Hessian product and a batch, of all arguments that have a derivative."""
    f, args = program(scan)
    smooth = [i for i, a in enumerate(args) if jnp.issubdtype(dtype(a), jnp.inexact)]

    def of_smooth(moved):
        return f(*[moved.get(i, a) for i, a in enumerate(args)])

    def everything(moved):
        gradient = jax.value_and_grad(of_smooth, has_aux=True)
        along = jax.tree.map(lambda a: jnp.ones_like(a) / 3, moved)
        bent = jax.jvp(lambda m: gradient(m)[1], (moved,), (along,))[1]
        pair = jax.tree.map(lambda a: jnp.stack([a, 1.01 * a]), moved)
        return of_smooth(moved), gradient(moved), bent, jax.vmap(gradient)(pair)[1]

    return jax.jit(everything)({i: args[i] for i in smooth})


def dtype(tree):
    return jax.dtypes.result_type(jax.tree.leaves(tree)[0])


@functools.cache
def with_lax(program):
    return derivatives(program, lax.scan)


PAIRS = [(program, Revolve(3, 2)) for program in PROGRAMS] + [(adam, Periodic(4))]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "adjoint"), PAIRS, ids=lambda v: getattr(v, "__name__", None))
def test_every_derivative_is_that_of_the_program_with_lax_scan(program, adjoint):
    """1e-11: the same operations, of which XLA rounds some a·b + c differently; a Hessian product
    over 30 steps of a nonlinear recursion amplifies that."""
    assert_same(derivatives(program, swapped(adjoint)), with_lax(program), rtol=1e-11)


@pytest.mark.parametrize("adjoint", [Revolve(2, 4), Multilevel(8)], ids=repr)
def test_a_training_loop_around_a_swapped_loop_is_swapped_too(adjoint):
    """Gradient descent as a scan, whose step takes the gradient of another scan."""

    def train(scan):
        loss, (params, signal) = lstm(scan)

        def step(params, rate):
            (value, _), g = jax.value_and_grad(loss, has_aux=True)(params, signal)
            return jax.tree.map(lambda p, g: p - rate * g, params, g), value

        return jax.jit(lambda params: scan(step, params, jnp.full(9, 0.3)))(params)

    params, losses = train(swapped(adjoint))
    assert_same((params, losses), train(lax.scan), rtol=1e-12)
    assert losses[-1] < losses[0]
