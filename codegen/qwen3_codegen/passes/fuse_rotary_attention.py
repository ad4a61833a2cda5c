"""Takes norm and rotation of queries and keys into their attention.

Before::

    %q_n = rms_norm(x=%q, weight=@q_norm) {eps=1e-06, offset=0.0}
    %q_r = rope(x=%q_n) {table=rope}
    %k_n = rms_norm(x=%k, weight=@k_norm) {eps=1e-06, offset=0.0}
    %k_r = rope(x=%k_n) {table=rope}
    %a = attention(q=%q_r, k=%k_r, v=%v) {scale=0.088, window=none, softcap=none}

After::

    %a = rotary_attention(q=%q, k=%k, v=%v, q_norm=@q_norm, k_norm=@k_norm)
         {scale=0.088, window=none, softcap=none, table=rope, eps=1e-06}

The same arithmetic; in half precision, heads are rounded once instead of after each op. Both must
be rotated by the same table, and normalised both or neither, with one eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qwen3_codegen.ir.graph import AttributeValue, Graph, Node, Region
from qwen3_codegen.passes.rewriting import map_regions, producers, use_counts, with_nodes

__all__ = ["fuse_rotary_attention"]


@dataclass(frozen=True, slots=True)
class _Heads:
    """Where a chain of norm and rope starts."""

    source: str
    table: AttributeValue
    norm: str | None
    eps: AttributeValue
    nodes: Mapping[str, Node]
    """The chain's, by what they do: ``norm`` and ``rope``."""


def fuse_rotary_attention(graph: Graph) -> Graph:
    """Turns ``attention`` of rotated queries and keys into ``rotary_attention``."""
    return map_regions(graph, _region)


def _region(region: Region) -> Region:
    gone: set[str] = set()
    fused: dict[str, Node] = {}
    for node in region.nodes:
        if node.op != "attention":
            continue
        q, k = (_heads(region, node.inputs[role]) for role in ("q", "k"))
        if q is None or k is None or (q.table, q.eps) != (k.table, k.eps):
            continue
        norms = {"q_norm": q.norm, "k_norm": k.norm}
        inputs = {"q": q.source, "k": k.source, "v": node.inputs["v"]}
        inputs |= {role: norm for role, norm in norms.items() if norm is not None}
        attributes = {**node.attributes, "table": q.table, "eps": q.eps}
        chains = (("q", q), ("k", k))
        parts = {
            f"{role}_{what}": each.location
            for role, heads in chains
            for what, each in heads.nodes.items()
        }
        fused[node.output.name] = replace(
            node, op="rotary_attention", inputs=inputs, attributes=attributes, parts=parts
        )
        gone.update(each.output.name for _, heads in chains for each in heads.nodes.values())
    nodes = [
        fused.get(node.outputs[0].name, node)
        for node in region.nodes
        if node.outputs[0].name not in gone
    ]
    return with_nodes(region, nodes)


def _heads(region: Region, name: str) -> _Heads | None:
    """The chain that ends in ``name``, if nothing else reads what it makes."""
    makers, uses = producers(region.nodes), use_counts(region)
    rope = makers.get(name)
    if rope is None or rope.op != "rope" or uses[name] != 1:
        return None
    source = rope.inputs["x"]
    norm = makers.get(source)
    if norm is not None and norm.op == "rms_norm" and uses[source] == 1:
        if norm.attributes["offset"] != 0.0:
            return None
        return _Heads(
            source=norm.inputs["x"],
            table=rope.attributes["table"],
            norm=norm.inputs["weight"],
            eps=norm.attributes["eps"],
            nodes={"norm": norm, "rope": rope},
        )
    return _Heads(source, rope.attributes["table"], None, None, {"rope": rope})
