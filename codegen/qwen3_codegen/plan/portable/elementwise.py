"""Lowerings of ops that treat every element alone: sums, products, activations."""

from __future__ import annotations

import math
from dataclasses import replace

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Node
from qwen3_codegen.plan.context import (
    Lowered,
    RegionContext,
    number,
    onto,
    spread_last,
    spread_scalar,
    target_of,
)
from qwen3_codegen.plan.records import (
    ActivationCall,
    OperatorCall,
    Origin,
    TensorRef,
)
from qwen3_codegen.plan.storage import row_elements


def lower_binary(node: Node, context: RegionContext) -> Lowered:
    """``add`` and ``mul``; the second operand's last size may be 1 and is spread then."""
    dtype = node.output.type.dtype
    context.engine.use(node, node.op, c=dtype, a=dtype, b=dtype)
    first, second = node.inputs["a"], node.inputs["b"]
    operands = [context.ref(first), context.ref(second)]
    if context.type_of(second).shape != node.output.type.shape:
        operands[1] = spread_last(operands[1], node.output.type)
    definition = onto(first, node, context, beside=[second])
    return (definition,), (OperatorCall(node.op, (target_of(node), *operands)),)


def lower_scale(node: Node, context: RegionContext) -> Lowered:
    """``scale`` by a constant: a product with a scalar that is spread over the value.

    Devices without ``mul`` do it with gemm's beta; see ``_scale_by_gemm``.
    """
    dtype = node.output.type.dtype
    engine = context.engine
    if not engine.api.supports("mul", engine.device) and len(node.output.type.shape) == 2:
        return _scale_by_gemm(node, context)
    engine.use(node, "mul", c=dtype, a=dtype, b=dtype)
    factor = engine.constant("scale", number(node, "factor"))
    source = node.inputs["x"]
    definition = onto(source, node, context)
    spread = spread_scalar(factor, node.output.type)
    return (definition,), (OperatorCall("mul", (target_of(node), context.ref(source), spread)),)


def _scale_by_gemm(node: Node, context: RegionContext) -> Lowered:
    """The gemm y = a b + factor · y, where a [rows, 1] and b [1, columns] are zeros."""
    dtype = node.output.type.dtype
    engine = context.engine
    engine.use(node, "gemm", c=dtype, a=dtype, b=dtype)
    engine.use(node, "rearrange", dst=dtype, src=dtype)
    rows, columns = node.output.type.shape
    engine.scratch_columns = max(engine.scratch_columns, row_elements(node.output.type) + 1)
    scratch = TensorRef(Origin.BUFFER, "scratch")
    left = scratch.viewed("rows", 0, rows).viewed("shaped", (rows, 1))
    right = scratch.viewed("rows", rows, columns).viewed("shaped", (1, columns))
    zero = engine.constant("zero", 0.0)
    actions = [
        OperatorCall(
            "rearrange", (part, spread_scalar(zero, replace(node.output.type, shape=shape)))
        )
        for part, shape in ((left, (rows, 1)), (right, (1, columns)))
    ]
    source = context.ref(node.inputs["x"])
    definition = onto(node.inputs["x"], node, context)
    if definition.reference != source:
        actions.append(OperatorCall("rearrange", (target_of(node), source)))
    gemm = OperatorCall("gemm", (target_of(node), left, right), (1.0, number(node, "factor")))
    return (definition,), (*actions, gemm)


def lower_swiglu(node: Node, context: RegionContext) -> Lowered:
    """``swiglu``; InfiniCore takes up before gate."""
    dtype = node.output.type.dtype
    context.engine.use(node, "swiglu", c=dtype, a=dtype, b=dtype)
    gate, up = node.inputs["gate"], node.inputs["up"]
    definition = onto(gate, node, context, beside=[up])
    return (definition,), (
        OperatorCall("swiglu", (target_of(node), context.ref(up), context.ref(gate))),
    )


def lower_silu(node: Node, context: RegionContext) -> Lowered:
    """silu(x) = 1 * x * sigmoid(x): swiglu with ones for ``up``."""
    dtype = node.output.type.dtype
    context.engine.use(node, "swiglu", c=dtype, a=dtype, b=dtype)
    ones = spread_scalar(context.engine.constant("one", 1.0), node.output.type)
    source = node.inputs["x"]
    definition = onto(source, node, context)
    return (definition,), (OperatorCall("swiglu", (target_of(node), ones, context.ref(source))),)


def lower_relu(node: Node, context: RegionContext) -> Lowered:
    """``relu``, and ``relu2`` as its product with itself."""
    dtype = node.output.type.dtype
    context.engine.use(node, "relu", y=dtype, x=dtype)
    definition = context.allocate(node.output)
    target = target_of(node)
    relu = OperatorCall("relu", (target, context.ref(node.inputs["x"])))
    if node.op == "relu":
        return (definition,), (relu,)
    context.engine.use(node, "mul", c=dtype, a=dtype, b=dtype)
    return (definition,), (relu, OperatorCall("mul", (target, target, target)))


def lower_gelu_tanh(node: Node, context: RegionContext) -> Lowered:
    """``gelu_tanh`` by the template of that name in ``activations.hpp``."""
    dtype = node.output.type.dtype
    engine = context.engine
    if len(node.output.type.shape) != 2:
        raise LoweringError(
            "gelu_tanh is carried out for two dimensions only",
            where=node.location,
            got=str(node.output.type),
            hint="apply it before reshape",
        )
    engine.use(node, "mul", c=dtype, a=dtype, b=dtype)
    engine.use(node, "add", c=dtype, a=dtype, b=dtype)
    engine.use(node, "causal_softmax", y=dtype, x=dtype)
    engine.use(node, "rearrange", dst=dtype, src=dtype)
    slope = 2.0 * math.sqrt(2.0 / math.pi)
    constants = (
        engine.constant("gelu_cubic", slope * 0.044715),
        engine.constant("gelu_linear", slope),
        engine.constant("zero", 0.0),
    )
    definition = context.allocate(node.output)
    engine.scratch_columns = max(engine.scratch_columns, 3 * row_elements(node.output.type))
    call = ActivationCall(
        "gelu_tanh",
        target_of(node),
        context.ref(node.inputs["x"]),
        constants,
        TensorRef(Origin.BUFFER, "scratch"),
    )
    return (definition,), (call,)
