"""Lets layers that compute the same share one region.

Before::

    layers 0, 2: full_attention(%h) {window=none} ...
    layers 1, 3: sliding_attention(%h) {window=40960} ...      # canonical: window none

After::

    layers 0-3: full_attention(%h) {} ...

Two kinds are one when their nodes, weights and results are equal but for the names of values.
The first keeps its name and of its attributes those that all merged kinds agree on.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Region

__all__ = ["merge_layer_kinds"]


def merge_layer_kinds(graph: Graph) -> Graph:
    """Merges layer kinds that differ in names only."""
    merged: dict[Hashable, Region] = {}
    keys = [_structure(region) for region in graph.layer_kinds]
    for key, region in zip(keys, graph.layer_kinds, strict=True):
        first = merged.get(key)
        merged[key] = region if first is None else _with_common_attributes(first, region)
    order = list(merged)
    return replace(
        graph,
        layer_kinds=tuple(merged.values()),
        schedule=tuple(order.index(keys[kind]) for kind in graph.schedule),
    )


def _structure(region: Region) -> Hashable:
    """Returns what a region computes, values numbered in order of definition."""
    weights = {weight.name: weight for weight in region.weights}
    numbers = {value.name: index for index, value in enumerate(region.parameters)}

    def operand(name: str) -> Hashable:
        if name in weights:
            weight = weights[name]
            return weight.type, weight.expression, tuple(weight.sources.items())
        return numbers[name]

    nodes = []
    for node in region.nodes:
        inputs = tuple((role, operand(name)) for role, name in node.inputs.items())
        numbers.update((value.name, len(numbers) + i) for i, value in enumerate(node.outputs))
        types = tuple(value.type for value in node.outputs)
        nodes.append((node.op, inputs, types, tuple(sorted(node.attributes.items(), key=_name))))
    parameters = tuple(value.type for value in region.parameters)
    return parameters, tuple(nodes), tuple(numbers[name] for name in region.results)


def _name(item: tuple[str, object]) -> str:
    return item[0]


def _with_common_attributes(region: Region, other: Region) -> Region:
    missing = object()
    common = {
        name: value
        for name, value in region.attributes.items()
        if other.attributes.get(name, missing) == value
    }
    return replace(region, attributes=common)
