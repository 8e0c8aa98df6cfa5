"""A step's transpose without its carry, and what of the carry images ask for."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Blind(NamedTuple):
    """Of a step linear in its carry: but for some parameters' its cotangents follow without it.

    Those parameters' are images: sums of products of the carry's cotangent and an exposure. All
    take the step's ``consts`` first, but not where these are bound and all else is flat lists.
    Exposures are kept in an array for many steps, each at its place.
    """

    # carry, count -> room for so many exposures, [count, …]: any pytree of arrays
    exposures: Callable[..., Any]
    # carry, x, exposures, place -> carry, exposures; on flat lists carry, y, exposures
    expose: Callable[..., tuple]
    # x, carry_bar, scale -> bars of consts, carry, x; None for images; the carry's are scaled
    transpose: Callable[..., tuple[Any, Any, Any]]
    # x, carry_bar, scale, exposures, place, count, total -> the same, and images: those so far, in
    # ``total``, with ``count`` of this step's, scaled
    image: Callable[..., tuple[Any, Any, Any]]
