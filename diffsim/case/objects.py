"""Words to objects: a mapping with ``type`` names a class, its other keys that class' fields."""

import dataclasses
import inspect
import pkgutil
import re
from abc import ABCMeta
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from diffsim.case.document import Document, Route, has, suggestion
from diffsim.fields import Home

FAILED = object()  # stands for a value whose mistakes are noted
Homes = tuple[str, ...]  # modules in which bare class names are looked up


def build(document: Document, node: Any, hint: Any, route: Route, homes: Homes = ()) -> Any:
    """What a node stands for, where a field of type ``hint`` is wanted.

    Mistakes are noted in the document; an object with mistakes becomes ``FAILED``.
    """
    hint, home = _unwrapped(hint)
    homes = home or homes
    bases = _bases(hint)
    members = _members(hint)
    mapping = any(get_origin(member) is dict for member in members)
    if isinstance(node, CommentedMap) and ("type" in node or (bases and not mapping)):
        cls = _class(document, node, bases, route, homes)
        return FAILED if cls is FAILED else instance(document, node, cls, route, homes)
    if bases and len(bases) == len(members):
        names = ", ".join(_named(bases, homes))
        text = f"{_shown(_plain(node))} is no object: give {{type: …}}, one of {names}"
        document.mistake(route, text)
        return FAILED
    if isinstance(node, CommentedMap):
        inner = next((get_args(m)[1] for m in members if get_origin(m) is dict), Any)
        return {k: build(document, v, inner, (*route, k), homes) for k, v in node.items()}
    if isinstance(node, CommentedSeq):
        items = enumerate(node)
        return [build(document, v, _item(members, i), (*route, i), homes) for i, v in items]
    value = _plain(node)
    if value is FAILED:
        document.mistake(route, f"{node!r}: tags and dates have no meaning here")
    return value


def instance(document: Document, node: CommentedMap, cls: type, route: Route, homes: Homes) -> Any:
    """An object of a class from a mapping of its fields."""
    values, guessed = fields(document, node, cls, route, homes)
    return made(document, node, cls, values, guessed, route)


def fields(document: Document, node: CommentedMap, cls: type, route: Route, homes: Homes):
    """The values of a class' fields by name, and the names that misspelt keys probably meant."""
    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    given = [key for key in node if key != "type" or "type" in names]
    guessed = unknown(document, given, names, f"{cls.__name__} has no field", route)
    homes = (*homes, cls.__module__)
    values = {}
    for name in names:
        if name in node and _unwrapped(hints[name])[0] is Path and isinstance(node[name], str):
            values[name] = document.file(node, name)
        elif name in node:
            values[name] = build(document, node[name], hints[name], (*route, name), homes)
    return values, guessed


def unknown(document: Document, given: Iterable, names: Iterable[str], refusal: str, route: Route):
    """Note the keys that are no names; give the names that they probably meant."""
    guessed = set()
    for key in given:
        if key not in names:
            guess = suggestion(key, names)
            document.mistake((*route, key), f"{refusal} {key!r}; {guess}")
            guessed |= {name for name in names if guess == suggestion(name, [name])}
    return guessed


def made(document: Document, node: Any, cls: type, values: dict, guessed: set, route: Route) -> Any:
    """An object of a class from the values of its fields, checked by pydantic."""
    try:
        return cls(**values)
    except ValidationError as error:
        for place, problems in _by_place(error, node).items():
            name = place[-1] if place else None
            if any(p["input"] is FAILED for p in problems) or name in guessed:
                continue
            if problems[0]["type"] == "missing":
                text = f"{cls.__name__} needs {name!r}" if len(place) == 1 else "this is missing"
            elif problems[0]["type"] == "value_error":
                text = str(problems[0]["ctx"]["error"])
            elif problems[0]["type"] == "path_not_file":
                text = f"there is no file {problems[0]['input']}"
            else:
                text = f"{_shown(problems[0]['input'])} is not allowed: {_reasons(problems)}"
            document.mistake((*route, *place), text)
        return FAILED


def _reasons(problems: list) -> str:
    """Pydantic's sentences about one value, in a case's words."""
    text = " or ".join(dict.fromkeys(re.sub(", (unable|got) .*", "", p["msg"]) for p in problems))
    text = text.replace("or Input should be", "or").replace("Input should", "it should")
    return text.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")


def _by_place(error: ValidationError, node: Any) -> dict[Route, list]:
    """Pydantic's errors by their deepest places in a node; unions' tags are no places."""
    found: dict[Route, list] = {}
    for problem in error.errors(include_url=False):
        place: list[Any] = []
        inner: Any = node
        for key in problem["loc"]:
            inside = has(inner, key)
            if inside or problem["type"] == "missing":
                place.append(key)
                inner = inner[key] if inside else None
        found.setdefault(tuple(place), []).append(problem)
    outer = {place[:end] for place in found for end in range(1, len(place))}
    return {place: problems for place, problems in found.items() if place not in outer}


def _class(document: Document, node: CommentedMap, bases: tuple, route: Route, homes: Homes) -> Any:
    """The class that a mapping names, or the only one that its place allows."""
    if "type" not in node:
        if len(bases) == 1 and is_pydantic_dataclass(bases[0]):
            return bases[0]
        names = ", ".join(_named(bases, homes))
        document.mistake(route, f"this needs a type: one of {names}")
        return FAILED
    name, route = node["type"], (*route, "type")
    named = _named(bases, homes)
    if isinstance(name, str) and name in named:
        return named[name]
    if not isinstance(name, str) or "." not in name:
        document.mistake(route, f"no class {name!r} is known here; {suggestion(name, named)}")
        return FAILED
    try:
        found = pkgutil.resolve_name(name)
    except Exception as error:  # importing runs a user's module: anything may happen
        document.mistake(route, f"{name!r} cannot be imported: {type(error).__name__}: {error}")
        return FAILED
    if not (isinstance(found, type) and is_pydantic_dataclass(found)):
        document.mistake(route, f"{name!r} is no @frozen class: decorate it with diffsim's frozen")
        return FAILED
    if bases and not issubclass(found, bases):
        wanted = " or ".join(base.__name__ for base in bases)
        document.mistake(route, f"{name!r} is no {wanted}: name a subclass of it")
        return FAILED
    return found


def _named(bases: tuple[type, ...], homes: Homes) -> dict[str, type]:
    """The classes that a bare name may mean."""
    classes = [*bases, *(c for home in homes for c in vars(import_module(home)).values())]
    return {
        c.__name__: c
        for c in classes
        if isinstance(c, type)
        and is_pydantic_dataclass(c)
        and issubclass(c, bases or object)
        and not inspect.isabstract(c)
    }


def _unwrapped(hint: Any) -> tuple[Any, Homes]:
    """A hint without its annotations, and the home among them."""
    if get_origin(hint) is not Annotated:
        return hint, ()
    inner, *notes = get_args(hint)
    return inner, tuple(note.module for note in notes if isinstance(note, Home))


def _members(hint: Any) -> list:
    union = get_origin(hint) in (Union, UnionType)
    return [_unwrapped(member)[0] for member in (get_args(hint) if union else (hint,))]


def _bases(hint: Any) -> tuple[type, ...]:
    """The classes among a hint's members whose instances a mapping can name."""
    classes = [m for m in _members(hint) if isinstance(m, type)]
    return tuple(c for c in classes if isinstance(c, ABCMeta) or is_pydantic_dataclass(c))


def _item(members: list, index: int) -> Any:
    """The hint of a sequence's item."""
    for member in members:
        items = get_args(member)
        if get_origin(member) is tuple and items[-1] is not Ellipsis:
            return items[index] if index < len(items) else Any
        if get_origin(member) in (tuple, list):
            return items[0]
    return Any


def _plain(node: Any) -> Any:
    """A scalar without what it remembers of its spelling."""
    if node is None or isinstance(node, bool):
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node if isinstance(node, CommentedMap | CommentedSeq) else FAILED


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"
