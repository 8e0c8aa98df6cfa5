"""A YAML text in which everything knows its place, so that a mistake can name it."""

import copy
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

Route = tuple[str | int, ...]  # keys and indices from the top of the file to a value


class Mistake(NamedTuple):
    """A sentence about one place in a document."""

    line: float  # infinite for an override
    column: float
    place: str  # file:line:column, or the override
    route: Route
    text: str

    def __str__(self):
        return f"{self.place} {'.'.join(map(str, self.route))}".rstrip() + f": {self.text}"


class CaseError(ValueError):
    """All the mistakes of a case, one a line."""


def suggestion(word: Any, allowed: Iterable[str]) -> str:
    """What was probably meant, or else all that is allowed."""
    allowed = list(allowed)
    close = get_close_matches(str(word), allowed, 1)
    return f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(allowed) or 'none'}"


class Document:
    """The data of a YAML file after overrides, and the mistakes found in them.

    Args:
        path: of the file
        overrides: such as ``"solver.dt=1e-3"``, the value in YAML

    Raises:
        CaseError: if the file cannot be read or is no YAML mapping
    """

    def __init__(self, path: Path, overrides: Sequence[str] = ()):
        self.path = path
        self._mistakes: dict[tuple, Mistake] = {}
        self._overridden: dict[Route, str] = {}
        self._files: list[tuple[CommentedMap, str, Path]] = []
        self.data: Any = self._read()
        for override in overrides:
            self._override(override)

    @property
    def mistakes(self) -> list[Mistake]:
        """In the order of the file."""
        return sorted(self._mistakes.values(), key=lambda m: (m.line, m.column))

    def mistake(self, route: Route, text: str):
        """Note a mistake; one that an alias repeats is noted once."""
        found = Mistake(*self.place(route), route, text)
        self._mistakes.setdefault((found.place, text), found)

    def clean(self, *route: str | int) -> bool:
        """Whether no mistake was noted at a route or below."""
        return not any(m.route[: len(route)] == route for m in self._mistakes.values())

    def place(self, route: Route) -> tuple[float, float, str]:
        """Line and column, from 1, of the deepest value on a route that the file has."""
        for end in range(len(route), 0, -1):
            if route[:end] in self._overridden:
                return inf, inf, self._overridden[route[:end]]
        node, line, column = self.data, 0, 0
        for key in route:
            if not has(node, key):
                break
            line, column = (node.lc.data or {}).get(key, (line, column))[:2]  # absent if merged
            node = node[key]
        return line + 1, column + 1, f"{self.path}:{line + 1}:{column + 1}"

    def file(self, node: CommentedMap, key: str) -> Path:
        """The path that a value names; a relative one counts from the document's folder."""
        path = self.path.parent / str(node[key])
        self._files.append((node, key, path))
        return path

    def write(self, path: Path):
        """The data with their comments; relative paths count from the new folder."""
        for node, key, file in self._files:
            node[key] = os.path.relpath(file, path.parent)
        yaml = YAML()
        yaml.width = 120  # characters; longer lines are folded
        yaml.indent(mapping=2, sequence=4, offset=2)
        yaml.dump(self.data, path)

    def _read(self) -> Any:
        try:
            data = self._parse(self.path.read_text("utf-8"), f"{self.path}")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise CaseError(f"{self.path}: cannot be read: {reason}") from error
        if not isinstance(data, CommentedMap):
            given = "the file is empty" if data is None else f"{data!r} is no mapping"
            raise CaseError(f"{self.path}:1:1: {given}: give at least 'solver: {{type: …}}'")
        return data

    def _parse(self, text: str, source: str) -> Any:
        yaml = YAML()
        yaml.allow_duplicate_keys = True  # they are noted, all of them; the first value counts
        try:
            self._note_duplicates(yaml.compose(text), source)
            return yaml.load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            context = f" {error.context}" if error.context else ""
            place = f"{source}:{mark.line + 1}:{mark.column + 1}"
            raise CaseError(f"{place}: no valid YAML: {error.problem}{context}") from error
        except YAMLError as error:  # characters that YAML forbids
            raise CaseError(f"{source}: no valid YAML: {error}") from error

    def _note_duplicates(self, node: Any, source: str):
        if isinstance(node, SequenceNode):
            for item in node.value:
                self._note_duplicates(item, source)
        if isinstance(node, MappingNode):
            seen = set()
            for key, value in node.value:
                line, column = key.start_mark.line + 1, key.start_mark.column + 1
                place = f"{source}:{line}:{column}"
                text = f"the key {key.value!r} stands here a second time: keep one of them"
                if str(key.value) in seen:
                    self._mistakes[place, text] = Mistake(line, column, place, (), text)
                seen.add(str(key.value))
                self._note_duplicates(value, source)

    def _override(self, override: str):
        source = f"-s {override}"
        name, equals, text = override.partition("=")
        *parents, last = route = tuple(int(k) if k.isdecimal() else k for k in name.split("."))
        node = self.data
        for depth, key in enumerate(parents):
            if not has(node, key):
                return self._lost(source, node, route[: depth + 1])
            if isinstance(node[key], CommentedMap | CommentedSeq):
                node[key] = copy.copy(node[key])  # an alias elsewhere keeps the value
            node = node[key]
        fits = isinstance(node, CommentedMap) or has(node, last)
        if not (equals and fits):
            return self._lost(source, node, route)
        try:
            node[last] = self._parse(text, source)
        except CaseError:
            text = f"{text!r} is no valid YAML"
            self._mistakes[source, text] = Mistake(inf, inf, source, route, text)
        self._overridden[route] = source

    def _lost(self, source: str, node: Any, route: Route):
        """Note an override that leads nowhere."""
        text = "give path=value, such as solver.dt=1e-3"
        if "=" in source:
            keys = node if isinstance(node, CommentedMap) else range(_length(node))
            text = f"the case has no {route[-1]!r} here; {suggestion(route[-1], map(str, keys))}"
        self._mistakes[source, text] = Mistake(inf, inf, source, route, text)


def _length(node: Any) -> int:
    return len(node) if isinstance(node, CommentedSeq) else 0


def has(node: Any, key: Any) -> bool:
    """Whether a mapping or a sequence has a key; nothing else has any."""
    if isinstance(node, CommentedSeq):
        return isinstance(key, int) and key < _length(node)
    return isinstance(node, CommentedMap) and key in node
