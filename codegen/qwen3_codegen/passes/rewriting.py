"""What every pass needs to look around in a region and to put it together again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Node, Region, Weight
from qwen3_codegen.ir.ops import AttributeKind, ops_of

__all__ = [
    "map_regions",
    "producers",
    "renamed",
    "unused_name",
    "use_counts",
    "used_rope_tables",
    "weights_by_name",
    "with_nodes",
]


def map_regions(graph: Graph, rewrite: Callable[[Region], Region]) -> Graph:
    """Returns the graph with every region rewritten."""
    return replace(
        graph,
        prologue=rewrite(graph.prologue),
        layer_kinds=tuple(rewrite(region) for region in graph.layer_kinds),
        epilogue=rewrite(graph.epilogue),
    )


def producers(nodes: Iterable[Node]) -> dict[str, Node]:
    """Returns the node that defines each value; parameters and weights have none."""
    return {value.name: node for node in nodes for value in node.outputs}


def use_counts(region: Region) -> Counter[str]:
    """Returns how often each value is an input or a result."""
    counts = Counter(name for node in region.nodes for name in node.inputs.values())
    counts.update(region.results)
    return counts


def used_rope_tables(graph: Graph) -> frozenset[str]:
    """Returns the names of the rope tables that some node of the graph asks for."""
    ops = ops_of(graph)
    return frozenset(
        str(node.attributes[attribute.name])
        for region in graph.regions()
        for node in region.nodes
        for attribute in ops[node.op].attributes
        if attribute.kind is AttributeKind.ROPE_TABLE
    )


def weights_by_name(region: Region) -> dict[str, Weight]:
    """Returns the weights of a region by name."""
    return {weight.name: weight for weight in region.weights}


def renamed(region: Region, names: Mapping[str, str]) -> Region:
    """Returns the region with uses of some values turned to other values, chains followed."""

    def target(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    def with_targets(node: Node) -> Node:
        return replace(node, inputs={role: target(name) for role, name in node.inputs.items()})

    return replace(
        region,
        nodes=tuple(with_targets(node) for node in region.nodes),
        results=tuple(target(name) for name in region.results),
    )


def with_nodes(
    region: Region, nodes: Iterable[Node], weights: Iterable[Weight] | None = None
) -> Region:
    """Returns the region with other nodes, and other weights where given."""
    kept = region.weights if weights is None else tuple(weights)
    return replace(region, nodes=tuple(nodes), weights=kept)


def unused_name(region: Region, wanted: str) -> str:
    """Returns ``wanted``, numbered when the region has a value of that name."""
    taken = {value.name for value in region.values()}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
