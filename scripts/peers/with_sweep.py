"""SWEEP's JAX propagator; its compiled one needs a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
from sweep.equations import Acoustic, Acoustic3D  # pyright: ignore[reportMissingImports]
from sweep.propagator.jax import PropJax  # pyright: ignore[reportMissingImports]
from sweep.propagator.options import BoundarySaving, Full  # pyright: ignore[reportMissingImports]

VARIANTS = {"store all": Full(), "boundary saving": BoundarySaving()}


def build(case, variant):
    equation = Acoustic if len(case.shape) == 2 else Acoustic3D
    propagator = PropJax(
        equation(spatial_order=case.order, backend="jax"),
        shape=case.shape,
        abcn=case.width,
        dh=case.spacing,
        dt=case.dt,
        memory=VARIANTS[variant],
    )
    source = case.source()[::-1][None]  # its coordinates start with the last axis
    places = case.places()[:, ::-1][None]
    speed = jnp.asarray(case.speed())

    def data(run, speed):
        return run(case.wavelet(), source, places, models=[speed])[0, :, :, 0]

    forward = jax.jit(lambda speed: data(propagator.__call_forward__, speed))
    loss = lambda speed: jnp.sum(data(propagator, speed) ** 2) / 2
    gradient = jax.jit(jax.value_and_grad(loss))
    return lambda: np.asarray(forward(speed)), lambda: np.asarray(gradient(speed)[1])
