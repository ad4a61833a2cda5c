"""Activates the gate and multiplies in one op.

Before::

    %act = silu(x=%gate)
    %y = mul(a=%act, b=%up)

After::

    %y = swiglu(gate=%gate, up=%up)

The same products; in half precision the activated gate is not rounded in between.
"""

from __future__ import annotations

from dataclasses import replace

from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.passes.rewriting import map_regions, producers, use_counts, with_nodes

__all__ = ["fuse_swiglu"]


def fuse_swiglu(graph: Graph) -> Graph:
    """Turns ``mul(silu(gate), up)`` into ``swiglu``."""
    return map_regions(graph, _region)


def _region(region: Region) -> Region:
    uses = use_counts(region)
    makers = producers(region.nodes)
    types = {value.name: value.type for value in region.values()}
    gone: set[str] = set()
    fused: dict[str, Node] = {}
    for node in region.nodes:
        if node.op != "mul" or types[node.inputs["a"]] != types[node.inputs["b"]]:
            continue
        for factor, other in (("a", "b"), ("b", "a")):
            name = node.inputs[factor]
            silu = makers.get(name)
            if silu is not None and silu.op == "silu" and uses[name] == 1:
                inputs = {"gate": silu.inputs["x"], "up": node.inputs[other]}
                fused[node.output.name] = replace(node, op="swiglu", inputs=inputs)
                gone.add(name)
                break
    nodes = [
        fused.get(node.outputs[0].name, node)
        for node in region.nodes
        if node.outputs[0].name not in gone
    ]
    return with_nodes(region, nodes)
