"""YAML with a line for every key and value, and nothing a description does not need.

Only mappings with distinct plain keys, lists and scalars exist here: tags, anchors, aliases and
several documents are refused, so that a file means what it shows and cannot grow when read.
Scalars follow YAML 1.2's core schema: ``1e-6`` is a number and ``on`` is a string, which PyYAML
itself (YAML 1.1) reads the other way round.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec.source import SourceLocation

__all__ = [
    "Scalar",
    "YamlList",
    "YamlMap",
    "YamlNode",
    "YamlScalar",
    "kind_of",
    "parse_scalar",
    "parse_yaml",
    "plain",
    "read_text",
    "read_yaml",
    "shorten",
]

Scalar: TypeAlias = int | float | str | bool | None

MAX_BYTES = 1 << 20
"""Largest description read; the longest real one is a few hundred lines."""
_MAX_DEPTH = 24
_MAX_DIGITS = 19
"""Characters of a whole number: enough for 64 bits, and Python never parses a huge one."""

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))


@dataclass(frozen=True, slots=True)
class YamlScalar:
    """A number, string, boolean or null."""

    value: Scalar
    location: SourceLocation


@dataclass(frozen=True, slots=True)
class YamlList:
    """A list."""

    items: tuple[YamlNode, ...]
    location: SourceLocation


@dataclass(frozen=True, slots=True)
class YamlMap:
    """A mapping in file order; ``keys`` says where each key stands."""

    entries: Mapping[str, YamlNode]
    keys: Mapping[str, SourceLocation]
    location: SourceLocation


YamlNode: TypeAlias = YamlScalar | YamlList | YamlMap


def read_yaml(file: Path, shown: str) -> YamlMap:
    """Reads a description.

    Args:
        file: What to open.
        shown: The path that messages name.

    Raises:
        SpecError: The file cannot be read or is not such a description.
    """
    return parse_yaml(read_text(file, shown), shown)


def read_text(file: Path, shown: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Returns a text file's content.

    Raises:
        SpecError: The file is absent, too long, or not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise SpecError("cannot be read", where=shown, got=error.strerror) from None
    if len(content) > max_bytes:
        raise SpecError("is too long", where=shown, expected=f"at most {max_bytes} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(
            "not UTF-8 text", where=f"{shown}:{line}", got=f"byte 0x{content[error.start]:02x}"
        ) from None


def _hint(problem: str) -> str | None:
    """Returns what usually is the matter; the parser names a place at or behind the mistake."""
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in problem or "expected <block end>" in problem:
        return "all keys or list items of a level start in the same column, and a key ends in ':'"
    return None


def parse_yaml(text: str, shown: str) -> YamlMap:
    """Parses the text of a description; its root must be a mapping.

    Raises:
        SpecError: Not YAML, or YAML with more than plain mappings, lists and scalars.
    """
    try:
        root = _Builder(text, shown).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise SpecError(
            f"not YAML: {error.problem}", where=f"{shown}:{line}", hint=_hint(error.problem or "")
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(
            "a character YAML does not allow",
            where=f"{shown}:{line}",
            got=_character(error.character),
        ) from None
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {error}", where=shown) from None
    if not isinstance(root, YamlMap):
        raise SpecError("not a mapping", where=root.location, got=kind_of(root))
    return root


def _character(character: object) -> str:
    return f"U+{character if isinstance(character, int) else ord(str(character)[:1]):04X}"


class _Builder:
    """Builds nodes from PyYAML's events, which carry marks and resolve nothing."""

    def __init__(self, text: str, shown: str) -> None:
        self._shown = shown
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))

    def document(self) -> YamlNode:
        next(self._events)
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            raise SpecError("is empty", where=self._shown, expected="a mapping")
        if start.version is not None or start.tags:
            raise self._refuse(start, "YAML directives are not allowed")
        root = self._node(next(self._events), 0)
        next(self._events)
        extra = next(self._events)
        if not isinstance(extra, yaml.StreamEndEvent):
            raise self._refuse(extra, "only one YAML document is allowed")
        return root

    def _location(self, event: Any) -> SourceLocation:
        return SourceLocation(self._shown, event.start_mark.line + 1)

    def _refuse(self, event: Any, message: str, **facts: Any) -> SpecError:
        return SpecError(message, where=self._location(event), **facts)

    def _node(self, event: Any, depth: int) -> YamlNode:
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(event, "YAML aliases are not allowed", got=f"*{event.anchor}")
        if event.anchor is not None:
            raise self._refuse(event, "YAML anchors are not allowed", got=f"&{event.anchor}")
        if event.tag is not None:
            raise self._refuse(event, "YAML tags are not allowed", got=shorten(event.tag))
        if depth > _MAX_DEPTH:
            raise self._refuse(event, "nested too deeply", expected=f"at most {_MAX_DEPTH} levels")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, depth)
        location = self._location(event)
        text = event.value
        if event.style is not None:
            return YamlScalar(text, location)
        return YamlScalar(parse_scalar(text, location), location)

    def _sequence(self, start: Any, depth: int) -> YamlList:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return YamlList(tuple(items), self._location(start))

    def _mapping(self, start: Any, depth: int) -> YamlMap:
        entries: dict[str, YamlNode] = {}
        keys: dict[str, SourceLocation] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, YamlScalar):
                raise self._refuse(event, "a key must be plain text", got=kind_of(key))
            name = event.value
            if name in keys:
                raise self._refuse(
                    event, f"duplicate key '{shorten(name)}'", hint=f"first at {keys[name]}"
                )
            keys[name] = key.location
            entries[name] = self._node(next(self._events), depth + 1)
        return YamlMap(entries, keys, self._location(start))


def parse_scalar(text: str, location: object) -> Scalar:
    """Resolves an unquoted scalar by YAML 1.2's core schema (decimal numbers only).

    Raises:
        SpecError: A number that is not finite or has too many digits.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.match(text):
        if len(text) > _MAX_DIGITS:
            raise SpecError("a number is too large", where=location, got=shorten(text))
        return int(text)
    if _NOT_FINITE.match(text):
        raise SpecError("a number must be finite", where=location, got=text)
    if _FLOAT.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise SpecError("a number is too large", where=location, got=shorten(text))
        return number
    return text


def plain(node: YamlNode) -> Any:
    """Returns a node as Python values without lines: dict, list and scalars."""
    if isinstance(node, YamlMap):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, YamlList):
        return [plain(item) for item in node.items]
    return node.value


def kind_of(node: object) -> str:
    """Names a node's or a value's kind in a user's words."""
    value = node.value if isinstance(node, YamlScalar) else node
    if isinstance(value, YamlMap | Mapping):
        return "a mapping"
    if isinstance(value, YamlList | list | tuple):
        return "a list"
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f"the text {shorten(value)!r}"
    return f"the number {value}"


def shorten(text: str, limit: int = 80) -> str:
    """Returns text short enough for one line of a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
