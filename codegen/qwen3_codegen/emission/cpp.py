"""The only way from data to C++ text: identifiers, literals and tensor expressions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

import numpy as np

from qwen3_codegen.errors import CodegenError
from qwen3_codegen.plan.records import Origin, TensorRef, View

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_KEYWORDS = frozenset(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
    class compl const constexpr const_cast continue decltype default delete do double dynamic_cast
    else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast return short signed sizeof static static_assert static_cast struct switch
    template this thread_local throw true try typedef typeid typename union unsigned using virtual
    void volatile wchar_t while xor xor_eq""".split()
)

_TAKEN = frozenset({"num_tokens", "num_logit_rows", "layer", "first_row", "batch", "logit_values"})
"""Locals and parameters that emitted functions have besides values."""


class CppIdentifier(str):
    """A string that is a legal C++ identifier and no keyword; nothing else becomes one."""

    def __new__(cls, text: str) -> CppIdentifier:
        """Checks ``text``.

        Raises:
            CodegenError: It is not an identifier.
        """
        if not _IDENTIFIER.fullmatch(text) or text in _KEYWORDS or "__" in text:
            raise CodegenError(
                "a name cannot become a C++ identifier",
                got=repr(text),
                expected="a letter, then letters, digits and single underscores; no C++ keyword",
            )
        return super().__new__(cls, text)


def local_name(value: str) -> CppIdentifier:
    """Returns the C++ local of an IR value."""
    return CppIdentifier(f"{value}_value" if value in _TAKEN or value in _KEYWORDS else value)


def pascal_case(name: str) -> CppIdentifier:
    """Returns ``full_attention`` as ``FullAttention``."""
    return CppIdentifier("".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name)))


def snake_case(name: str) -> CppIdentifier:
    """Returns a name as a lower-case identifier."""
    return CppIdentifier(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"))


def cpp_string(text: str) -> str:
    """Returns a C++ string literal; every byte outside plain ASCII is escaped in octal."""
    pieces = []
    for byte in text.encode():
        plain = 0x20 <= byte < 0x7F and chr(byte) not in '"\\?'
        pieces.append(chr(byte) if plain else f"\\{byte:03o}")
    return f'"{"".join(pieces)}"'


def cpp_comment(text: str) -> str:
    """Returns text that is safe after ``//``: one line, no trailing backslash, ASCII."""
    line = " ".join(text.encode("ascii", "replace").decode().split())
    return line.replace("\\", "/").replace("??", "? ?")


def cpp_float(value: float) -> str:
    """Returns the shortest float literal that reads back as the same float32.

    Raises:
        CodegenError: The value is not finite in float32.
    """
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if not np.isfinite(single):
        raise CodegenError("a constant is not finite in float32", got=value)
    text = str(single)
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def cpp_braced(values: Iterable[object]) -> str:
    """Returns ``{a, b, c}``."""
    return "{" + ", ".join(str(value) for value in values) + "}"


def wrapped(items: Iterable[str], width: int, indent: int) -> str:
    """Joins items with commas over lines of at most ``width``, later lines indented."""
    lines = textwrap.wrap(
        ", ".join(items), width=width, break_long_words=False, break_on_hyphens=False
    )
    return ("\n" + " " * indent).join(lines)


_BASES = {
    Origin.MODEL_WEIGHT: "weights_.{}",
    Origin.LAYER_WEIGHT: "w.{}",
    Origin.BUFFER: "{}_",
    Origin.CONSTANT: "constants_.{}",
    Origin.SIN_TABLE: "rope_.{}.sin",
    Origin.COS_TABLE: "rope_.{}.cos",
    Origin.POSITIONS: "{}_",
}


def tensor_expression(reference: TensorRef) -> str:
    """Returns a tensor reference as a C++ expression."""
    if reference.origin is Origin.VALUE:
        base = str(local_name(reference.name))
    else:
        base = _BASES[reference.origin].format(CppIdentifier(reference.name))
    return base + "".join(_view(view) for view in reference.views)


def _view(view: View) -> str:
    arguments = (
        cpp_braced(argument) if isinstance(argument, tuple) else str(argument)
        for argument in view.arguments
    )
    return f".{view.method}({', '.join(arguments)})"
