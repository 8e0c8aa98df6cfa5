"""Units that a file or a case writes, converted by pint."""

import re
from functools import cache
from typing import Any

import numpy as np

from diffsim.fields.extra import library

# "m s-1", as CF writes powers; pint wants "m s**-1". "1e3" is no power.
CF_POWER = re.compile(r"(?<=[A-Za-z])(?<!\d[eE])(?=-?\d)")


class UnknownUnits(ValueError):
    """Words that pint does not take for units."""


def converted(values: np.ndarray, units: str, wanted: str) -> np.ndarray:
    """Values in wanted units; in SI if none are wanted, but numbers without dimension as they are.

    Args:
        values: the numbers
        units: of the numbers; taken for the wanted ones if empty
        wanted: such as ``"m/s"``
    """
    if not units or units == wanted:
        return values
    own = _unit(units)
    target = _target(own, wanted)
    if own.dimensionality != target.dimensionality:
        raise ValueError(f"{units} is no unit of a field in {wanted}: give another field")
    if own == target:
        return values
    if values.dtype.kind != "f":
        values = values.astype(float)
    return _registry().Quantity(values, own).to(target).magnitude


def agreed(in_file: str, in_case: str) -> str:
    """The units of a file's numbers; the case may say what the file does not, or not clearly."""
    if not in_file or not in_case or in_file == in_case:
        return in_file or in_case
    try:
        own = _unit(in_file)
    except UnknownUnits:
        return in_case
    if own != _unit(in_case):
        raise ValueError(
            f"the file says {in_file}, the case {in_case}: leave units out, or correct the file"
        )
    return in_case


def metres(places: np.ndarray, units: str) -> np.ndarray | None:
    """Positions in metres, or None if their units are no length, such as degrees_north."""
    if units in ("", "m"):
        return places
    try:
        length = _unit(units).is_compatible_with("m")
    except UnknownUnits:
        length = False
    return converted(places, units, "m") if length else None


def _unit(text: str) -> Any:
    parse = _registry().parse_units
    try:
        return parse(text)
    except Exception as error:  # pint stumbles in half a dozen ways over words that are no units
        raise UnknownUnits(
            f"the units {text!r} are unknown: say them in units, such as m/s, kg/m3 or degC"
        ) from error


def _target(own: Any, wanted: str) -> Any:
    """The wanted units; SI where none are wanted, or where a field describes its units in words."""
    try:
        if wanted:
            return _unit(wanted)
    except UnknownUnits:
        pass
    return own if own.dimensionless else _registry().get_base_units(own)[1]


@cache
def _registry() -> Any:
    pint = library("pint", "converting units")
    return pint.UnitRegistry(preprocessors=[lambda text: CF_POWER.sub("**", text)])
