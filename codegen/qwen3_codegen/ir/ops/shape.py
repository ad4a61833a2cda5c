"""Ops that move elements and compute nothing."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

from qwen3_codegen.ir.graph import NUM_LOGIT_ROWS, NUM_TOKENS
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
)
from qwen3_codegen.ir.ops.shapes import format_shape, size_of
from qwen3_codegen.ir.ops.step import Step


def ints(attributes: Attributes, name: str) -> tuple[int, ...]:
    """Returns a list attribute whose type has been checked."""
    value = attributes[name]
    assert isinstance(value, tuple)
    return value


def _reshape_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    rows, *sizes = shapes["x"]
    target = ints(attributes, "shape")
    if math.prod(size_of(size, "x") for size in sizes) != math.prod(target):
        raise OpRuleError(
            "rows cannot be reshaped to another number of elements",
            got=format_shape(shapes["x"]),
            expected=format_shape((rows, *target)),
        )
    return ((rows, *target),)


def _reshape(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x = inputs["x"]
    return x.reshape(len(x), *ints(attributes, "shape"))


def _split_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    *outer, last = shapes["x"]
    sizes = ints(attributes, "sizes")
    if sum(sizes) != last:
        raise OpRuleError(
            "parts do not add up to the last dimension",
            got=f"{' + '.join(map(str, sizes))} = {sum(sizes)}",
            expected=last,
        )
    return tuple((*outer, size) for size in sizes)


def _split(inputs: Arrays, attributes: Attributes, step: Step) -> tuple[Array, ...]:
    borders = list(accumulate(ints(attributes, "sizes")))[:-1]
    return tuple(np.split(inputs["x"], borders, axis=-1))


def _concat_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    *outer, _ = shapes["x0"]
    for name, shape in shapes.items():
        if shape[:-1] != tuple(outer):
            raise OpRuleError(
                f"input '{name}' does not fit the others",
                got=format_shape(shape),
                expected=format_shape((*outer, "size")),
            )
    return ((*outer, sum(size_of(shape[-1], name) for name, shape in shapes.items())),)


def _concat(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    return np.concatenate([inputs[f"x{i}"] for i in range(len(inputs))], axis=-1)


def _gather_rows_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    rows, *sizes = shapes["x"]
    if rows != NUM_TOKENS:
        raise OpRuleError("only rows of tokens are gathered", got=rows, expected=NUM_TOKENS)
    return ((NUM_LOGIT_ROWS, *sizes),)


def _gather_rows(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    rows: Array = inputs["x"][step.logit_rows]
    return rows


RESHAPE = OpDef(
    name="reshape",
    doc="The elements of every row in another shape, order kept.",
    roles=(Role(name="x", shape="[rows, ...]"),),
    attributes=(
        Attribute(
            name="shape",
            kind=AttributeKind.INTS,
            doc="dimensions after the first",
            positive=True,
        ),
    ),
    result="[rows, *shape]",
    shape_rule=_reshape_shape,
    reference=_reshape,
    lowerings={"portable": calls(), "native": calls()},
)

SPLIT = OpDef(
    name="split",
    doc="Consecutive parts of the last dimension.",
    roles=(Role(name="x", shape="[..., size]"),),
    attributes=(
        Attribute(name="sizes", kind=AttributeKind.INTS, doc="size of each part", positive=True),
    ),
    result="[..., sizes[i]] for each part",
    shape_rule=_split_shape,
    reference=_split,
    lowerings={"portable": calls(), "native": calls()},
)

CONCAT = OpDef(
    name="concat",
    doc="x0, x1, ... joined along the last dimension.",
    roles=(Role(name="x", shape="[..., size]", variadic=True),),
    result="[..., sum of sizes]",
    shape_rule=_concat_shape,
    reference=_concat,
    lowerings={"portable": calls("rearrange"), "native": calls("CopyRows")},
)

GATHER_ROWS = OpDef(
    name="gather_rows",
    doc="The rows of the packed tokens whose logits are asked for.",
    roles=(Role(name="x", shape=f"[{NUM_TOKENS}, ...]"),),
    result=f"[{NUM_LOGIT_ROWS}, ...]",
    shape_rule=_gather_rows_shape,
    reference=_gather_rows,
    lowerings={"portable": calls(), "native": calls("GatherRows")},
)
