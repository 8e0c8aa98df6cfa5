"""How far predicted data are from observed ones: the scalars that are differentiated."""

from abc import ABC, abstractmethod

import jax
import jax.numpy as jnp

from diffsim.solver import frozen


class Misfit(ABC):
    """A scalar that is least where the data agree; differentiable in the predicted ones."""

    @abstractmethod
    def __call__(self, predicted: jax.Array, observed: jax.Array, dt: float) -> jax.Array:
        """The scalar of data ``[step, …]`` that are ``dt`` (s) apart."""

    @abstractmethod
    def units(self, data: str) -> str:
        """The scalar's units, from those of the data."""


@frozen
class LeastSquares(Misfit):
    """``½ dt Σ (predicted - observed)²`` over all steps and receivers."""

    def __call__(self, predicted, observed, dt):
        """In units of the data squared times seconds, such as Pa² s."""
        return dt / 2 * jnp.sum((predicted - observed) ** 2)

    def units(self, data):
        """For example ``Pa^2 s``."""
        return f"{data if data.isalpha() else f'({data})'}^2 s"
