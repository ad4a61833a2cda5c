"""Typed reading of a YAML mapping that refuses what it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.expressions import parse_expression
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.rules import LocatedExpression
from qwen3_codegen.spec.schema import Schema
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Literal
from qwen3_codegen.spec.yaml_loader import YamlList, YamlMap, YamlNode, YamlScalar, kind_of, shorten

__all__ = ["Section", "list_items", "located_expression", "unknown_key"]

_T = TypeVar("_T", str, bool, int, float)
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


def list_items(node: YamlNode, what: str, problems: Problems) -> tuple[YamlNode, ...]:
    """Returns the items of a list, none when the node is no list."""
    if isinstance(node, YamlList):
        return node.items
    problems.add(SpecError(f"{what} must be a list", where=node.location, got=kind_of(node)))
    return ()


class Section:
    """One mapping of a description.

    Keys the schema lacks and required keys that are absent are reported at once. All faults go to
    ``problems`` and a getter then returns its default, so that one run shows them all.
    """

    def __init__(self, node: YamlNode, what: str, schema: Schema, problems: Problems) -> None:
        self.what = what
        self.problems = problems
        self.location = node.location
        self._schema = schema
        self._entries: Mapping[str, YamlNode] = {}
        self._keys: Mapping[str, SourceLocation] = {}
        if isinstance(node, YamlMap):
            self._entries, self._keys = node.entries, node.keys
            self._check_keys()
        else:
            self._refuse(f"{what} must be a mapping", node)

    def _check_keys(self) -> None:
        for key, where in self._keys.items():
            if key not in self._schema:
                self.problems.add(unknown_key(key, self.what, self._schema, where))
        for key, rule in self._schema.items():
            if rule.required and key not in self._entries:
                self.problems.add(
                    SpecError(
                        f"{self.what} has no '{key}'", where=self.location, expected=rule.type
                    )
                )

    def _refuse(self, message: str, node: YamlNode, expected: str | None = None) -> None:
        self.problems.add(
            SpecError(message, where=node.location, got=kind_of(node), expected=expected)
        )

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def where(self, key: str) -> SourceLocation:
        """Returns the line of a key, or of the whole mapping when it is absent."""
        return self._keys.get(key, self.location)

    def node(self, key: str) -> YamlNode | None:
        """Returns what stands under ``key``, which the schema must have."""
        assert key in self._schema, key
        return self._entries.get(key)

    def scalar(self, key: str, kind: type[_T]) -> _T | None:
        """Returns a scalar of one kind; a whole number is a number too."""
        node = self.node(key)
        if node is None:
            return None
        value = node.value if isinstance(node, YamlScalar) else None
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            self._refuse(f"'{key}' of {self.what} has the wrong type", node, _KINDS[kind])
            return None
        return value

    def text(self, key: str, default: str = "") -> str:
        """Returns a text, ``default`` when absent or wrong."""
        value = self.scalar(key, str)
        return default if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        """Returns a boolean, ``default`` when absent or wrong."""
        value = self.scalar(key, bool)
        return default if value is None else value

    def section(self, key: str, schema: Schema) -> Section | None:
        """Returns the mapping under ``key``."""
        node = self.node(key)
        return None if node is None else Section(node, f"'{key}'", schema, self.problems)

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
        return list_items(node, f"'{key}' of {self.what}", self.problems)

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns the list of texts under ``key``."""
        found = []
        for item in self.items(key):
            if isinstance(item, YamlScalar) and isinstance(item.value, str):
                found.append(item.value)
            else:
                self._refuse(f"'{key}' of {self.what} is a list of texts", item)
        return tuple(found)

    def expression(self, key: str) -> LocatedExpression | None:
        """Returns the expression under ``key``."""
        node = self.node(key)
        if node is None:
            return None
        with self.problems.collect():
            return located_expression(node, key)
        return None
