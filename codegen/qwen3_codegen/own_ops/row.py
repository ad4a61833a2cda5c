"""``Op``, the row as a user writes it, and what must hold of one."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from qwen3_codegen.errors import OpError
from qwen3_codegen.frontend.own_ops import ATTRIBUTE_READERS
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.ir.ops.definition import (
    Attribute,
    Element,
    KernelSizes,
    Reference,
    Role,
    ShapeRule,
)
from qwen3_codegen.ir.ops.own import WeightShape
from qwen3_codegen.spec.evaluation import NUMBER_FUNCTIONS
from qwen3_codegen.spec.functions import FUNCTIONS
from qwen3_codegen.spec.names import CPP_KEYWORDS

__all__ = ["Op", "check_row"]

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 48
_WEIGHT_FUNCTIONS = ("rows", "concat", "tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """A row of one's own for the op table.

    A statement calls it with the values in the order of ``roles`` and with weights and attributes
    as keywords: ``y = gated_clip(a, b, weight=mlp.gain, limit=3.0)``.
    """

    name: str
    """That of the file. Lower-case words joined by ``_``; the C++ class is ``GatedClip``."""
    doc: str
    """Formula first; then the source of it where there is one."""
    roles: tuple[Role, ...]
    """Inputs, in order; the first one is a value, with tokens as its first dimension."""
    attributes: tuple[Attribute, ...] = ()
    """Constants of kind INT, FLOAT or BOOL: ``int64_t``, ``float`` and ``bool`` in C++."""
    weights: Mapping[str, WeightShape] = field(default_factory=dict)
    """The roles that are checkpoint tensors, and the shape of each, as a function of the shapes of
    the values by role and of the attributes."""
    result: str
    """Shape of the result or results, for people to read."""
    num_results: int = 1
    shape_rule: ShapeRule
    """Shapes by role and attributes to a tuple of result shapes; may raise OpRuleError."""
    reference: Reference
    """Arrays by role, attributes and the step to the result, or a tuple of results, in NumPy."""
    kernel_sizes: KernelSizes | None = None
    """Template arguments behind the element type, from shapes by role and attributes; None gives
    the elements of one row of the first input."""


def check_row(op: object, name: str, where: str) -> Op:
    """Returns what a file calls ``OP`` if it is a row.

    Args:
        op: The object.
        name: What the file is called.
        where: The file, for messages.

    Raises:
        OpError: It is not.
    """
    if not isinstance(op, Op):
        raise OpError(
            "OP is not a row of an op",
            where=where,
            got=type(op).__name__,
            expected="OP = Op(...), with Op from qwen3_codegen.ops",
        )
    # The first one alone: later checks take for granted what earlier ones say.
    for message, got, expected in chain(
        _name_problems(op, name), _role_problems(op), _other_problems(op)
    ):
        raise OpError(message, where=where, got=got, expected=expected)
    return op


_Problem = tuple[str, object, object]


def _name_problems(op: Op, name: str) -> Iterator[_Problem]:
    if op.name != name:
        yield "an op has the name of its file", repr(op.name), name
    if not _is_identifier(name) or len(name) > _LONGEST_NAME:
        words = f"lower-case words joined by '_', {_LONGEST_NAME} letters at most, no keyword"
        yield "not a name of an op", ascii(name), words
    if name in {*OPS, *FUNCTIONS}:
        yield f"there is a built-in op '{name}'", name, "another name"
    if name in {*NUMBER_FUNCTIONS, *_WEIGHT_FUNCTIONS}:
        yield f"'{name}' is a function of the spec language", name, "another name"


def _is_identifier(name: object) -> bool:
    """Whether a name may stand in statements, in Python and in C++."""
    return (
        isinstance(name, str)
        and _NAME.fullmatch(name) is not None
        and not keyword.iskeyword(name)
        and name not in CPP_KEYWORDS
    )


def _role_problems(op: Op) -> Iterator[_Problem]:
    if not _is_list_of(op.roles, Role) or not op.roles:
        yield "roles are one or more Role(...)", repr(op.roles), "roles=(Role(...), ...)"
    weights: object = op.weights
    if not isinstance(weights, Mapping):
        yield "weights map roles to functions", repr(weights), "weights={'role': function}"
    yield from _item_problems([role.name for role in op.roles])
    for role in op.roles:
        if role.variadic or not role.required:
            given = "variadic" if role.variadic else "optional"
            yield f"input '{role.name}' is {given}", given, "inputs that every call gives"
        if role.element not in (Element.ACTIVATION, Element.FLOAT32):
            yield f"input '{role.name}' has another element", role.element, "ACTIVATION or FLOAT32"
        if role.element is Element.FLOAT32 and role.name not in op.weights:
            hint = "Element.ACTIVATION, or an entry in weights"
            yield f"input '{role.name}' is a float32 value", "Element.FLOAT32", hint
    if unknown := set(op.weights) - {role.name for role in op.roles}:
        yield "weights name roles", ", ".join(sorted(map(str, unknown))), "names of roles"
    if op.roles[0].name in op.weights:
        yield "the first input is a weight", op.roles[0].name, "a value first, weights after it"


def _other_problems(op: Op) -> Iterator[_Problem]:
    if not _is_list_of(op.attributes, Attribute):
        yield "attributes are Attribute(...)", repr(op.attributes), "attributes=(Attribute(...),)"
    for attribute in op.attributes:
        if attribute.kind not in ATTRIBUTE_READERS:
            kinds = ", ".join(kind.name for kind in ATTRIBUTE_READERS)
            yield f"attribute '{attribute.name}' is of another kind", attribute.kind, kinds
    names = [role.name for role in op.roles] + [each.name for each in op.attributes]
    yield from _item_problems(names)
    for field_name in ("doc", "result"):
        text = getattr(op, field_name)
        if not isinstance(text, str) or not text.strip():
            yield f"'{field_name}' is no text", repr(text), "a text"
    functions = {"shape_rule": op.shape_rule, "reference": op.reference, **op.weights}
    if op.kernel_sizes is not None:
        functions["kernel_sizes"] = op.kernel_sizes
    for field_name, function in functions.items():
        if not callable(function):
            yield f"'{field_name}' is no function", repr(function), "a function"
    if type(op.num_results) is not int or op.num_results < 1:
        yield "'num_results' is no number of results", repr(op.num_results), "1 or more"


def _item_problems(names: Sequence[str]) -> Iterator[_Problem]:
    for name in names:
        if not _is_identifier(name) or names.count(name) > 1:
            got = ascii(name) if names.count(name) == 1 else f"{name}, {names.count(name)} times"
            yield "not a name of an input or attribute", got, "distinct words as a_b, no keyword"


def _is_list_of(items: object, kind: type) -> bool:
    return isinstance(items, tuple | list) and all(isinstance(item, kind) for item in items)
