"""A step's transpose without its carry, and what of the carry images ask for."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Blind(NamedTuple):
    """Of a step linear in its carry: but for some parameters' its cotangents follow without it.

    Those parameters' are images: sums of products of the carry's cotangent and an exposure.
    """

    # carry, x -> carry, exposure: any pytree of arrays; on flat lists carry, y, exposure
    expose: Callable[[Any, Any], tuple]
    # x, carry_bar, scale, exposure or None -> bars of consts, carry, x; with no exposure None for
    # images; carry_bar and images are scaled
    transpose: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]
