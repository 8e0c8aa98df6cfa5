"""The scalars that are differentiated: how far data are from observed ones, or their peak."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge

from diffsim.solver import frozen


class Misfit(ABC):
    """A scalar of the data, differentiable in the predicted ones.

    One that compares is least where they agree with the observed ones.
    """

    called: ClassVar[str] = "misfit"

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


@frozen
class Peak(Misfit):
    """The highest value that one receiver sees: ``max over n of predicted[n, receiver]``.

    Observed data do not enter. The gradient is that of the step at which the peak is seen; shared
    evenly where several steps tie.

    Args:
        receiver: its number, from 0
    """

    called: ClassVar = "peak"

    receiver: Annotated[int, Ge(0)] = 0

    def __call__(self, predicted, observed, dt):
        """In units of the data."""
        if self.receiver >= predicted.shape[1]:
            raise ValueError(
                f"receiver {self.receiver} is to have its peak taken, but there are "
                f"{predicted.shape[1]}: give a number from 0 to {predicted.shape[1] - 1}"
            )
        return jnp.max(predicted[:, self.receiver])

    def units(self, data):
        """Those of the data."""
        return data
