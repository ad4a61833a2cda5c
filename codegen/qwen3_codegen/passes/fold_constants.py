"""Moves constants into weights and into attributes of other ops, where that is exact.

Before::

    @norm: float32[64] = model.norm.weight
    %x = rms_norm(x=%h, weight=@norm) {eps=1e-06, offset=1.0}
    %y = linear(x=%x, weight=@o_proj) {alpha=1.0}
    %z = scale(x=%y) {factor=0.22}

After::

    @norm: float32[64] = add(model.norm.weight, value=1.0)
    %x = rms_norm(x=%h, weight=@norm) {eps=1e-06, offset=0.0}
    %z = linear(x=%x, weight=@o_proj) {alpha=0.22}

Exact means: no result is rounded more often, or from other numbers, than before.

- A norm's offset goes into its float32 weight, where the op would add it in float32 too.
- A scale after a linear without bias goes into ``alpha``, applied before the only rounding.
- A scale after a scale, or before attention's q or k, joins it when a factor is a power of two.
- A scale after an embedding goes into the table, because scaling commutes with choosing rows,
  unless another weight reads the same tensors: then the table is stored once, unscaled.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Node, Region, Weight
from qwen3_codegen.ir.weights import tensor_templates
from qwen3_codegen.passes.rewriting import (
    map_regions,
    producers,
    use_counts,
    weights_by_name,
    with_nodes,
)
from qwen3_runtime.checkpoint.transform import Add, Scale

__all__ = ["fold_constants"]


def fold_constants(graph: Graph) -> Graph:
    """Folds norm offsets and scales into weights and attributes, exactly."""
    readers = Counter(
        template
        for region in graph.regions()
        for weight in region.weights
        for template in tensor_templates(weight.expression)
    )
    return map_regions(graph, lambda region: _fold_scales(_fold_offsets(region), readers))


def _fold_offsets(region: Region) -> Region:
    offsets: dict[str, set[object]] = {}
    for node in region.nodes:
        for role, name in node.inputs.items():
            is_norm = node.op == "rms_norm" and role == "weight"
            offsets.setdefault(name, set()).add(node.attributes["offset"] if is_norm else None)
    folded: dict[str, float] = {}
    for weight in region.weights:
        found = offsets.get(weight.name, set())
        if len(found) == 1:
            (offset,) = found
            if isinstance(offset, float) and offset != 0.0:
                folded[weight.name] = offset
    nodes = [
        replace(node, attributes={**node.attributes, "offset": 0.0})
        if node.op == "rms_norm" and node.inputs["weight"] in folded
        else node
        for node in region.nodes
    ]
    weights = [
        replace(weight, expression=Add(weight.expression, folded[weight.name]))
        if weight.name in folded
        else weight
        for weight in region.weights
    ]
    return with_nodes(region, nodes, weights)


def _fold_scales(region: Region, readers: Counter[str]) -> Region:
    """Folds one scale after the other until none can be."""
    while True:
        uses = use_counts(region)
        makers = producers(region.nodes)
        for node in region.nodes:
            rewritten = None
            if node.op == "scale" and uses[node.inputs["x"]] == 1:
                maker = makers.get(node.inputs["x"])
                rewritten = _into_maker(region, node, maker, uses, readers)
            elif node.op == "attention":
                rewritten = _into_attention(region, node, makers, uses)
            if rewritten is not None:
                region = rewritten
                break
        else:
            return region


def _into_maker(
    region: Region, scale: Node, maker: Node | None, uses: Counter[str], readers: Counter[str]
) -> Region | None:
    factor = _number(scale, "factor")
    if maker is None:
        return None
    if maker.op == "linear" and not {"bias", "residual"} & set(maker.inputs):
        attributes = {"alpha": _number(maker, "alpha") * factor}
        return _merged(region, maker, scale, replace(maker, attributes=attributes))
    if maker.op == "scale":
        inner = _number(maker, "factor")
        if _is_power_of_two(factor) or _is_power_of_two(inner):
            attributes = {"factor": inner * factor}
            return _merged(region, maker, scale, replace(maker, attributes=attributes))
    if maker.op == "embedding":
        table = weights_by_name(region).get(maker.inputs["weight"])
        if table is not None and _is_private(table, uses, readers):
            scaled = replace(table, expression=Scale(table.expression, factor))
            weights = [scaled if weight is table else weight for weight in region.weights]
            return _merged(with_nodes(region, region.nodes, weights), maker, scale, maker)
    return None


def _merged(region: Region, maker: Node, scale: Node, node: Node) -> Region:
    """Puts ``node`` in the place of ``maker``, with the result of ``scale``, which goes."""
    node = replace(node, outputs=scale.outputs)
    nodes = [node if other is maker else other for other in region.nodes if other is not scale]
    return with_nodes(region, nodes)


def _into_attention(
    region: Region, attention: Node, makers: dict[str, Node], uses: Counter[str]
) -> Region | None:
    for role in ("q", "k"):
        name = attention.inputs[role]
        scale = makers.get(name)
        if scale is None or scale.op != "scale" or uses[name] != 1:
            continue
        factor = _number(scale, "factor")
        if factor > 0 and _is_power_of_two(factor):
            node = replace(
                attention,
                inputs={**attention.inputs, role: scale.inputs["x"]},
                attributes={
                    **attention.attributes,
                    "scale": _number(attention, "scale") * factor,
                },
            )
            nodes = [
                node if other is attention else other
                for other in region.nodes
                if other is not scale
            ]
            return with_nodes(region, nodes)
    return None


def _is_private(weight: Weight, uses: Counter[str], readers: Counter[str]) -> bool:
    templates = tensor_templates(weight.expression)
    return uses[weight.name] == 1 and all(readers[template] == 1 for template in templates)


def _is_power_of_two(number: float) -> bool:
    return abs(math.frexp(number)[0]) == 0.5


def _number(node: Node, attribute: str) -> float:
    value = node.attributes[attribute]
    assert isinstance(value, float)
    return value
