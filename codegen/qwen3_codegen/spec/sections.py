"""Typed reading of a YAML mapping that refuses what it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.expressions import parse_expression
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.rules import LocatedExpression
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Literal
from qwen3_codegen.spec.yaml_loader import YamlList, YamlMap, YamlNode, YamlScalar, kind_of, shorten

__all__ = ["Section", "located_expression", "unknown_key"]

_T = TypeVar("_T", str, bool, int, float)
_EMPTY: Mapping[str, YamlNode] = {}
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def unknown_key(key: str, what: str, allowed: Mapping[str, object], where: object) -> SpecError:
    """Returns the error for a key that a mapping does not have."""
    return SpecError(
        f"unknown key '{shorten(key)}' in {what}",
        where=where,
        expected=", ".join(allowed),
        hint=nearest(key, allowed),
    )


def located_expression(node: YamlNode, what: str) -> LocatedExpression:
    """Reads an expression: text is parsed, a number, boolean or null stands for itself.

    Raises:
        SpecError: A mapping or list, or text that is no expression.
    """
    if not isinstance(node, YamlScalar):
        raise SpecError(f"'{what}' must be an expression", where=node.location, got=kind_of(node))
    if isinstance(node.value, str):
        return LocatedExpression(parse_expression(node.value, node.location), node.location)
    return LocatedExpression(Literal(node.value), node.location)


class Section:
    """One mapping of a description.

    Every getter notes its key as known; ``finish`` reports the keys that nobody asked for. Faults
    go to ``problems`` and a getter then returns its default, so that one run shows them all.
    """

    def __init__(self, node: YamlNode, what: str, problems: Problems) -> None:
        self.what = what
        self.problems = problems
        self.location = node.location
        self._known: dict[str, None] = {}
        self._broken = not isinstance(node, YamlMap)
        if isinstance(node, YamlMap):
            self._entries, self._keys = node.entries, node.keys
        else:
            self._entries, self._keys = _EMPTY, {}
            self._refuse(f"{what} must be a mapping", node)

    def _refuse(self, message: str, node: YamlNode, expected: str | None = None) -> None:
        self.problems.add(
            SpecError(message, where=node.location, got=kind_of(node), expected=expected)
        )

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def where(self, key: str) -> SourceLocation:
        """Returns the line of a key, or of the whole mapping when it is absent."""
        return self._keys.get(key, self.location)

    def node(self, key: str, *, required: bool = False) -> YamlNode | None:
        """Returns what stands under ``key``."""
        self._known[key] = None
        if required and key not in self._entries and not self._broken:
            self.problems.add(SpecError(f"{self.what} has no '{key}'", where=self.location))
        return self._entries.get(key)

    def scalar(self, key: str, kind: type[_T], *, required: bool = False) -> _T | None:
        """Returns a scalar of one kind; a whole number is a number too."""
        node = self.node(key, required=required)
        if node is None:
            return None
        value = node.value if isinstance(node, YamlScalar) else None
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            self._refuse(f"'{key}' of {self.what} has the wrong type", node, _KINDS[kind])
            return None
        return value

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        """Returns a text, ``default`` when absent or wrong."""
        value = self.scalar(key, str, required=required)
        return default if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        """Returns a boolean, ``default`` when absent or wrong."""
        value = self.scalar(key, bool)
        return default if value is None else value

    def section(self, key: str, what: str) -> Section | None:
        """Returns the mapping under ``key``."""
        node = self.node(key)
        return None if node is None else Section(node, what, self.problems)

    def entries(self, key: str) -> Iterator[tuple[str, YamlNode, SourceLocation]]:
        """Yields the entries of the mapping under ``key`` with the line of each."""
        node = self.node(key)
        if isinstance(node, YamlMap):
            for name, value in node.entries.items():
                yield name, value, node.keys[name]
        elif node is not None:
            self._refuse(f"'{key}' of {self.what} must be a mapping", node)

    def items(self, key: str) -> tuple[YamlNode, ...]:
        """Returns the items of the list under ``key``."""
        node = self.node(key)
        if node is None:
            return ()
        if not isinstance(node, YamlList):
            self._refuse(f"'{key}' of {self.what} must be a list", node)
            return ()
        return node.items

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns the list of texts under ``key``."""
        found = []
        for item in self.items(key):
            if isinstance(item, YamlScalar) and isinstance(item.value, str):
                found.append(item.value)
            else:
                self._refuse(f"'{key}' of {self.what} is a list of texts", item)
        return tuple(found)

    def expression(self, key: str, *, required: bool = False) -> LocatedExpression | None:
        """Returns the expression under ``key``."""
        node = self.node(key, required=required)
        if node is None:
            return None
        with self.problems.collect():
            return located_expression(node, key)
        return None

    def finish(self) -> None:
        """Reports every key that no getter asked for."""
        for key in self._entries:
            if key not in self._known:
                where = self._keys[key]
                self.problems.add(unknown_key(key, self.what, self._known, where))
