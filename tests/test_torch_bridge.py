"""A simulation is a PyTorch function like any other."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffsim import Grid, Revolve, simulate
from solvers.wave import Free, Wave, WaveForcing, WaveParams

SHAPE, STEPS = (9, 10), 12


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs the extra torch")


def as_torch(f):
    return importlib.import_module("diffsim.torch").as_torch(f)


def shoot(model, source, wavelet):
    """Pressure at two receivers; all arguments and the data are of order one."""
    grid = Grid(shape=SHAPE, spacing=(10.0, 10.0))
    solver = Wave(grid=grid, dt=2e-3, order=2, radius=2, boundary=((Free(), Free()),) * 2)
    observe = solver.sampler(jnp.array([[20.0, 30.0], [60.0, 50.0]]))
    params = WaveParams(2000 + 500 * model, 10 * source)
    forcing = WaveForcing(10 * wavelet)
    adjoint = Revolve(2, 4)
    return simulate(solver, params, observe, steps=STEPS, forcing=forcing, adjoint=adjoint)[1]


def arguments(torch):
    random = np.random.default_rng(0)
    arrays = random.random(SHAPE), np.array([[2.3, 4.4]]), random.standard_normal((STEPS, 1))
    return [torch.from_numpy(array).requires_grad_() for array in arrays]


@pytest.fixture(scope="module")
def run():
    """One for all tests, so compiled once for all that ask for the same gradients."""
    pytest.importorskip("torch", reason="needs the extra torch")
    return as_torch(shoot)


def test_simulation_passes_gradcheck(torch, run):
    """Central differences over 1e-6 of values of order one leave about 1e-9."""
    assert torch.autograd.gradcheck(run, arguments(torch), atol=1e-7, rtol=1e-6)


def test_optimiser_fits_the_wavelet(torch, run):
    """A linear problem: 30 iterations of L-BFGS take far more than four digits off the misfit."""
    model, source, true = arguments(torch)
    observed = run(model, source, true).detach()
    wavelet = torch.zeros_like(true, requires_grad=True)
    optimiser = torch.optim.LBFGS([wavelet], max_iter=30, line_search_fn="strong_wolfe")

    def misfit():
        optimiser.zero_grad()
        loss = torch.sum((run(model, source, wavelet) - observed) ** 2)
        loss.backward()
        return loss

    assert optimiser.step(misfit) > 1e4 * misfit()


def test_pytrees_integers_and_what_needs_no_gradient(torch):
    """Traced once for each set of arguments that require a gradient."""
    traces = []

    def f(d, power):
        traces.append(1)
        return {"y": d["a"] ** power * d["b"], "count": power + 1, "none": None}

    run = as_torch(f)
    for _ in range(3):
        a, b = torch.tensor([2.0, 3.0], requires_grad=True), torch.ones(2)
        result = run({"a": a, "b": b}, torch.tensor(3))
        torch.sum(result["y"]).backward()
    assert a.grad.tolist() == [12.0, 27.0]
    assert b.grad is None
    assert result["count"] == 4
    assert not result["count"].requires_grad
    assert result["none"] is None
    assert len(traces) == 1
    with torch.no_grad():
        assert not run({"a": a, "b": b}, torch.tensor(3))["y"].requires_grad
    assert len(traces) == 2  # a program of its own, that keeps nothing


def test_single_precision_stays_single(torch):
    x = torch.ones(3, requires_grad=True)
    y = as_torch(jnp.exp)(x)
    torch.sum(y).backward()
    assert y.dtype == x.grad.dtype == torch.float32


def test_complex_numbers(torch):
    """PyTorch's gradient is the conjugate of JAX's: a function that is not analytic shows it."""
    z = torch.tensor([0.3 + 1j, -1 + 0.5j], dtype=torch.complex128, requires_grad=True)
    f = as_torch(lambda z: (jnp.exp(z) * jnp.conj(z), jnp.real(z) ** 2))
    assert torch.autograd.gradcheck(f, [z])


def test_memory_is_shared(torch):
    """Both ways, without a copy."""
    bridge = importlib.import_module("diffsim.torch")
    tensor = torch.arange(6.0).reshape(2, 3)
    array = bridge._to_jax(tensor)
    (back,) = bridge._to_torch([array])
    assert tensor.data_ptr() == array.unsafe_buffer_pointer() == back.data_ptr()


@pytest.mark.parametrize(
    "view", ["x[1:]", "x[::2]", "x.T", "x[:1].expand(5, 4)", "x[:0]", "x[1, 1]"]
)
def test_views(torch, view):
    """Strides, offsets and no entries at all."""
    x = torch.arange(24.0, dtype=torch.float64).reshape(6, 4)
    x = eval(view).requires_grad_()
    torch.sum(as_torch(lambda x: x**2)(x)).backward()
    np.testing.assert_array_equal(x.grad, 2 * x.detach())


def test_results_may_be_overwritten(torch):
    """No two have the same memory: not those of ``exp``, which keeps its result for the gradient,
    of the identity, or of the same result given twice."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    y, same, again = as_torch(lambda x: (jnp.exp(x), x, x))(x)
    with torch.no_grad():
        for result in y, same, again:
            result.add_(5)
    assert y.tolist() == [6.0] * 3
    assert same.tolist() == again.tolist() == [5.0] * 3
    assert x.tolist() == [0.0] * 3
    torch.sum(y + same).backward()
    assert x.grad.tolist() == [2.0] * 3


def test_overwriting_an_argument_before_the_gradient(torch):
    """Its memory is JAX's too: PyTorch notices as it does for its own functions."""
    x = torch.ones(3, requires_grad=True)
    y = as_torch(jnp.sin)(x)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.sum(y).backward()


def test_memory_is_freed_with_the_graph(torch):
    """What a gradient needed is gone with JAX's next call, although the loss is still there."""
    size = 1237
    kept = lambda: [a for a in jax.live_arrays() if a.shape == (size,)]  # noqa: E731
    x = torch.ones(size, requires_grad=True)
    loss = torch.sum(as_torch(lambda x: jnp.sin(jnp.exp(x)))(x))
    assert kept()
    loss.backward()
    x.grad = None
    jax.jit(jnp.sin)(1.0)
    assert not kept()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


# --- what is refused


def test_second_derivatives(torch):
    x = torch.ones(3, requires_grad=True)
    loss = torch.sum(as_torch(jnp.sin)(x)) + torch.sum(x**2)
    with pytest.raises(NotImplementedError, match="second derivatives, which as_torch has not"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_arguments_that_are_no_tensors(torch):
    with pytest.raises(TypeError, match=r"args\[0\]\['a'\] is a ndarray: give tensors"):
        as_torch(lambda d: d["a"])({"a": np.ones(3)})


def test_other_devices(torch):
    with pytest.raises(ValueError, match=r"args\[0\] is on meta, and JAX has \['cpu'"):
        as_torch(jnp.sin)(torch.ones(3, device="meta"))


def test_double_precision_where_jax_has_none(torch):
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(
            TypeError, match=r"args\[0\] is torch.float64, and JAX is set to single"
        ):
            as_torch(jnp.sin)(torch.ones(3, dtype=torch.float64))
    finally:
        jax.config.update("jax_enable_x64", True)


def test_without_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "diffsim.torch", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'diffsim-adjoint\[torch\]'"):
        importlib.import_module("diffsim.torch")
