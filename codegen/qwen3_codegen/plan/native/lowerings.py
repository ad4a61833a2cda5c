"""One function per IR op: node in, definitions and kernel calls out.

An op writes onto its input where nobody reads the input any more; otherwise it gets memory of its
own. The classes that are called stand in ``runtime/cpp/engine/native/ops.hpp``.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Node, Value, ValueType
from qwen3_codegen.plan.context import Lowered, RegionContext, number, onto, target_of, window_of
from qwen3_codegen.plan.lowering import NodeLowering
from qwen3_codegen.plan.native.elements import ELEMENTS, matrix_elements, row_options
from qwen3_codegen.plan.native.experts import lower_moe
from qwen3_codegen.plan.native.functions import UNARY_FUNCTIONS
from qwen3_codegen.plan.records import (
    Action,
    AttentionOptions,
    Definition,
    FloatVector,
    HeadOptions,
    KernelCall,
    Origin,
    StepArgument,
    TensorRef,
)
from qwen3_codegen.plan.shape_lowerings import lower_reshape, lower_split
from qwen3_codegen.plan.storage import row_elements


def copy_value(node: Node, context: RegionContext, target: TensorRef, name: str) -> Action:
    """Returns the call that copies a value to ``target``."""
    sizes = (row_elements(context.type_of(name)),)
    return KernelCall("CopyRows", sizes, (target, context.ref(name)))


def _embedding(node: Node, context: RegionContext) -> Lowered:
    return _gather(node, context, "weight", StepArgument.TOKEN_IDS)


def _gather_rows(node: Node, context: RegionContext) -> Lowered:
    return _gather(node, context, "x", StepArgument.LOGIT_ROWS)


def _gather(node: Node, context: RegionContext, role: str, rows: StepArgument) -> Lowered:
    definition = context.allocate(node.output)
    elements = matrix_elements(node, role, context)
    arguments = (target_of(node), context.ref(node.inputs[role]), rows)
    return (definition,), (
        KernelCall("GatherRows", (row_elements(node.output.type), *elements), arguments),
    )


def _linear(node: Node, context: RegionContext) -> Lowered:
    target = target_of(node)
    definition, actions = _linear_start(node, context)
    beta = 1.0 if actions or "residual" in node.inputs else 0.0
    sizes = (row_elements(context.type_of(node.inputs["x"])), row_elements(node.output.type))
    elements = matrix_elements(node, "weight", context) + row_options(node, "weight", context)
    operands = (target, context.ref(node.inputs["x"]), context.ref(node.inputs["weight"]))
    call = KernelCall("Linear", (*sizes, *elements), (*operands, number(node, "alpha"), beta))
    return (definition,), (*actions, call)


def _linear_start(node: Node, context: RegionContext) -> tuple[Definition, tuple[Action, ...]]:
    """What the product is added to: the residual, the bias, both, or nothing."""
    target, columns = target_of(node), row_elements(node.output.type)
    bias, residual = node.inputs.get("bias"), node.inputs.get("residual")
    actions: list[Action] = []
    if residual is None:
        definition = context.allocate(node.output)
        if bias is not None:
            actions.append(KernelCall("RepeatRow", (columns,), (target, context.ref(bias))))
        return definition, tuple(actions)
    if context.storage.may_overwrite(residual, beside=[node.inputs["x"]]):
        definition = context.overwrite(node.output, residual)
    else:
        definition = context.allocate(node.output)
        actions.append(copy_value(node, context, target, residual))
    if bias is not None:
        spread = context.ref(bias).viewed("repeated", 0, node.output.type.shape[0])
        actions.append(KernelCall("Binary", (columns, "Add"), (target, target, spread)))
    return definition, tuple(actions)


def _layer_norm(node: Node, context: RegionContext) -> Lowered:
    definition = onto(node.inputs["x"], node, context)
    source, weight = context.ref(node.inputs["x"]), context.ref(node.inputs["weight"])
    bias = FloatVector(context.ref(node.inputs["bias"]) if "bias" in node.inputs else None)
    arguments = (target_of(node), source, weight, bias, number(node, "eps"))
    return (definition,), (KernelCall("LayerNorm", _runs(node.output.type), arguments),)


def _runs(type_: ValueType) -> tuple[int, int]:
    """Runs of the last dimension in a row, and their size."""
    return row_elements(type_) // int(type_.shape[-1]), int(type_.shape[-1])


def _rms_norm(node: Node, context: RegionContext) -> Lowered:
    if number(node, "offset") != 0.0:
        raise LoweringError(
            "rms_norm with an offset reached the plan; fold_constants moves it into the weight",
            where=node.location,
        )
    definition = onto(node.inputs["x"], node, context)
    source, weight = context.ref(node.inputs["x"]), context.ref(node.inputs["weight"])
    arguments = (target_of(node), source, weight, number(node, "eps"))
    return (definition,), (KernelCall("RmsNorm", _runs(node.output.type), arguments),)


def _rope(node: Node, context: RegionContext) -> Lowered:
    definition = onto(node.inputs["x"], node, context)
    _, heads, head_dim = node.output.type.shape
    options = _head_options(node, context, norm=None, table="table")
    arguments = (target_of(node), context.ref(node.inputs["x"]), options, StepArgument.POSITIONS)
    return (definition,), (KernelCall("TransformHeads", (int(heads), int(head_dim)), arguments),)


def _head_options(
    node: Node, context: RegionContext, *, norm: str | None, table: str | None
) -> HeadOptions:
    weight = node.inputs.get(norm) if norm is not None else None
    return HeadOptions(
        norm=context.ref(weight) if weight is not None else None,
        epsilon=number(node, "eps") if weight is not None else 0.0,
        table=context.engine.graph.rope_tables[str(node.attributes[table])] if table else None,
    )


def _attention(node: Node, context: RegionContext) -> Lowered:
    nothing = _head_options(node, context, norm=None, table=None)
    return _attend(node, context, context.ref(node.inputs["q"]), nothing)


def _rotary_attention(node: Node, context: RegionContext) -> Lowered:
    name = node.inputs["q"]
    type_ = context.type_of(name)
    _, heads, head_dim = type_.shape
    rotated = Value(context.unused_name(f"{name}_rotated"), type_)
    if context.storage.may_overwrite(name, beside=[node.inputs["k"], node.inputs["v"]]):
        definition = context.overwrite(rotated, name)
    else:
        definition = context.allocate(rotated)
    query = TensorRef(Origin.VALUE, rotated.name)
    options = _head_options(node, context, norm="q_norm", table="table")
    transform = KernelCall(
        "TransformHeads",
        (int(heads), int(head_dim)),
        (query, context.ref(name), options, StepArgument.POSITIONS),
    )
    keys = _head_options(node, context, norm="k_norm", table="table")
    definitions, actions = _attend(node, context, query, keys)
    return (definition, *definitions), (transform, *actions)


def _attend(node: Node, context: RegionContext, query: TensorRef, keys: HeadOptions) -> Lowered:
    """Keys and values go into the cache, then queries over all of it."""
    _, heads, head_dim = context.type_of(node.inputs["q"]).shape
    _, kv_heads, value_dim = context.type_of(node.inputs["v"]).shape
    if head_dim != value_dim:
        raise LoweringError(
            "keys and values of different head sizes are not carried out",
            where=node.location,
            got=f"{head_dim} and {value_dim}",
        )
    key, value = (context.ref(node.inputs[role]) for role in ("k", "v"))
    sizes = (ELEMENTS[context.engine.cache_dtype], int(kv_heads), int(head_dim))
    cache, sequences = StepArgument.CACHE, StepArgument.SEQUENCES
    append = KernelCall("AppendKeyValue", sizes, (cache, sequences, key, value, keys))
    options = AttentionOptions(
        scale=number(node, "scale"),
        window=window_of(node),
        softcap=None if node.attributes["softcap"] is None else number(node, "softcap"),
    )
    definition = context.allocate(node.output)
    arguments = (target_of(node), query, cache, sequences, options)
    element, *key_sizes = sizes
    attend = KernelCall("PagedAttention", (element, int(heads), *key_sizes), arguments)
    return (definition,), (append, attend)


def _unary(node: Node, context: RegionContext) -> Lowered:
    definition = onto(node.inputs["x"], node, context)
    sizes = (row_elements(node.output.type), UNARY_FUNCTIONS[node.op])
    arguments = (target_of(node), context.ref(node.inputs["x"]))
    return (definition,), (KernelCall("Unary", sizes, arguments),)


def _binary(node: Node, context: RegionContext) -> Lowered:
    first, second = (node.inputs[role] for role in ("a", "b"))
    if context.type_of(second).shape != node.output.type.shape:
        return _scale_groups(node, context, first, second)
    return _two_inputs(node, context, first, second, {"add": "Add", "mul": "Mul"}[node.op])


def _scale_groups(node: Node, context: RegionContext, source: str, factors: str) -> Lowered:
    """A product with one number per run of the last dimension."""
    definition = onto(source, node, context, beside=[factors])
    arguments = (target_of(node), context.ref(source), context.ref(factors))
    return (definition,), (KernelCall("ScaleGroups", _runs(node.output.type), arguments),)


def _swiglu(node: Node, context: RegionContext) -> Lowered:
    return _two_inputs(node, context, node.inputs["gate"], node.inputs["up"], "SwiGlu")


def _two_inputs(
    node: Node, context: RegionContext, first: str, second: str, function: str
) -> Lowered:
    definition = onto(first, node, context, beside=[second])
    arguments = (target_of(node), context.ref(first), context.ref(second))
    sizes = (row_elements(node.output.type), function)
    return (definition,), (KernelCall("Binary", sizes, arguments),)


def _scale(node: Node, context: RegionContext) -> Lowered:
    definition = onto(node.inputs["x"], node, context)
    arguments = (target_of(node), context.ref(node.inputs["x"]), number(node, "factor"))
    return (definition,), (KernelCall("ScaleRows", (row_elements(node.output.type),), arguments),)


def _concat(node: Node, context: RegionContext) -> Lowered:
    definition = context.allocate(node.output)
    target = target_of(node)
    if len(node.output.type.shape) != 2:
        raise LoweringError(
            "values of two dimensions only can be joined",
            where=node.location,
            got=str(node.output.type),
            hint="join before reshape",
        )
    actions = []
    start = 0
    for name in node.inputs.values():
        columns = row_elements(context.type_of(name))
        part = target.viewed("columns", start, columns)
        actions.append(copy_value(node, context, part, name))
        start += columns
    return (definition,), tuple(actions)


LOWERINGS: Mapping[str, NodeLowering] = {
    "add": _binary,
    "attention": _attention,
    "concat": _concat,
    "embedding": _embedding,
    "gather_rows": _gather_rows,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "moe": lower_moe,
    "mul": _binary,
    "reshape": lower_reshape,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "rotary_attention": _rotary_attention,
    "scale": _scale,
    "split": lower_split,
    "swiglu": _swiglu,
    **dict.fromkeys(UNARY_FUNCTIONS, _unary),
}
"""The ops this lowering carries out; every other op is refused by name."""
