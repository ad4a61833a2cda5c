"""Adds a residual inside the linear that produces the other term.

Before::

    %o = linear(x=%a, weight=@o_proj) {alpha=1.0}
    %h_add = add(a=%h, b=%o)

After::

    %h_add = linear(x=%a, weight=@o_proj, residual=%h) {alpha=1.0}

The linear moves to the place of the addition, because only there both terms are known. The sum
is the same; in half precision it is rounded once instead of twice.
"""

from __future__ import annotations

from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.passes.rewriting import map_regions, producers, use_counts, with_nodes

__all__ = ["fuse_residual"]


def fuse_residual(graph: Graph) -> Graph:
    """Turns ``add(h, linear(x))`` into a linear with a residual."""
    return map_regions(graph, _region)


def _region(region: Region) -> Region:
    uses = use_counts(region)
    makers = producers(region.nodes)
    gone: set[str] = set()
    fused: dict[str, Node] = {}
    for node in region.nodes:
        if node.op != "add":
            continue
        for term, other in (("b", "a"), ("a", "b")):
            name = node.inputs[term]
            linear = makers.get(name)
            if linear is None or not _takes_residual(linear) or uses[name] != 1 or name in gone:
                continue
            inputs = {**linear.inputs, "residual": node.inputs[other]}
            fused[node.output.name] = replace(linear, inputs=inputs, outputs=node.outputs)
            gone.add(name)
            break
    nodes = [
        fused.get(node.outputs[0].name, node)
        for node in region.nodes
        if node.outputs[0].name not in gone
    ]
    return with_nodes(region, nodes)


def _takes_residual(node: Node) -> bool:
    return node.op == "linear" and "residual" not in node.inputs
