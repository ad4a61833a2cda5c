"""Computes an attention's query, key and value projections by one linear.

Before::

    %q = linear(x=%x, weight=@q_proj) {alpha=1.0}
    %k = linear(x=%x, weight=@k_proj) {alpha=1.0}
    %v = linear(x=%x, weight=@v_proj) {alpha=1.0}

After::

    @qkv_proj = concat(q_proj.weight, k_proj.weight, v_proj.weight, axis=0)
    %qkv = linear(x=%x, weight=@qkv_proj) {alpha=1.0}
    %q, %k, %v = split(x=%qkv) {sizes=[2048, 1024, 1024]}

Norms, rotations and reshapes may stand between the projections and the attention.
"""

from __future__ import annotations

from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.passes.join_linears import join_linears
from qwen3_codegen.passes.rewriting import map_regions, producers

__all__ = ["fuse_qkv"]

_BETWEEN = frozenset({"reshape", "split", "rms_norm", "layer_norm", "l2_norm", "rope", "scale"})
"""Ops with one input ``x`` that may stand between a projection and the attention."""


def fuse_qkv(graph: Graph) -> Graph:
    """Joins the q, k and v projections of every attention."""
    return map_regions(graph, _region)


def _region(region: Region) -> Region:
    for attention in region.nodes:
        if attention.op == "attention":
            makers = producers(region.nodes)
            found = {role: _projection(attention.inputs[role], makers) for role in ("q", "k", "v")}
            region = join_linears(region, found)
    return region


def _projection(name: str, makers: dict[str, Node]) -> Node | None:
    """Returns the linear a value comes from, None when something else is on the way."""
    node = makers.get(name)
    while node is not None and node.op in _BETWEEN:
        node = makers.get(node.inputs["x"])
    return node if node is not None and node.op == "linear" else None
