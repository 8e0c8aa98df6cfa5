"""A field spread over several devices stays spread, kept states included."""

import os
import subprocess
import sys
import textwrap

import pytest

SETUP = """
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import diffsim

jax.config.update("jax_enable_x64", True)
mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
ours = partial(diffsim.scan, adjoint=diffsim.Revolve(7, 4))
spread = partial(jax.device_put, device=NamedSharding(mesh, P("x")))
u = spread(jnp.sin(jnp.arange(64.0 * 66).reshape(64, 66)))
c = spread(jnp.full((64, 66), 0.1))


def leapfrog(scan, u, c, neighbours, total):
    def step(carry, _):
        u, old = carry
        new = 2 * u - old + c * (neighbours(u) - 2 * u)
        return (new, u), total(jnp.sum(new**2))

    return scan(step, (u, 0.9 * u), None, 40)[1].sum()


def buffers(text):
    return set(re.findall(r"f64\\[7,[0-9,]+\\]", text))


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * np.abs(other).max())
"""

GLOBAL = """
def loss(scan, u, c):
    return leapfrog(scan, u, c, lambda u: jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0), lambda e: e)


def gradient(scan):
    return jax.jit(jax.grad(partial(loss, scan), argnums=(0, 1)))


compiled = gradient(ours).lower(u, c).compile()
text = compiled.as_text()
assert buffers(text) == {"f64[7,16,66]"}, buffers(text)
assert "all-gather" not in text
assert all(bar.sharding.spec == P("x") for bar in compiled(u, c))
assert_same(compiled(u, c), gradient(lax.scan)(u, c))
"""

LOCAL = """
def neighbours(u):
    up = lax.ppermute(u[-1:], "x", [(i, (i + 1) % 4) for i in range(4)])
    down = lax.ppermute(u[:1], "x", [(i, (i - 1) % 4) for i in range(4)])
    padded = jnp.concatenate([up, u, down])
    return padded[2:] + padded[:-2]


def loss(scan, u, c):
    return leapfrog(scan, u, c, neighbours, lambda e: lax.psum(e, "x"))


def mapped(f, out):
    return jax.shard_map(f, mesh=mesh, in_specs=(P("x"), P("x")), out_specs=out)


def outside(scan):
    return jax.grad(mapped(partial(loss, scan), P()), argnums=(0, 1))


def inside(scan):
    return mapped(jax.grad(partial(loss, scan), argnums=(0, 1)), P("x"))


for how in (outside, inside):
    compiled = jax.jit(how(ours)).lower(u, c).compile()
    assert buffers(compiled.as_text()) == {"f64[7,16,66]"}
    assert_same(compiled(u, c), jax.jit(how(lax.scan))(u, c))
def bent(s):
    return jax.jit(lambda u, c: jax.jvp(outside(s), (u, c), (c, u))[1])(u, c)
bent = [bent(s) for s in (ours, lax.scan)]
assert_same(*bent)
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [GLOBAL, LOCAL], ids=["by the compiler", "by shard_map"])
def test_kept_states_are_spread_as_the_carry_is(program):
    """Four simulated devices: each keeps 7 slots of its own quarter; gradients are lax.scan's."""
    flags = "--xla_force_host_platform_device_count=4"
    code = textwrap.dedent(SETUP) + textwrap.dedent(program)
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
