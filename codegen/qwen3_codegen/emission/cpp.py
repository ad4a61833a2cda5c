"""The only way from data to C++ text: identifiers, literals and tensor expressions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

import numpy as np

from qwen3_codegen.errors import CodegenError
from qwen3_codegen.plan.records import Origin, TensorRef, View
from qwen3_codegen.spec.names import CPP_KEYWORDS

WIDTH = 100
"""Columns of the emitted sources."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_MACROS = frozenset({"assert", "errno", "linux", "offsetof", "stderr", "stdin", "stdout", "unix"})
"""Lower-case names that a C or C++ header or compiler may replace."""
_TAKEN = frozenset(
    {"copy_rows", "first_row", "layer", "logits_out", "num_logit_rows", "num_tokens"}
    | {"read_logits", "size_t", "trace", "trace_cache", "trace_rows", "w"}
)
"""What the bodies of emitted functions say besides values. Members end in an underscore; types and
constants hold a capital letter early on. No local is named like those either."""
_LIKE_A_MEMBER_OR_TYPE = re.compile(r"k?[A-Z].*|.*_")


class CppIdentifier(str):
    """A string that is a legal C++ identifier and no keyword; nothing else becomes one."""

    def __new__(cls, text: str) -> CppIdentifier:
        """Checks ``text``.

        Raises:
            CodegenError: It is not an identifier.
        """
        if not _IDENTIFIER.fullmatch(text) or text in CPP_KEYWORDS or "__" in text:
            raise CodegenError(
                "a name cannot become a C++ identifier",
                got=repr(text),
                expected="a letter, then letters, digits and single underscores; no C++ keyword",
            )
        return super().__new__(cls, text)


def qualified(name: str) -> str:
    """Returns a name with its namespaces, ``own::SoftClip``, every part of it checked."""
    return "::".join(map(CppIdentifier, name.split("::")))


def local_name(value: str) -> CppIdentifier:
    """Returns the C++ local of an IR value; different values never share one.

    Raises:
        CodegenError: The name has letters that C++ does not take.
    """
    root = _without_suffix(value, "_value")
    is_taken = root in _TAKEN or _LIKE_A_MEMBER_OR_TYPE.fullmatch(root)
    return CppIdentifier(f"{value}_value" if is_taken or _is_reserved(root) else value)


def member_name(name: str) -> CppIdentifier:
    """Returns the struct member of a weight, constant or table; different names never share one.

    Raises:
        CodegenError: The name has letters that C++ does not take.
    """
    root = _without_suffix(name, "_member")
    return CppIdentifier(f"{name}_member" if _is_reserved(root) else name)


def _is_reserved(name: str) -> bool:
    return name in CPP_KEYWORDS or name in _MACROS or name.isupper()


def _without_suffix(name: str, suffix: str) -> str:
    while name.endswith(suffix):
        name = name.removesuffix(suffix)
    return name


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
    """Returns text that is safe in a comment: one line of plain ASCII that ends neither.

    A backslash would continue a ``//`` comment on the next line, as would the trigraph of one.
    """
    line = " ".join(text.encode("ascii", "replace").decode().split())
    line = "".join(character for character in line if character.isprintable())
    line = line.replace("\\", "/").replace("*/", "* /").replace("/*", "/ *")
    return re.sub(r"\?(?=\?)", "? ", line)


def cpp_float(value: float) -> str:
    """Returns the shortest float literal that reads back as the same float32.

    Raises:
        CodegenError: The value is not finite in float32.
    """
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if not np.isfinite(single):
        raise CodegenError("a constant is not finite in float32", got=value)
    # Not str(): what that prints changes with NumPy's version.
    if single == 0 or 1e-4 <= abs(single) < 1e16:
        return np.format_float_positional(single, unique=True, trim="0") + "f"
    return np.format_float_scientific(single, unique=True, trim="-", exp_digits=2) + "f"


def cpp_braced(values: Iterable[object]) -> str:
    """Returns ``{a, b, c}``."""
    return "{" + ", ".join(str(value) for value in values) + "}"


def wrapped(items: Iterable[str], indent: int, *, tail: int = 0) -> str:
    """Joins items with commas over lines of at most ``WIDTH`` columns.

    Args:
        items: Texts that are not broken themselves.
        indent: Column at which every line starts; the first is not indented here.
        tail: Columns to leave free after the last item.
    """
    lines: list[str] = []
    pieces = [f"{item}," for item in items]
    if pieces:
        pieces[-1] = pieces[-1][:-1]
    for number, piece in enumerate(pieces):
        room = WIDTH - indent - (tail if number == len(pieces) - 1 else 0)
        if lines and len(lines[-1]) + 1 + len(piece) <= room:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return ("\n" + " " * indent).join(lines)


def call_arguments(head: str, items: Iterable[str], indent: int, *, tail: int = 2) -> str:
    """Returns a call's arguments, wrapped beside its parenthesis or on lines of their own.

    A single line of their own is better than three short ones.

    Args:
        head: What stands before the parenthesis.
        items: The arguments.
        indent: Column at which the statement starts.
        tail: Columns of what comes after the last argument: ``);``.
    """
    arguments = list(items)
    column = indent + len(head) + 1
    beside = wrapped(arguments, column, tail=tail)
    below = wrapped(arguments, indent + 4, tail=tail)
    fits = column + max(map(len, arguments), default=0) + tail <= WIDTH
    if fits and (beside.count("\n") < 2 or "\n" in below):
        return beside
    return "\n" + " " * (indent + 4) + below


def initializer(head: str, items: Iterable[str], *, tail: int = 1) -> str:
    """Returns ``{a, b, c}``, over several indented lines when one after ``head`` is too short."""
    values = list(items)
    line = cpp_braced(values)
    if len(head) + len(line) + tail <= WIDTH:
        return line
    return "{\n    " + wrapped(values, 4, tail=1 + tail) + "}"


def comment_lines(text: str, indent: int) -> tuple[str, ...]:
    """Returns a text as the lines of a ``//`` comment, safe and within ``WIDTH`` columns."""
    return tuple(
        textwrap.wrap(
            cpp_comment(text),
            width=WIDTH - indent - len("// "),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def declaration(code: str, comment: str, indent: int) -> tuple[str, ...]:
    """Returns a declaration with its comment behind it, or before it where that is too long."""
    line = f"{code}  // {cpp_comment(comment)}"
    if indent + len(line) <= WIDTH:
        return (line,)
    return (*(f"// {part}" for part in comment_lines(comment, indent)), code)


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
        base = _BASES[reference.origin].format(member_name(reference.name))
    return base + "".join(_view(view) for view in reference.views)


def _view(view: View) -> str:
    arguments = (
        cpp_braced(argument) if isinstance(argument, tuple) else str(argument)
        for argument in view.arguments
    )
    return f".{view.method}({', '.join(arguments)})"
