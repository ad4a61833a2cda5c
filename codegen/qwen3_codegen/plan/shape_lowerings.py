"""Lowerings of ops that only look at values in another way; the same on every device."""

from __future__ import annotations

import math

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Node
from qwen3_codegen.plan.context import Lowered, RegionContext
from qwen3_codegen.plan.storage import row_elements


def lower_split(node: Node, context: RegionContext) -> Lowered:
    """``split`` over the columns of rows."""
    source = node.inputs["x"]
    place = context.storage.place(source)
    last = len(context.type_of(source).shape) - 1
    if last != 1:
        raise LoweringError(
            "values can be split over the last of two dimensions only",
            where=node.location,
            got=str(context.type_of(source)),
            hint="split before reshape",
        )
    definitions = []
    start = 0
    for output in node.outputs:
        count = row_elements(output.type)
        reference = context.ref(source).viewed("columns", start, count)
        definitions.append(context.view(output, reference, place.columns(start, count)))
        start += count
    return tuple(definitions), ()


def lower_reshape(node: Node, context: RegionContext) -> Lowered:
    """``reshape`` of what is in a row."""
    source = node.inputs["x"]
    old, new = context.type_of(source).shape, node.output.type.shape
    reference = context.ref(source)
    for _ in range(len(old) - 2):
        reference = reference.viewed("flatten", 1)
    for axis, inner in enumerate(_inner_products(new), start=1):
        reference = reference.viewed("unflatten", axis, new[axis], inner)
    return (context.view(node.output, reference, context.storage.place(source)),), ()


def _inner_products(shape: tuple[int | str, ...]) -> list[int]:
    """For [rows, a, b, c]: the products b*c and c that unflattening splits off."""
    sizes = [int(extent) for extent in shape[1:]]
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes) - 1)]
