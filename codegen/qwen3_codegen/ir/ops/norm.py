"""Normalisations over the last dimension."""

from __future__ import annotations

import numpy as np

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
    refused,
)
from qwen3_codegen.ir.ops.shapes import require_rank, require_shape
from qwen3_codegen.ir.ops.step import Step

_EPS = Attribute(name="eps", kind=AttributeKind.FLOAT, doc="added to the variance", positive=True)


def _norm_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    shape = require_rank(shapes, "x", 2, 3)
    require_shape(shapes, "weight", shape[-1:])
    require_shape(shapes, "bias", shape[-1:])
    return (shape,)


def _rms_norm(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    scalar = x.dtype.type
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    normed = x / np.sqrt(mean_square + scalar(attributes["eps"]))
    result: Array = normed * (inputs["weight"] + scalar(attributes["offset"]))
    return result


def _layer_norm(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    y: Array = centred / np.sqrt(variance + x.dtype.type(attributes["eps"])) * inputs["weight"]
    return y + inputs["bias"] if "bias" in inputs else y


def _l2_norm(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    total = np.sum(x * x, axis=-1, keepdims=True)
    normed: Array = x / np.sqrt(total + x.dtype.type(attributes["eps"]))
    return normed


RMS_NORM = OpDef(
    name="rms_norm",
    doc=(
        "y = x / sqrt(mean(x²) + eps) · (weight + offset) over the last dimension: the whole row "
        "for [rows, size], each head for [rows, heads, size]. Zhang and Sennrich 2019; offset 1 "
        "is Gemma's, transformers `modeling_gemma3.py`."
    ),
    roles=(
        Role(name="x", shape="[rows, (heads,) size]"),
        Role(name="weight", shape="[size]", element=Element.FLOAT32),
    ),
    attributes=(
        _EPS,
        Attribute(name="offset", kind=AttributeKind.FLOAT, doc="added to the weight"),
    ),
    result="the shape of x",
    shape_rule=_norm_shape,
    reference=_rms_norm,
    lowerings={"portable": calls("rms_norm", "rearrange"), "native": calls("RmsNorm")},
)

LAYER_NORM = OpDef(
    name="layer_norm",
    doc="y = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias. Ba, Kiros and Hinton 2016.",
    roles=(
        Role(name="x", shape="[rows, (heads,) size]"),
        Role(name="weight", shape="[size]", element=Element.FLOAT32),
        Role(name="bias", shape="[size]", element=Element.FLOAT32, required=False),
    ),
    attributes=(_EPS,),
    result="the shape of x",
    shape_rule=_norm_shape,
    reference=_layer_norm,
    lowerings={
        "portable": refused("InfiniCore as recorded here has no layer_norm operator"),
        "native": calls("LayerNorm"),
    },
)

L2_NORM = OpDef(
    name="l2_norm",
    doc=(
        "y = x / sqrt(sum(x²) + eps) over the last dimension. transformers "
        "`modeling_qwen3_next.py`, `l2norm`."
    ),
    roles=(Role(name="x", shape="[rows, (heads,) size]"),),
    attributes=(_EPS,),
    result="the shape of x",
    shape_rule=_norm_shape,
    reference=_l2_norm,
    lowerings={
        "portable": refused("used only by gated_delta_net, which has no decomposition"),
        "native": refused("used only by gated_delta_net, which has no kernel yet"),
    },
)
