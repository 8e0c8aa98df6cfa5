"""Our own solver."""

import jax
import jax.numpy as jnp
import numpy as np

from diffsim import Grid, Reversible, Revolve, Sampled, StoreAll, simulate
from solvers.wave import Absorbing, Wave, WaveForcing, WaveParams

VARIANTS = {
    "StoreAll": StoreAll(),
    "Reversible": Reversible(),
    "Sampled(1)": Sampled(1),  # exact: all that is imaged is stored, as others do
    "Sampled(4)": Sampled(4),  # as often as Devito's examples image
    "Sampled(10)": Sampled(10),  # as often as deepwave's variant does
    "Revolve(22)": Revolve(22),
    "Revolve(8)": Revolve(8, block=4),
    "Revolve(22, block=8)": Revolve(22, block=8),
    "Revolve(100, block=100)": Revolve(100, block=100),
}


def shot(case):
    """The solver, the sampler of its receivers, the forcing, and the parameters of a speed."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    ndim = len(case.shape)
    face = Absorbing(width=case.width, speed=case.fastest, frequency=case.frequency)
    grid = Grid(shape=case.shape, spacing=(case.spacing,) * ndim)
    faces = ((face, face),) * ndim
    solver = Wave(grid=grid, dt=case.dt, order=case.order, boundary=faces)
    source = jnp.asarray(case.source()[None] * case.spacing, case.dtype)
    sampler = solver.sampler(jnp.asarray(case.places() * case.spacing, case.dtype))
    forcing = WaveForcing(jnp.asarray(case.wavelet()[:, None]))
    return solver, sampler, forcing, lambda speed: WaveParams(speed, source)


def build(case, variant):
    solver, sampler, forcing, params = shot(case)

    def data(speed):
        adjoint = VARIANTS[variant]
        return simulate(
            solver, params(speed), sampler, steps=case.steps, forcing=forcing, adjoint=adjoint
        )[1]

    return runs(data, case)


def runs(data, case):
    """The two functions, of one that maps the speed to the data."""
    speed = jnp.asarray(case.speed())
    forward = jax.jit(data)
    gradient = jax.jit(jax.value_and_grad(lambda speed: jnp.sum(data(speed) ** 2) / 2))
    return lambda: np.asarray(forward(speed)), lambda: np.asarray(gradient(speed)[1])
