"""Ops of the user's own: one call of the class template in the op's header."""

from __future__ import annotations

from qwen3_codegen.ir.graph import AttributeValue, Node
from qwen3_codegen.ir.ops import ops_of
from qwen3_codegen.plan.context import Lowered, RegionContext
from qwen3_codegen.plan.records import KernelCall, Origin, TensorRef

__all__ = ["NAMESPACE", "lower_own"]

NAMESPACE = "own"
"""Inside ``qwen3::native``, so that no class of the user's can meet one of ``ops.hpp``."""


def lower_own(node: Node, context: RegionContext) -> Lowered:
    """Returns a call with the results, the inputs and the attributes, each in the row's order.

    Results get memory of their own, so that a kernel may write in any order.
    """
    definition = ops_of(context.engine.graph)[node.op]
    kernel = definition.kernel
    assert kernel is not None
    names = {role.name: node.inputs[role.name] for role in definition.roles}
    shapes = {role: context.type_of(name).shape for role, name in names.items()}
    definitions = tuple(context.allocate(value) for value in node.outputs)
    arguments = (
        *(TensorRef(Origin.VALUE, value.name) for value in node.outputs),
        *(context.ref(name) for name in names.values()),
        *(_number(node.attributes[attribute.name]) for attribute in definition.attributes),
    )
    sizes = kernel.sizes(shapes, node.attributes)
    return definitions, (KernelCall(f"{NAMESPACE}::{kernel.class_name}", sizes, arguments),)


def _number(value: AttributeValue) -> int | float | bool:
    assert isinstance(value, int | float)
    return value
