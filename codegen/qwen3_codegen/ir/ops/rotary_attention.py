"""Attention together with what its queries and keys go through just before it."""

from __future__ import annotations

from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops.attention import ATTENTION
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    Element,
    Fusion,
    OpDef,
    Role,
    Shape,
    Shapes,
    calls,
    refused,
)
from qwen3_codegen.ir.ops.norm import RMS_NORM
from qwen3_codegen.ir.ops.rope import ROPE
from qwen3_codegen.ir.ops.shapes import require_shape
from qwen3_codegen.ir.ops.step import Step


def _shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    for role, norm in (("q", "q_norm"), ("k", "k_norm")):
        require_shape(shapes, norm, shapes[role][-1:])
    return ATTENTION.shape_rule(shapes, attributes)


def _heads(inputs: Arrays, attributes: Attributes, step: Step) -> dict[str, Array]:
    """Queries and keys after norm and rotation, and values, as the attention is given them."""
    heads = {}
    for role, norm in (("q", "q_norm"), ("k", "k_norm")):
        x = inputs[role]
        if norm in inputs:
            norm_inputs = {"x": x, "weight": inputs[norm]}
            x = _one(RMS_NORM, norm_inputs, {"eps": attributes["eps"], "offset": 0.0}, step)
        heads[f"{role}_rope"] = _one(ROPE, {"x": x}, attributes, step)
    return {**heads, "v_cache": inputs["v"]}


def _attention(heads: Arrays, attributes: Attributes, step: Step) -> Array:
    inputs = {"q": heads["q_rope"], "k": heads["k_rope"], "v": heads["v_cache"]}
    return _one(ATTENTION, inputs, attributes, step)


def _rotary_attention(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    return _attention(_heads(inputs, attributes, step), attributes, step)


def _one(op: OpDef, inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    result = op.reference(inputs, attributes, step)
    assert not isinstance(result, tuple)
    return result


ROTARY_ATTENTION = OpDef(
    name="rotary_attention",
    doc=(
        "attention(rope(rms_norm(q)), rope(rms_norm(k)), v): norm and rotation of heads on their "
        "way to the attention and into its cache, rounded once. Without q_norm or k_norm those "
        "heads are rotated only. Made by a pass."
    ),
    roles=(
        *ATTENTION.roles,
        Role(name="q_norm", shape="[head_dim]", element=Element.FLOAT32, required=False),
        Role(name="k_norm", shape="[head_dim]", element=Element.FLOAT32, required=False),
    ),
    attributes=(
        *ATTENTION.attributes,
        *ROPE.attributes,
        Attribute(
            name="eps",
            kind=AttributeKind.OPTIONAL_FLOAT,
            doc="added to the variance of both norms; none without them",
            positive=True,
        ),
    ),
    result=f"[{NUM_TOKENS}, heads, v_head_dim]",
    shape_rule=_shape,
    reference=_rotary_attention,
    lowerings={
        "portable": refused("its pass belongs to the native lowering"),
        "native": calls("TransformHeads", "AppendKeyValue", "PagedAttention"),
    },
    stateful=True,
    fusion=Fusion(
        inner=_heads,
        names=("q_rope", "k_rope", "v_cache"),
        last="attention",
        result=_attention,
    ),
)
