"""Computes the gate and up projections of a gated MLP by one linear.

Before::

    %gate = linear(x=%x, weight=@gate_proj) {alpha=1.0}
    %up = linear(x=%x, weight=@up_proj) {alpha=1.0}
    %act = silu(x=%gate)
    %y = mul(a=%act, b=%up)

After::

    @gate_up_proj = concat(gate_proj.weight, up_proj.weight, axis=0)
    %gate_up = linear(x=%x, weight=@gate_up_proj) {alpha=1.0}
    %gate, %up = split(x=%gate_up) {sizes=[6144, 6144]}
    %act = silu(x=%gate)
    %y = mul(a=%act, b=%up)

Any activation will do; the rows of the activated projection come first.
"""

from __future__ import annotations

from qwen3_codegen.ir.graph import Graph, Region
from qwen3_codegen.ir.ops.activation import ACTIVATIONS
from qwen3_codegen.passes.join_linears import join_linears
from qwen3_codegen.passes.rewriting import map_regions, producers

__all__ = ["fuse_gate_up"]


def fuse_gate_up(graph: Graph) -> Graph:
    """Joins the two projections whose results are multiplied, one of them activated."""
    return map_regions(graph, _region)


def _region(region: Region) -> Region:
    for product in region.nodes:
        if product.op != "mul":
            continue
        makers = producers(region.nodes)
        factors = [makers.get(product.inputs[role]) for role in ("a", "b")]
        gates = [factor for factor in factors if factor is not None and factor.op in ACTIVATIONS]
        ups = [factor for factor in factors if factor is not None and factor.op == "linear"]
        if gates and ups:
            gate = makers.get(gates[0].inputs["x"])
            if gate is not None and gate.op == "linear":
                region = join_linears(region, {"gate": gate, "up": ups[0]}, separator="_")
    return region
