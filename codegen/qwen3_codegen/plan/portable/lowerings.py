"""One function per IR op: node in, definitions and actions out.

An op writes onto its input where the operator allows that and nobody reads the input any more;
otherwise it gets memory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Node
from qwen3_codegen.plan.context import Lowered, RegionContext, number, spread_vector, window_of
from qwen3_codegen.plan.lowering import NodeLowering
from qwen3_codegen.plan.portable.elementwise import (
    lower_binary,
    lower_gelu_tanh,
    lower_relu,
    lower_scale,
    lower_silu,
    lower_swiglu,
)
from qwen3_codegen.plan.records import (
    Action,
    AttentionCall,
    AttentionShape,
    Definition,
    OperatorCall,
    Origin,
    RowCopy,
    TensorRef,
)
from qwen3_codegen.plan.shape_lowerings import lower_reshape, lower_split

NEOX = "INFINIOP_ROPE_ALGO_GPT_NEOX"
GPT_J = "INFINIOP_ROPE_ALGO_GPT_J"


def copy_value(node: Node, context: RegionContext, target: TensorRef, name: str) -> Action:
    """Returns the call that copies a value to ``target``."""
    dtype = context.type_of(name).dtype
    context.engine.use(node, "rearrange", dst=dtype, src=dtype)
    return OperatorCall("rearrange", (target, context.ref(name)))


def _embedding(node: Node, context: RegionContext) -> Lowered:
    definition = context.allocate(node.output)
    target = TensorRef(Origin.VALUE, node.output.name)
    copy = RowCopy(target, context.ref(node.inputs["weight"]), "token_ids")
    return (definition,), (copy,)


def _gather_rows(node: Node, context: RegionContext) -> Lowered:
    definition = context.allocate(node.output)
    target = TensorRef(Origin.VALUE, node.output.name)
    return (definition,), (RowCopy(target, context.ref(node.inputs["x"]), "logit_rows"),)


def _linear(node: Node, context: RegionContext) -> Lowered:
    dtype = node.output.type.dtype
    context.engine.use(node, "gemm", c=dtype, a=dtype, b=dtype)
    target = TensorRef(Origin.VALUE, node.output.name)
    weight = context.ref(node.inputs["weight"])
    if not context.engine.transpose_linear_weights:
        weight = weight.viewed("transposed")
    definition, actions = _linear_start(node, context, target)
    beta = 1.0 if actions or "residual" in node.inputs else 0.0
    gemm = OperatorCall(
        "gemm", (target, context.ref(node.inputs["x"]), weight), (number(node, "alpha"), beta)
    )
    return (definition,), (*actions, gemm)


def _linear_start(
    node: Node, context: RegionContext, target: TensorRef
) -> tuple[Definition, tuple[Action, ...]]:
    """What the product is added to: the residual, the bias, both, or nothing."""
    dtype = node.output.type.dtype
    bias = node.inputs.get("bias")
    residual = node.inputs.get("residual")
    spread_bias = spread_vector(context.ref(bias), node.output.type) if bias else None
    if residual is None:
        definition = context.allocate(node.output)
        if spread_bias is None:
            return definition, ()
        context.engine.use(node, "rearrange", dst=dtype, src=dtype)
        return definition, (OperatorCall("rearrange", (target, spread_bias)),)
    actions: list[Action] = []
    if context.storage.may_overwrite(residual, beside=[node.inputs["x"]]):
        definition = context.overwrite(node.output, residual)
    else:
        definition = context.allocate(node.output)
        context.engine.use(node, "rearrange", dst=dtype, src=dtype)
        actions.append(OperatorCall("rearrange", (target, context.ref(residual))))
    if spread_bias is not None:
        context.engine.use(node, "add", c=dtype, a=dtype, b=dtype)
        actions.append(OperatorCall("add", (target, target, spread_bias)))
    return definition, tuple(actions)


def _rms_norm(node: Node, context: RegionContext) -> Lowered:
    dtype = node.output.type.dtype
    engine = context.engine
    if number(node, "offset") != 0.0:
        raise LoweringError(
            "rms_norm with an offset reached the plan; fold_constants moves it into the weight",
            where=node.location,
        )
    engine.use(node, "rms_norm", y=dtype, x=dtype, w=DType.F32)
    definition = context.allocate(node.output)
    source, weight = context.ref(node.inputs["x"]), context.ref(node.inputs["weight"])
    target = TensorRef(Origin.VALUE, node.output.name)
    epsilon = (number(node, "eps"),)
    rank = len(node.output.type.shape)
    if rank in engine.api.operators["rms_norm"].ranks(engine.device)["x"]:
        return (definition,), (OperatorCall("rms_norm", (target, source, weight), epsilon),)
    # Releases that take matrices only: rows of heads one behind the other are a matrix, too.
    flat = target.viewed("flatten", 0)
    if context.storage.place(node.inputs["x"]).is_contiguous:
        call = OperatorCall("rms_norm", (flat, source.viewed("flatten", 0), weight), epsilon)
        return (definition,), (call,)
    engine.use(node, "rearrange", dst=dtype, src=dtype)
    packed = OperatorCall("rearrange", (target, source))
    return (definition,), (packed, OperatorCall("rms_norm", (flat, flat, weight), epsilon))


def _rope(node: Node, context: RegionContext) -> Lowered:
    dtype = node.output.type.dtype
    engine = context.engine
    types = {"y": dtype, "x": dtype, "sin_table": dtype, "cos_table": dtype}
    engine.use(node, "rope", pos_ids=DType.I32, **types)
    name = str(node.attributes["table"])
    table = engine.graph.rope_tables[name]
    target = TensorRef(Origin.VALUE, node.output.name)
    actions: list[Action] = []
    if context.storage.may_overwrite(node.inputs["x"]):
        definition = context.overwrite(node.output, node.inputs["x"])
    else:
        definition = context.allocate(node.output)
        engine.use(node, "rearrange", dst=dtype, src=dtype)
        actions.append(OperatorCall("rearrange", (target, context.ref(node.inputs["x"]))))
    rotated = target
    if table.rotary_dim != node.output.type.shape[-1]:
        rotated = target.viewed("columns", 0, table.rotary_dim)
    tensors = (
        rotated,
        rotated,
        TensorRef(Origin.POSITIONS, "positions"),
        TensorRef(Origin.SIN_TABLE, name),
        TensorRef(Origin.COS_TABLE, name),
    )
    has_algorithm = any(
        argument.kind.value == "enum" for argument in engine.api.operators["rope"].create_args
    )
    scalars = (GPT_J if table.interleaved else NEOX,) if has_algorithm else ()
    actions.append(OperatorCall("rope", tensors, scalars))
    return (definition,), tuple(actions)


def _attention(node: Node, context: RegionContext) -> Lowered:
    dtype = node.output.type.dtype
    engine = context.engine
    if node.attributes["softcap"] is not None:
        raise LoweringError(
            "attention with a soft cap needs tanh, which InfiniCore does not have",
            where=node.location,
            hint="the native lowering (--dev cpu) carries it out",
        )
    engine.use(node, "gemm", c=dtype, a=dtype, b=dtype)
    engine.use(node, "causal_softmax", y=dtype, x=dtype)
    engine.use(node, "rearrange", dst=dtype, src=dtype)
    query, key, value = (context.ref(node.inputs[role]) for role in ("q", "k", "v"))
    _, num_heads, head_dim = context.type_of(node.inputs["q"]).shape
    _, num_key_value_heads, value_dim = context.type_of(node.inputs["v"]).shape
    if head_dim != value_dim:
        raise LoweringError(
            "keys and values of different head sizes are not carried out",
            where=node.location,
            got=f"{head_dim} and {value_dim}",
        )
    shape = AttentionShape(int(num_heads), int(num_key_value_heads), int(head_dim))
    window = window_of(node)
    if window not in engine.windows:
        engine.windows.append(window)
    definition = context.allocate(node.output)
    call = AttentionCall(
        TensorRef(Origin.VALUE, node.output.name),
        query,
        key,
        value,
        engine.attention_shape(shape),
        window,
        number(node, "scale"),
    )
    return (definition,), (call,)


def _concat(node: Node, context: RegionContext) -> Lowered:
    dtype = node.output.type.dtype
    context.engine.use(node, "rearrange", dst=dtype, src=dtype)
    definition = context.allocate(node.output)
    target = TensorRef(Origin.VALUE, node.output.name)
    actions = []
    start = 0
    for name in node.inputs.values():
        count = int(context.type_of(name).shape[-1])
        part = target.viewed("columns", start, count)
        actions.append(OperatorCall("rearrange", (part, context.ref(name))))
        start += count
    return (definition,), tuple(actions)


LOWERINGS: Mapping[str, NodeLowering] = {
    "add": lower_binary,
    "attention": _attention,
    "concat": _concat,
    "embedding": _embedding,
    "gather_rows": _gather_rows,
    "gelu_tanh": lower_gelu_tanh,
    "linear": _linear,
    "mul": lower_binary,
    "relu": lower_relu,
    "relu2": lower_relu,
    "reshape": lower_reshape,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "scale": lower_scale,
    "silu": lower_silu,
    "split": lower_split,
    "swiglu": lower_swiglu,
}
"""The ops this lowering carries out; every other op is refused by name."""

__all__ = ["LOWERINGS", "copy_value"]
