"""A program calls functions of the host by their names."""

import jax
import jax.numpy as jnp
import pytest

from diffsim.host import call, named

heard = []


@named
def hear(*numbers):
    heard.append(numbers)


@named
def complain():
    raise KeyboardInterrupt("enough")


@pytest.fixture(autouse=True)
def silence():
    heard.clear()


def said(function, *args):
    """What a compiled function gives, when all that it says is said."""
    result = jax.jit(function)(*args)
    jax.effects_barrier()
    return result


def test_numbers_of_each_type_arrive():
    kinds = "bool", "int16", "int32", "int64", "bfloat16", "float32", "float64"
    values = [jnp.ones((), kind) for kind in kinds]
    said(lambda *values: call(hear, *values), *values)
    assert heard == [(1,) * len(kinds)]
    assert [type(number) for number in heard[0]][::3] == [bool, int, float]


def test_it_is_called_in_each_step_by_a_gradient_too():
    def loss(x):
        def step(x, n):
            jax.lax.cond(n % 2 == 0, lambda: call(hear, n, x), lambda: None)
            return 2 * x, None

        return jax.lax.scan(step, x, jnp.arange(5))[0]

    assert said(jax.grad(loss), 1.5) == 2**5
    assert heard == [(0, 1.5), (2, 6.0), (4, 24.0)]


def test_one_that_has_no_name_is_called_as_well():
    unnamed = []
    said(lambda x: call(unnamed.append, x), 2.5)
    assert unnamed == [2.5]


def test_a_name_stands_for_the_last_function_that_came_with_it():
    """As when a notebook's cell runs again."""
    for kind in (int, float):

        @named
        def again(x, kind=kind):
            heard.append(kind(x))

        said(lambda x, again=again: call(again, x), 2.5)
    assert heard == [2, 2.5]


def test_outside_a_program_and_for_each_of_a_batch():
    call(hear, 1, 2.5)
    jax.effects_barrier()
    said(jax.vmap(lambda x: call(hear, 1, x)), jnp.arange(2.0))
    assert heard == [(1, 2.5), (1, 0.0), (1, 1.0)]


def test_an_interruption_ends_the_program():
    with pytest.raises(jax.errors.JaxRuntimeError, match="KeyboardInterrupt: enough"):
        jax.block_until_ready(jax.jit(lambda x: (call(complain), x + 1)[1])(1.0))
