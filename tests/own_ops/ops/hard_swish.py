"""An activation: one input, no attribute."""

from __future__ import annotations

import numpy as np

from qwen3_codegen.ops import Array, Arrays, Attributes, Op, Role, Step, same_as


def reference(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    return x * np.clip(x + 3, 0, 6) / 6


OP = Op(
    name="hard_swish",
    doc="y = x · clip(x + 3, 0, 6) / 6. Howard et al. 2019.",
    roles=(Role(name="x", shape="any"),),
    result="the shape of x",
    shape_rule=same_as("x"),
    reference=reference,
)
