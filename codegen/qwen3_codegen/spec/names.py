"""Names in descriptions that become C++ identifiers, checked where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec.problems import Problems

__all__ = ["CPP_KEYWORDS", "check_identifier", "check_layer_type", "check_table", "is_value_name"]

# fmt: off
CPP_KEYWORDS = frozenset({
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break",
    "case", "catch", "char", "char16_t", "char32_t", "class", "compl", "const", "constexpr",
    "const_cast", "continue", "decltype", "default", "delete", "do", "double", "dynamic_cast",
    "else", "enum", "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if",
    "inline", "int", "long", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr",
    "operator", "or", "or_eq", "private", "protected", "public", "register", "reinterpret_cast",
    "return", "short", "signed", "sizeof", "static", "static_assert", "static_cast", "struct",
    "switch", "template", "this", "thread_local", "throw", "true", "try", "typedef", "typeid",
    "typename", "union", "unsigned", "using", "virtual", "void", "volatile", "wchar_t", "while",
    "xor", "xor_eq",
})
"""Keywords of C++17."""
# fmt: on

_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")
_VALUE = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*\Z")


def is_value_name(name: str) -> bool:
    """Returns whether a statement may assign to the name."""
    return _VALUE.match(name) is not None


def check_identifier(name: str, where: object, what: str, problems: Problems) -> None:
    """Checks the name of a block, a layer attribute, a layer type or a rope table."""
    if not _IDENTIFIER.match(name):
        problems.add(
            SpecError(
                f"not a {what} name",
                where=where,
                got=ascii(name),
                expected="lower-case letters, digits and single '_' between them, a letter first",
            )
        )


def check_layer_type(name: str, where: object, problems: Problems) -> None:
    """Checks the name of a layer type, which is the name of a C++ function."""
    check_identifier(name, where, "layer type", problems)
    if name in CPP_KEYWORDS:
        problems.add(SpecError("a layer type has the name of a C++ keyword", where=where, got=name))


def check_table(name: str, where: object, earlier: Iterable[str], problems: Problems) -> None:
    """Checks the name of a rope table, whose frequencies are C++ constants."""
    check_identifier(name, where, "rope table", problems)
    for other in earlier:
        if _constants(name) & _constants(other):
            problems.add(
                SpecError(
                    "two rope tables would have one name in C++",
                    where=where,
                    got=f"{name} and {other}",
                )
            )


def _constants(table: str) -> set[str]:
    """What a table's short and long frequencies are called, a suffix aside."""
    name = "".join(part.capitalize() for part in table.split("_"))
    return {name, f"{name}Long"}
