"""Syntax tree of statements and expressions in an architecture file.

Statements look like Python assignments (``q, k = rope(q, k)``) and are parsed with Python's
grammar, but only the forms below exist and nothing is ever evaluated as Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from qwen3_codegen.spec.source import SourceLocation


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, string, ``true``, ``false`` or ``none``."""

    value: int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Name:
    """A value, config field, layer type attribute or op, depending on where it stands."""

    id: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """``base.name``: a dotted weight path, ``layer.window`` or ``rope_parameters.rope_theta``."""

    base: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Subscript:
    """``base[index]``: an element of a config list, or a weight path over an index (experts)."""

    base: Expression
    index: Expression


@dataclass(frozen=True, slots=True)
class ListDisplay:
    """``[a, b, ...]``."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """``-x`` or ``not x``; ``operator`` is ``-`` or ``not``."""

    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """``+ - * / // % **``, comparisons ``== != < <= > >= in not in``, and ``and`` / ``or``."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Conditional:
    """``then if test else otherwise``."""

    test: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True, slots=True)
class Call:
    """An op on values, or a function (``sqrt``, ``min``, ``max``, ``round_up``) on numbers."""

    function: str
    arguments: tuple[Expression, ...]
    keywords: tuple[tuple[str, Expression], ...]

    def keyword(self, name: str) -> Expression | None:
        """Returns the expression given for ``name``, or None."""
        return dict(self.keywords).get(name)


Expression: TypeAlias = (
    Literal | Name | Attribute | Subscript | ListDisplay | Unary | Binary | Conditional | Call
)


@dataclass(frozen=True, slots=True)
class Statement:
    """``targets = expression``, carried out where every ``when`` holds.

    ``when`` collects the conditions of the enclosing ``when:``/``then:``/``else:`` mappings;
    they are over config fields and layer attributes and known before the graph is built.
    """

    targets: tuple[str, ...]
    expression: Expression
    when: tuple[Expression, ...]
    location: SourceLocation
