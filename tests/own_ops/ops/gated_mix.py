"""Everything an op may have: two values of different sizes, two weights, all kinds of attributes,
sizes of its own, two results.
"""

from __future__ import annotations

import numpy as np

from qwen3_codegen.ops import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    Element,
    Op,
    OpRuleError,
    Role,
    Shape,
    Shapes,
    Step,
    require_rank,
)


def shape_rule(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    rows, columns = require_rank(shapes, "x", 2)
    _, groups = require_rank(shapes, "gate", 2)
    if columns % groups:
        raise OpRuleError("gates do not divide the columns", got=groups, expected=f"of {columns}")
    return (rows, columns), (rows, groups)


def reference(inputs: Arrays, attributes: Attributes, step: Step) -> tuple[Array, Array]:
    x, gate = inputs["x"], inputs["gate"]
    strength = 1 / (1 + np.exp(-gate * x.dtype.type(attributes["sharpness"])))
    if attributes["inverted"]:
        strength = 1 - strength
    spread = np.repeat(strength, x.shape[1] // gate.shape[1], axis=1)
    shifted = np.roll(x, attributes["shift"], axis=1)
    return x * spread + shifted * inputs["gain"] * (1 - spread), strength * inputs["floor"]


OP = Op(
    name="gated_mix",
    doc="y = x · s + roll(x, shift) · gain · (1 - s) with s = sigmoid(sharpness · gate) per group.",
    roles=(
        Role(name="x", shape="[rows, columns]"),
        Role(name="gate", shape="[rows, groups]"),
        Role(name="gain", shape="[columns]", element=Element.FLOAT32),
        Role(name="floor", shape="[groups]"),
    ),
    weights={
        "gain": lambda shapes, attributes: (shapes["x"][1],),
        "floor": lambda shapes, attributes: (shapes["gate"][1],),
    },
    attributes=(
        Attribute(name="sharpness", kind=AttributeKind.FLOAT, doc="of the gate", positive=True),
        Attribute(name="shift", kind=AttributeKind.INT, doc="columns to roll by"),
        Attribute(name="inverted", kind=AttributeKind.BOOL, doc="whether the gate closes"),
    ),
    result="the shapes of x and gate",
    num_results=2,
    shape_rule=shape_rule,
    reference=reference,
    kernel_sizes=lambda shapes, attributes: (shapes["x"][1], shapes["gate"][1]),
)
