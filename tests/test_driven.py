"""Gradients with states outside the device: those of store-all, also after an interruption."""

import dataclasses
import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Periodic, Revolve, StoreAll, scan
from diffsim.adjoint import driven, pieces
from diffsim.adjoint.store import folder
from diffsim.adjoint.store import states as store
from diffsim.adjoint.store.codec import Rounded
from diffsim.adjoint.store.states import Disk, Host, Tiered


def through(strategy, store):
    """The strategy with its states elsewhere."""
    return dataclasses.replace(strategy, store=store)


def loss_of(adjoint, visit=lambda count: None):
    """A nonlinear map with all that may ride along: closures, integers, random keys, inputs."""

    def f(weight, carry, x):
        u, moment, key, count = carry
        visit(count)
        noise = 0.1 * jax.random.uniform(key, u.shape)
        new = jnp.tanh(weight @ u + x["a"] * moment[count % 3] + 0.1 * x["b"] + noise)
        carry = new, 1.01 * moment, jax.random.split(key)[0], count + 1
        return carry, (jnp.sum(u**2), count, {"u": u})

    def loss(weight, u, xs):
        init = u, jnp.arange(1.0, 4.0), jax.random.key(5, impl="unsafe_rbg"), 0
        step = functools.partial(f, weight)
        carry, (energy, count, seen) = scan(step, init, xs, adjoint=adjoint)
        weighted = jnp.sum(seen["u"] * count[:, None])
        return jnp.sum(carry[0] ** 2) + jnp.sum(jnp.sin(energy)) + weighted

    return loss


def values(n):
    weight = jnp.sin(jnp.arange(16.0)).reshape(4, 4) / 2
    xs = {"a": jnp.linspace(0, 1, 4 * n).reshape(n, 4), "b": jnp.arange(4 * n).reshape(n, 4) % 3}
    return weight, jnp.ones(4), xs


def gradient(adjoint, n, **how):
    program = jax.value_and_grad(loss_of(adjoint, **how), argnums=(0, 1, 2), allow_int=True)
    return program(*values(n))


@functools.cache
def reference(n):
    return gradient(StoreAll(), n)


def arrays(tree):
    """The leaves that hold numbers."""
    leaves = jax.tree.leaves(tree)
    return [np.asarray(leaf) for leaf in leaves if leaf.dtype != jax.dtypes.float0]


def assert_same(one, other, rtol=1e-13):
    """Relative to each leaf's largest entry."""
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


def assert_identical(one, other):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)


N, BASE = 41, Revolve(4, 2)  # most tests share their compiled programs


@pytest.mark.parametrize(
    ("base", "n"),
    [(Revolve(1, 1), 1), (Revolve(1, 2), N), (Revolve(99, 2), N), (Periodic(4), 12)],
    ids=str,
)
def test_gradients_are_those_of_store_all(base, n):
    """1e-13, as in one program. One step; one slot; a slot for each block; whole blocks only."""
    assert_same(gradient(through(base, Host()), n), reference(n))


def test_gradients_do_not_depend_on_the_store(tmp_path):
    """The same bits from every store, and an empty folder after it."""
    disk = Disk(folder=tmp_path)
    stores = [Host(), disk, Tiered(fast=2, disk=disk)]
    found = [gradient(through(BASE, store), N) for store in stores]
    assert_same(found[0], reference(N))
    assert_identical(found[1], found[0])
    assert_identical(found[2], found[0])
    assert os.listdir(tmp_path) == []


def test_no_more_states_are_kept_than_the_plan_has_slots(monkeypatch):
    """So many at once, not one more, whatever is written behind or read ahead."""
    kept = []
    save = store.States.save

    def counted(states, block, leaves):
        save(states, block, leaves)
        kept.append(len(states.blocks))

    monkeypatch.setattr(store.States, "save", counted)
    gradient(through(BASE, Host()), N)
    assert max(kept) == BASE.plan(N).slots == 4


def test_steps_evaluated_are_those_of_the_plan():
    """And each one once more as its transpose replays the counter, as within one program."""
    base = Revolve(3, 2)
    for calls in ([], []):  # the second program differs from the first in what it calls alone

        def visit(_, calls=calls):
            jax.debug.callback(lambda: calls.append(1))

        gradient(through(base, Host()), 11, visit=visit)
        jax.effects_barrier()
        assert len(calls) == base.evaluations(11) + 11


def test_a_program_is_compiled_once_for_all_gradients_of_a_process(monkeypatch):
    """A new closure of the same step finds the six pieces that the first one has compiled."""
    monkeypatch.setattr(pieces, "_known", {})
    for _ in range(2):
        gradient(through(BASE, Host()), N)
        assert [call._cache_size() for call in pieces._known.values()] == [1] * 6


def test_states_in_single_precision_cost_its_round_off(tmp_path):
    """A damped wave equation is linear in its state: a relative error of 6e-8 in it, now and then,
    is one of less than 1e-6 in the gradient, but not of round-off alone."""
    u = jnp.sin(jnp.arange(64.0))

    def loss(c, adjoint):
        def f(carry, _):
            u, old = carry
            new = 1.99 * u - 0.99 * old + c * (jnp.roll(u, 1) + jnp.roll(u, -1) - 2 * u)
            return (new, u), new[3]

        return jnp.sum(scan(f, (u, u), None, 60, adjoint=adjoint)[1] ** 2)

    c = jnp.linspace(0.1, 0.3, 64)
    expected = jax.grad(loss)(c, StoreAll())
    rounded = Disk(folder=tmp_path, codec=Rounded("float32"))
    error = jax.grad(loss)(c, through(Revolve(3, 2), rounded)) - expected
    assert 1e-12 < np.abs(error).max() / np.abs(expected).max() < 1e-6


def test_traced_values_are_refused(tmp_path):
    """Batching, compiling and a second derivative would run the store at trace time, once."""
    adjoint = through(Revolve(3, 2), Disk(folder=tmp_path))
    weight, u, xs = values(9)
    grad = jax.grad(loss_of(adjoint))
    traced = [
        lambda: jax.jit(grad)(weight, u, xs),
        lambda: jax.vmap(grad, in_axes=(None, 0, None))(weight, jnp.ones((2, 4)), xs),
        lambda: jax.jvp(lambda w: grad(w, u, xs), (weight,), (weight,)),
    ]
    for call in traced:
        with pytest.raises(TypeError, match=r"call jax\.value_and_grad outside jax\.jit"):
            call()
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_values_and_forward_mode_need_no_store(tmp_path):
    """And leave nothing behind."""
    adjoint = through(Revolve(3, 2), Disk(folder=tmp_path))
    weight, u, xs = values(9)
    loss, stored = loss_of(adjoint), loss_of(StoreAll())
    assert_same(jax.jit(loss)(weight, u, xs), stored(weight, u, xs))
    along = [jax.jvp(lambda w, f=f: f(w, u, xs), (weight,), (weight,)) for f in (loss, stored)]
    assert_same(*along)
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_a_second_reversal_after_one_forward_sweep_starts_anew(tmp_path):
    """Jacobians row by row: the first reversal has used up the states, but not the cotangents."""
    _, u, xs = values(9)

    def seen(weight, adjoint):
        def f(u, x):
            return jnp.tanh(weight @ u + x["a"]), u[:2]

        return scan(f, u, xs, adjoint=adjoint)

    weight = values(9)[0]
    _, pull = jax.vjp(lambda w: seen(w, through(Revolve(2, 2), Disk(folder=tmp_path))), weight)
    _, pull_stored = jax.vjp(lambda w: seen(w, StoreAll()), weight)
    bars = jnp.arange(4.0), jnp.arange(18.0).reshape(9, 2)
    for _ in range(2):
        assert_same(pull(bars), pull_stored(bars))


def often(monkeypatch):
    """A note after every block, however slow the disk."""
    monkeypatch.setattr(store.States, "note_is_due", property(lambda states: states.durable))
    monkeypatch.setattr(driven, "STRETCH", 3)


KINDS = {
    "Disk": lambda path: Disk(folder=path),
    "Tiered": lambda path: Tiered(fast=2, disk=Disk(folder=path)),
    "rounded": lambda path: Disk(folder=path, codec=Rounded("bfloat16")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_gradient_goes_on_bit_identically(tmp_path, monkeypatch, caplog, kind):
    """From copies of the folder as it was before every ninth write, in the forward sweep and in the
    reversal: what a killed program would have left there."""
    often(monkeypatch)
    caplog.set_level("INFO")
    copies, count, write = [], [0], folder.Folder.write

    def copied(self, *args):
        count[0] += 1
        if count[0] % 9 == 0:
            copies.append(shutil.copytree(self.path, tmp_path / f"copy{count[0]}"))
        write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(folder.Folder, "write", copied)
        expected = gradient(through(BASE, KINDS[kind](tmp_path / "states")), N)
    went_on = []
    for copy in copies:
        caplog.clear()
        assert_identical(gradient(through(BASE, KINDS[kind](copy)), N), expected)
        went_on += [text for text in caplog.messages if "goes on from" in text]
        assert os.listdir(copy) == []
    assert any("reversed" in text for text in went_on)
    assert any("reversed" not in text for text in went_on)


def killed(path):
    """In a program of its own: a gradient that dies as it is about to rename its 25th file."""
    jax.config.update("jax_enable_x64", True)
    patch = pytest.MonkeyPatch()
    often(patch)
    count, rename = [0], os.rename

    def dying(*args, **how):
        count[0] += 1
        if count[0] == 25:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*args, **how)

    patch.setattr(folder.os, "rename", dying)
    gradient(through(BASE, Disk(folder=path)), N)


def test_a_gradient_killed_in_another_process_goes_on_in_this_one(tmp_path, caplog):
    """The same bits as one that nobody has killed."""
    code = "import sys, test_driven; test_driven.killed(sys.argv[1])"
    program = [sys.executable, "-c", code, str(tmp_path / "states")]
    done = subprocess.run(program, cwd=Path(__file__).parent, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert any(name.endswith(".part") for name in os.listdir(tmp_path / "states"))
    caplog.set_level("INFO")
    found = gradient(through(BASE, Disk(folder=tmp_path / "states")), N)
    assert "goes on from" in caplog.text
    assert os.listdir(tmp_path / "states") == []
    assert_identical(found, gradient(through(BASE, Host()), N))


def interrupt(path, monkeypatch, at):
    """A gradient that stops as it has written ``at`` files."""
    often(monkeypatch)
    count, write = [0], folder.Folder.write

    def stopping(self, *args):
        count[0] += 1
        if count[0] > at:
            raise OSError(28, "No space left on device")
        write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(folder.Folder, "write", stopping)
        with pytest.raises(OSError, match="No space left"):
            gradient(through(BASE, Disk(folder=path)), N)


def test_after_a_full_disk_the_gradient_goes_on(tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, at=20)
    assert "note" in os.listdir(tmp_path)
    found = gradient(through(BASE, Disk(folder=tmp_path)), N)
    assert_identical(found, gradient(through(BASE, Host()), N))
    assert os.listdir(tmp_path) == []


def test_another_problem_does_not_go_on_from_there(tmp_path, monkeypatch):
    """Other values, another plan, or another function of the same run."""
    interrupt(tmp_path, monkeypatch, at=20)
    disk = Disk(folder=tmp_path)
    weight, u, xs = values(N)
    loss = loss_of(through(BASE, disk))
    twice = jax.grad(lambda *args: 2 * loss(*args), argnums=(0, 1, 2), allow_int=True)
    others = [
        ("problem", lambda: jax.grad(loss)(1.01 * weight, u, xs)),
        ("problem", lambda: jax.grad(loss_of(through(Revolve(3, 2), disk)))(weight, u, xs)),
        ("function of the same run", lambda: twice(weight, u, xs)),
    ]
    for what, other in others:
        with pytest.raises(FileExistsError, match=f"an interrupted gradient of another {what}"):
            other()


def test_a_state_damaged_while_the_gradient_runs_is_an_error(tmp_path, monkeypatch):
    """One bit of a file that is read again later."""
    write = folder.Folder.write

    def damaging(self, name, *args):
        write(self, name, *args)
        if name == "state-0":
            data = bytearray((tmp_path / name).read_bytes())
            data[-30] ^= 1
            (tmp_path / name).write_bytes(data)

    monkeypatch.setattr(folder.Folder, "write", damaging)
    with pytest.raises(OSError, match=r"truncated or damaged.*state-0"):
        gradient(through(BASE, Disk(folder=tmp_path)), N)
