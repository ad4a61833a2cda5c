"""Rotary position embedding."""

from __future__ import annotations

import numpy as np

from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    OpDef,
    Role,
    Shape,
    Shapes,
    calls,
)
from qwen3_codegen.ir.ops.shapes import require_rank
from qwen3_codegen.ir.ops.step import Step


def _rope_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    return (require_rank(shapes, "x", 3),)


def _rope(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    angles = step.rope[str(attributes["table"])]
    cos, sin = angles.cos[:, None, :], angles.sin[:, None, :]
    half = angles.rotary_dim // 2
    if angles.interleaved:
        first, second = slice(0, angles.rotary_dim, 2), slice(1, angles.rotary_dim, 2)
    else:
        first, second = slice(0, half), slice(half, angles.rotary_dim)
    rotated = np.array(x)
    rotated[..., first] = x[..., first] * cos - x[..., second] * sin
    rotated[..., second] = x[..., second] * cos + x[..., first] * sin
    return rotated


ROPE = OpDef(
    name="rope",
    doc=(
        "Rotates pairs of the leading rotary_dim elements of every head by position · inv_freq: "
        "(a, b) becomes (a cos - b sin, b cos + a sin). Pairs are (i, i + rotary_dim/2), or "
        "(2i, 2i+1) in an interleaved table. Su et al. 2021; tables follow transformers "
        "`modeling_rope_utils.py`."
    ),
    roles=(Role(name="x", shape=f"[{NUM_TOKENS}, heads, head_dim]"),),
    attributes=(
        Attribute(
            name="table", kind=AttributeKind.ROPE_TABLE, doc="name of a rope table of the graph"
        ),
    ),
    result="the shape of x",
    shape_rule=_rope_shape,
    reference=_rope,
    lowerings={"portable": calls("rope", "rearrange"), "native": calls("TransformHeads")},
)
