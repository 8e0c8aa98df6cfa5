"""Words to arrays: the fields of a solver's records, and of the records within them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffsim.case.document import Document, Route
from diffsim.case.objects import unknown
from diffsim.fields import array
from diffsim.solver import Record, Solver, quantities, records


def arrays(
    document: Document,
    given: dict[str, Any],
    record: type,
    solver: Solver,
    steps: int,
    route: Route,
    own: Mapping[str, Any] | None = MappingProxyType({}),
) -> dict[str, Any]:
    """The arrays for the fields of a record, in the units of each.

    What is left out of a record within it is as in ``own``, None if that has mistakes.
    """
    found, known, within = {}, quantities(record), records(record)
    for name, values in given.items():
        place = (*route, name)
        if name in within:
            rest = None if own is None else own.get(name)
            whole = own is not None and rest is None
            parts = _parts(document, values, within[name], solver, steps, place, whole)
            if own is not None and document.clean(*place):
                found[name] = rest._replace(**parts) if rest else within[name](**parts)
        elif isinstance(values, dict):
            document.mistake(place, "this is no record: give a number, a list or {type: …}")
        elif document.clean(*place):
            try:
                units = known[name].units if name in known else ""
                found[name] = array(values, solver, steps, units)
            except ValueError as error:
                document.mistake(place, str(error))
    return found


def _parts(
    document: Document,
    given: Any,
    record: Record,
    solver: Solver,
    steps: int,
    route: Route,
    whole: bool,
) -> dict[str, Any]:
    """The arrays of a record within a record, which must be whole or takes the rest elsewhere."""
    name, names = record.__name__, record._fields
    if not isinstance(given, dict):
        document.mistake(route, f"give a mapping of {', '.join(names)}")
        return {}
    guessed = unknown(document, given, names, f"{name} has no field", route)
    missing = [field for field in names if field not in {*given, *guessed}]
    if whole and missing:
        document.mistake(route, f"{name} needs {', '.join(missing)}")
    return arrays(document, given, record, solver, steps, route)
