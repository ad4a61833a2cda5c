"""Ops that work element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qwen3_codegen.ir.ops.activation import ACTIVATIONS, silu
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    Lowering,
    OpDef,
    OpRuleError,
    Role,
    Shape,
    Shapes,
    calls,
    refused,
)
from qwen3_codegen.ir.ops.shapes import format_shape, require_shape, same_as
from qwen3_codegen.ir.ops.step import Step

_ACTIVATION_LOWERINGS: Mapping[str, Lowering] = {
    "silu": calls("swiglu"),
    "gelu": refused(
        "InfiniCore as recorded here has no error function; gelu_tanh has a decomposition"
    ),
    "gelu_tanh": calls("mul", "add", "causal_softmax", "rearrange"),
    "relu": calls("relu"),
    "relu2": calls("relu", "mul"),
    "sigmoid": refused("InfiniCore as recorded here has no sigmoid operator"),
    "softplus": refused("used only by gated_delta_net, which has no decomposition"),
    "tanh": refused("InfiniCore as recorded here has no tanh operator"),
}
_NATIVE_ACTIVATION_LOWERINGS = {
    "softplus": refused("used only by gated_delta_net, which has no kernel yet"),
}


def _equal_shapes(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    first, *others = shapes
    for other in others:
        require_shape(shapes, other, shapes[first])
    return (shapes[first],)


def _mul_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    a, b = shapes["a"], shapes["b"]
    if b not in (a, (*a[:-1], 1)):
        raise OpRuleError(
            "factors do not fit each other",
            got=f"{format_shape(a)} and {format_shape(b)}",
            expected=f"b {format_shape(a)} or {format_shape((*a[:-1], 1))}",
        )
    return (a,)


def _add(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    return inputs["a"] + inputs["b"]


def _mul(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    return inputs["a"] * inputs["b"]


def _scale(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    scaled: Array = x * x.dtype.type(attributes["factor"])
    return scaled


def _swiglu(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    return silu(inputs["gate"]) * inputs["up"]


def _activation_op(name: str, function: Callable[[Array], Array]) -> OpDef:
    return OpDef(
        name=name,
        doc=f"y = {function.__doc__}",
        roles=(Role(name="x", shape="any"),),
        result="the shape of x",
        shape_rule=same_as("x"),
        reference=lambda inputs, attributes, step: function(inputs["x"]),
        lowerings={
            "portable": _ACTIVATION_LOWERINGS[name],
            "native": _NATIVE_ACTIVATION_LOWERINGS.get(name, calls("Unary")),
        },
    )


ADD = OpDef(
    name="add",
    doc="y = a + b.",
    roles=(Role(name="a", shape="any"), Role(name="b", shape="the shape of a")),
    result="the shape of a",
    shape_rule=_equal_shapes,
    reference=_add,
    lowerings={"portable": calls("add"), "native": calls("Binary")},
)

MUL = OpDef(
    name="mul",
    doc="y = a · b; a b whose last dimension is 1 is one factor per row.",
    roles=(
        Role(name="a", shape="any"),
        Role(name="b", shape="the shape of a, or with last dimension 1"),
    ),
    result="the shape of a",
    shape_rule=_mul_shape,
    reference=_mul,
    lowerings={"portable": calls("mul"), "native": calls("Binary", "ScaleGroups")},
)

SCALE = OpDef(
    name="scale",
    doc="y = x · factor.",
    roles=(Role(name="x", shape="any"),),
    attributes=(Attribute(name="factor", kind=AttributeKind.FLOAT, doc="the factor"),),
    result="the shape of x",
    shape_rule=same_as("x"),
    reference=_scale,
    lowerings={
        "portable": calls("mul", "gemm", "rearrange"),
        "native": calls("ScaleRows"),
    },
)

SWIGLU = OpDef(
    name="swiglu",
    doc="y = silu(gate) · up. Shazeer 2020. Made by a pass.",
    roles=(Role(name="gate", shape="any"), Role(name="up", shape="the shape of gate")),
    result="the shape of gate",
    shape_rule=_equal_shapes,
    reference=_swiglu,
    lowerings={"portable": calls("swiglu"), "native": calls("Binary")},
)

ACTIVATION_OPS = tuple(_activation_op(name, function) for name, function in ACTIVATIONS.items())
