"""The C++ header of an op: found, read, and refused early where it cannot be the right one."""

from __future__ import annotations

import re
from pathlib import Path

from qwen3_codegen.emission.cpp import pascal_case
from qwen3_codegen.errors import OpError
from qwen3_codegen.ir.ops import AttributeKind
from qwen3_codegen.own_ops.row import Op

__all__ = ["class_name", "header_texts", "signature"]

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([A-Za-z0-9_.-]+)"', re.MULTILINE)
_CPP_TYPES = {
    AttributeKind.INT: "int64_t",
    AttributeKind.FLOAT: "float",
    AttributeKind.BOOL: "bool",
}


def class_name(op: Op) -> str:
    """Returns what the class template of an op is called."""
    return str(pascal_case(op.name))


def signature(op: Op) -> str:
    """Returns the declaration that the header of an op must define, sizes aside."""
    several = op.num_results > 1
    results = [f"out{number}" if several else "out" for number in range(op.num_results)]
    tensors = [f"const Tensor& {name}" for name in (*results, *(role.name for role in op.roles))]
    numbers = [f"{_CPP_TYPES[attribute.kind]} {attribute.name}" for attribute in op.attributes]
    sizes = "size_t kColumns" if op.kernel_sizes is None else "size_t..."
    return (
        f"namespace qwen3::native::own {{ template <class T, {sizes}> struct {class_name(op)} "
        f"{{ static void run({', '.join([*tensors, *numbers])}); }}; }}"
    )


def header_texts(op: Op, file: Path) -> dict[str, str]:
    """Returns the header of an op and the files beside it that it includes, by name.

    Raises:
        OpError: One of them is not text, or the header has no class of the op's name.
    """
    texts: dict[str, str] = {}
    wanted = [file.name]
    while wanted:
        name = wanted.pop()
        if name not in texts and (file.parent / name).is_file():
            texts[name] = _text(file.parent / name)
            wanted += _INCLUDE.findall(texts[name])
    if not re.search(rf"\bstruct\s+{class_name(op)}\b", texts[file.name]):
        raise OpError(
            f"the header does not define 'struct {class_name(op)}'",
            where=file,
            expected=signature(op),
        )
    return dict(sorted(texts.items()))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OpError("a header cannot be read", where=file, got=error) from None
