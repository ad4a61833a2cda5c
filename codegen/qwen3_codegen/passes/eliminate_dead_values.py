"""Removes what no result depends on.

Before::

    @q_proj: ...
    %unused = linear(x=%x, weight=@q_proj) {alpha=1.0}
    return %h

After::

    return %h

A node goes when none of its results is used, a weight when no node reads it, a rope table when
no node names it. An attention nobody reads goes with its cache: nothing else sees that.
"""

from __future__ import annotations

from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.passes.rewriting import map_regions, used_rope_tables, with_nodes

__all__ = ["eliminate_dead_values"]


def eliminate_dead_values(graph: Graph) -> Graph:
    """Removes nodes, weights and rope tables without use."""
    graph = map_regions(graph, _region)
    used = used_rope_tables(graph)
    tables = {name: table for name, table in graph.rope_tables.items() if name in used}
    return replace(graph, rope_tables=tables)


def _region(region: Region) -> Region:
    live = set(region.results)
    kept: list[Node] = []
    for node in reversed(region.nodes):
        if any(value.name in live for value in node.outputs):
            live.update(node.inputs.values())
            kept.append(node)
    weights = [weight for weight in region.weights if weight.name in live]
    return with_nodes(region, reversed(kept), weights)
