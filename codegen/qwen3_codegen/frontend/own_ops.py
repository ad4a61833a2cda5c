"""Calls of the user's own ops to nodes, all by the row of the op."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend.call import CallSite
from qwen3_codegen.ir.graph import AttributeValue, Value
from qwen3_codegen.ir.ops import AttributeKind, Element, OpRuleError
from qwen3_codegen.ir.ops.own import OwnFunction

__all__ = ["ATTRIBUTE_READERS", "emit_own"]

ATTRIBUTE_READERS: Mapping[AttributeKind, Callable[[CallSite, str], AttributeValue]] = {
    AttributeKind.INT: CallSite.whole_number,
    AttributeKind.FLOAT: CallSite.number,
    AttributeKind.BOOL: CallSite.flag,
}
"""Kinds of attributes that an op of the user's own may have."""


def emit_own(call: CallSite, function: OwnFunction) -> tuple[Value, ...]:
    """Adds the node of a call.

    Raises:
        SpecError: An argument does not fit, or the op's rules refuse the inputs.
        OpError: A rule of the op is wrong itself.
    """
    definition = function.definition
    attributes = {
        attribute.name: ATTRIBUTE_READERS[attribute.kind](call, attribute.name)
        for attribute in definition.attributes
    }
    names = [role.name for role in definition.roles if role.name not in function.weights]
    inputs = dict(zip(names, call.inputs, strict=True))
    shapes = {name: value.type.shape for name, value in inputs.items()}
    for role in definition.roles:
        if role.name in function.weights:
            dtype = DType.F32 if role.element is Element.FLOAT32 else None
            try:
                shape = function.weights[role.name](shapes, attributes)
            except OpRuleError as error:
                raise call.fail(error.message, got=error.got, expected=error.expected) from None
            inputs[role.name] = call.weight(role.name, shape, dtype=dtype)
    ordered = {role.name: inputs[role.name] for role in definition.roles}
    return call.emit(definition.name, ordered, attributes)
