"""Matrix products and table lookups."""

from __future__ import annotations

from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    Element,
    OpDef,
    Role,
    Shape,
    Shapes,
    calls,
)
from qwen3_codegen.ir.ops.shapes import require_rank, require_shape
from qwen3_codegen.ir.ops.step import Step


def _embedding_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    (tokens,) = require_rank(shapes, "ids", 1)
    _, hidden = require_rank(shapes, "weight", 2)
    return ((tokens, hidden),)


def _embedding(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    rows: Array = inputs["weight"][inputs["ids"]]
    return rows


def _linear_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    rows, in_features = require_rank(shapes, "x", 2)
    out_features = require_rank(shapes, "weight", 2)[0]
    require_shape(shapes, "weight", (out_features, in_features))
    require_shape(shapes, "bias", (out_features,))
    require_shape(shapes, "residual", (rows, out_features))
    return ((rows, out_features),)


def _linear(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    y: Array = x @ inputs["weight"].T * x.dtype.type(attributes["alpha"])
    if "bias" in inputs:
        y = y + inputs["bias"]
    if "residual" in inputs:
        y = y + inputs["residual"]
    return y


EMBEDDING = OpDef(
    name="embedding",
    doc="y[t] = weight[ids[t]].",
    roles=(
        Role(name="ids", shape=f"[{NUM_TOKENS}]", element=Element.INT32),
        Role(name="weight", shape="[vocab_size, hidden_size]"),
    ),
    result=f"[{NUM_TOKENS}, hidden_size]",
    shape_rule=_embedding_shape,
    reference=_embedding,
    lowerings={"portable": calls(), "native": calls("GatherRows")},
)

LINEAR = OpDef(
    name="linear",
    doc=(
        "y = alpha · (x · weightᵀ) + bias + residual. The product is accumulated and scaled in "
        "float32 before it is rounded."
    ),
    roles=(
        Role(name="x", shape="[rows, in_features]"),
        Role(name="weight", shape="[out_features, in_features]"),
        Role(name="bias", shape="[out_features]", required=False),
        Role(name="residual", shape="[rows, out_features]", required=False),
    ),
    attributes=(Attribute(name="alpha", kind=AttributeKind.FLOAT, doc="factor of the product"),),
    result="[rows, out_features]",
    shape_rule=_linear_shape,
    reference=_linear,
    lowerings={
        "portable": calls("gemm", "rearrange", "add"),
        "native": calls("Linear", "RepeatRow", "CopyRows", "Binary"),
    },
)
