"""Spells the same computation the same way.

Before::

    %y = attention(q=%q, k=%k, v=%v) {scale=0.125, window=40960, softcap=none}
    %z = scale(x=%y) {factor=1.0}
    %w = reshape(x=%z) {shape=[16, 128]}

After, in a model of at most 40960 positions whose %y has rows of [16, 128]; uses of %z and %w
are uses of %y::

    %y = attention(q=%q, k=%k, v=%v) {scale=0.125, window=none, softcap=none}

Exact: a window that reaches every position hides nothing, and the other nodes give their input.
"""

from __future__ import annotations

from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Node, Region, ValueType
from qwen3_codegen.passes.rewriting import map_regions, renamed, with_nodes

__all__ = ["canonicalize"]


def canonicalize(graph: Graph) -> Graph:
    """Opens windows that hide nothing and removes nodes that change nothing."""
    return map_regions(graph, lambda region: _region(region, graph.max_position_embeddings))


def _region(region: Region, max_position_embeddings: int) -> Region:
    types = {value.name: value.type for value in region.values()}
    nodes: list[Node] = []
    names: dict[str, str] = {}
    for node in region.nodes:
        if _is_identity(node, types):
            (source,) = node.inputs.values()
            names[node.output.name] = source
        else:
            nodes.append(_without_idle_window(node, max_position_embeddings))
    return renamed(with_nodes(region, nodes), names)


def _is_identity(node: Node, types: dict[str, ValueType]) -> bool:
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    (source,) = node.inputs.values()
    if node.op == "scale":
        return node.attributes["factor"] == 1.0
    return node.op in ("reshape", "split", "concat") and node.output.type == types[source]


def _without_idle_window(node: Node, max_position_embeddings: int) -> Node:
    window = node.attributes.get("window")
    if node.op != "attention" or not isinstance(window, int) or window < max_position_embeddings:
        return node
    return replace(node, attributes={**node.attributes, "window": None})
