"""The variable in which a loop's adjoint runs."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Scaling(NamedTuple):
    """Cotangents times a scale, in which a step is transposed for less.

    They are scaled once before a backward sweep and back once after it.
    """

    scale: Callable[[], Any]  # computed once, any pytree of arrays
    into: Callable[[Any, Any], Any]  # scale, carry_bar -> carry_bar, scaled
    # scale, both scaled -> carry_bar, consts_bar
    out: Callable[[Any, Any, Any], tuple[Any, Any]]
