"""Mixture of experts."""

from __future__ import annotations

import numpy as np

from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops.activation import ACTIVATIONS
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    OpDef,
    OpRuleError,
    Role,
    Shape,
    Shapes,
    calls,
    refused,
)
from qwen3_codegen.ir.ops.shapes import require_rank, require_shape, size_of
from qwen3_codegen.ir.ops.step import Step


def _moe_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    rows, hidden = require_rank(shapes, "x", 2)
    experts, intermediate, _ = require_rank(shapes, "gate", 3)
    require_shape(shapes, "router", (experts, hidden))
    require_shape(shapes, "gate", (experts, intermediate, hidden))
    require_shape(shapes, "up", (experts, intermediate, hidden))
    require_shape(shapes, "down", (experts, hidden, intermediate))
    top_k = attributes["top_k"]
    assert isinstance(top_k, int)
    if top_k > size_of(experts, "gate"):
        raise OpRuleError("more experts per token than experts", got=top_k, expected=experts)
    return ((rows, hidden),)


def _moe(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    weights = _routing_weights(x @ inputs["router"].T, attributes)
    activate = ACTIVATIONS[str(attributes["activation"])]
    out = np.zeros_like(x)
    for expert in range(weights.shape[1]):
        (rows,) = np.nonzero(weights[:, expert])
        tokens = x[rows]
        gate, up = tokens @ inputs["gate"][expert].T, tokens @ inputs["up"][expert].T
        y = (activate(gate) * up) @ inputs["down"][expert].T
        out[rows] += y * weights[rows, expert, None]
    return out


def _routing_weights(logits: Array, attributes: Attributes) -> Array:
    """[rows, experts]: the weight of each chosen expert, zero for the others."""
    probabilities: Array = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    chosen = order[:, : attributes["top_k"]]
    weights = np.zeros_like(probabilities)
    np.put_along_axis(weights, chosen, np.take_along_axis(probabilities, chosen, -1), -1)
    if attributes["normalize"]:
        weights /= weights.sum(axis=-1, keepdims=True)
    return weights


MOE = OpDef(
    name="moe",
    doc=(
        "p = softmax(x · routerᵀ); the top_k experts of each row by p, lower index first among "
        "equals, give y = Σ p[e] · down[e](activation(gate[e](x)) · up[e](x)), the p of the "
        "chosen ones divided by their sum when normalize is true. transformers "
        "`modeling_qwen3_moe.py`."
    ),
    roles=(
        Role(name="x", shape=f"[{NUM_TOKENS}, hidden]"),
        Role(name="router", shape="[experts, hidden]"),
        Role(name="gate", shape="[experts, intermediate, hidden]"),
        Role(name="up", shape="[experts, intermediate, hidden]"),
        Role(name="down", shape="[experts, hidden, intermediate]"),
    ),
    attributes=(
        Attribute(
            name="top_k", kind=AttributeKind.INT, doc="experts used per token", positive=True
        ),
        Attribute(
            name="normalize", kind=AttributeKind.BOOL, doc="weights of a token add up to one"
        ),
        Attribute(name="activation", kind=AttributeKind.ACTIVATION, doc="name of an activation op"),
    ),
    result=f"[{NUM_TOKENS}, hidden]",
    shape_rule=_moe_shape,
    reference=_moe,
    lowerings={
        "portable": refused("choosing experts needs values on the host in the middle of a step"),
        "native": calls("ChooseExperts", "Linear", "MixExperts"),
    },
)
