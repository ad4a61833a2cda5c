"""Half-split rotary models on releases that rotate interleaved pairs only.

Such a release has no algorithm argument: element 2i turns with element 2i + 1, where Hugging
Face turns element i with i + d/2. Scores do not change when q and k are permuted alike, so the
rows that make q and k are moved at load instead, and the norm weights between them likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Graph, Node, Region, Weight
from qwen3_runtime.checkpoint.transform import Concat, PermuteHalves, Rows
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Rows ``[start, start + count)`` of a weight hold heads that are rotated."""

    start: int
    count: int
    head_dim: int
    rotary_dim: int


def interleave_rotary_weights(graph: Graph) -> Graph:
    """Returns the graph with the weights behind every half-split rope permuted.

    Raises:
        LoweringError: A rotated value does not come straight from a projection.
    """
    return replace(
        graph,
        prologue=graph.prologue,
        layer_kinds=tuple(_interleave_region(region, graph) for region in graph.layer_kinds),
    )


def _interleave_region(region: Region, graph: Graph) -> Region:
    rotations: dict[str, list[_Rotation]] = {}
    for node in region.nodes:
        if node.op != "rope":
            continue
        table = graph.rope_tables[str(node.attributes["table"])]
        if table.interleaved:
            continue
        head_dim = int(node.output.type.shape[-1])
        _trace(region, node, head_dim, table.rotary_dim, rotations)
    weights = tuple(_permuted(weight, rotations.get(weight.name, [])) for weight in region.weights)
    return replace(region, weights=weights)


def _trace(
    region: Region,
    rope: Node,
    head_dim: int,
    rotary_dim: int,
    rotations: dict[str, list[_Rotation]],
) -> None:
    """Walks from a rope back to its projection, noting every weight on the way."""
    producers: Mapping[str, Node] = {v.name: node for node in region.nodes for v in node.outputs}
    name, start, count = rope.inputs["x"], 0, None
    while True:
        node = producers.get(name)
        _require_single_reader(region, rope, name)
        if node is None or node.op not in ("rms_norm", "reshape", "split", "linear"):
            raise LoweringError(
                "a rotated value must come from a projection for this release's interleaved rope",
                where=rope.location,
                hint="--infinicore-api 0.1.0 or later rotates halves",
            )
        if node.op == "rms_norm":
            rotation = _Rotation(0, head_dim, head_dim, rotary_dim)
            rotations.setdefault(node.inputs["weight"], []).append(rotation)
        elif node.op == "split":
            sizes = [int(value.type.shape[-1]) for value in node.outputs]
            index = [value.name for value in node.outputs].index(name)
            start, count = sum(sizes[:index]), sizes[index]
        elif node.op == "linear":
            rows = count if count is not None else int(node.output.type.shape[-1])
            for role in ("weight", "bias"):
                if role in node.inputs:
                    rotation = _Rotation(start, rows, head_dim, rotary_dim)
                    rotations.setdefault(node.inputs[role], []).append(rotation)
            return
        name = node.inputs["x"]


def _require_single_reader(region: Region, rope: Node, name: str) -> None:
    readers = [node for node in region.nodes if name in node.inputs.values()]
    if len(readers) > 1:
        raise LoweringError(
            f"'{name}' is rotated and read elsewhere, so its heads cannot be permuted",
            where=rope.location,
            hint="--infinicore-api 0.1.0 or later rotates halves",
        )


def _permuted(weight: Weight, rotations: list[_Rotation]) -> Weight:
    if not rotations:
        return weight
    total = int(weight.type.shape[0])
    parts: list[WeightExpression] = []
    at = 0
    for rotation in sorted(set(rotations), key=lambda rotation: rotation.start):
        if rotation.start > at:
            parts.append(Rows(weight.expression, at, rotation.start - at))
        rows: WeightExpression = weight.expression
        if rotation.count != total:
            rows = Rows(rows, rotation.start, rotation.count)
        parts.append(PermuteHalves(rows, rotation.head_dim, rotation.rotary_dim))
        at = rotation.start + rotation.count
    if at < total:
        parts.append(Rows(weight.expression, at, total - at))
    return replace(weight, expression=parts[0] if len(parts) == 1 else Concat(tuple(parts)))
