"""Half-split rotary models on releases that rotate interleaved pairs only.

Such a release has no algorithm argument: element 2i turns with element 2i + 1, where Hugging
Face turns element i with i + d/2. Scores do not change when q and k are permuted alike, so the
rows that make q and k are moved at load instead, and the norm weights between them likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
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

    def overlaps(self, other: _Rotation) -> bool:
        return self.start < other.start + other.count and other.start < self.start + self.count


@dataclass(frozen=True, slots=True)
class _Use:
    """A node on the way to a rope, and what it wants of one of its weights."""

    weight: str
    reader: str
    """First result of the node."""
    rotation: _Rotation
    rope: Node


def interleave_rotary_weights(graph: Graph) -> Graph:
    """Returns the graph with the weights behind every half-split rope permuted.

    Raises:
        LoweringError: A rotated value does not come straight from a projection, or its weights
            also make something that is not rotated alike.
    """
    kinds = tuple(_interleave_region(region, graph) for region in graph.layer_kinds)
    return replace(graph, layer_kinds=kinds)


def _interleave_region(region: Region, graph: Graph) -> Region:
    uses: dict[str, list[_Use]] = {}
    for node in region.nodes:
        if node.op != "rope":
            continue
        table = graph.rope_tables[str(node.attributes["table"])]
        if not table.interleaved:
            for use in _trace(region, node, table.rotary_dim):
                uses.setdefault(use.weight, []).append(use)
    for weight, of_weight in uses.items():
        _require_alike(region, weight, of_weight)
    weights = tuple(
        _permuted(weight, {use.rotation for use in uses.get(weight.name, [])})
        for weight in region.weights
    )
    return replace(region, weights=weights)


def _trace(region: Region, rope: Node, rotary_dim: int) -> Iterator[_Use]:
    """Walks from a rope back to its projection and yields every weight on the way."""
    producers: Mapping[str, Node] = {v.name: node for node in region.nodes for v in node.outputs}
    head_dim = int(rope.output.type.shape[-1])
    name, start, count = rope.inputs["x"], 0, None
    while True:
        node = producers.get(name)
        _require_single_reader(region, rope, name)
        if node is None or not _is_on_the_way(node):
            raise LoweringError(
                "a rotated value must come from a projection for this release's interleaved rope",
                where=rope.location,
                hint=_HINT,
            )
        if node.op == "split":
            sizes = [int(value.type.shape[-1]) for value in node.outputs]
            index = [value.name for value in node.outputs].index(name)
            start += sum(sizes[:index])
            count = sizes[index] if count is None else count
        # All rows unless a split has chosen some; of a norm per head, those of its one head.
        rows = (start, int(node.outputs[0].type.shape[-1]) if count is None else count)
        for role in ("weight", "bias"):
            if role in node.inputs:
                rotation = _Rotation(*rows, head_dim, rotary_dim)
                yield _Use(node.inputs[role], node.outputs[0].name, rotation, rope)
        if node.op == "linear":
            return
        name = node.inputs["x"]


def _is_on_the_way(node: Node) -> bool:
    if node.op == "linear":
        return "residual" not in node.inputs
    return node.op in ("rms_norm", "reshape", "split")


_HINT = "--infinicore-api 0.1.0 or later rotates halves"


def _require_single_reader(region: Region, rope: Node, name: str) -> None:
    readers = [node for node in region.nodes if name in node.inputs.values()]
    if len(readers) > 1:
        raise LoweringError(
            f"'{name}' is rotated and read elsewhere, so its heads cannot be permuted",
            where=rope.location,
            hint=_HINT,
        )


def _require_alike(region: Region, weight: str, uses: Sequence[_Use]) -> None:
    """A weight can be permuted only when all that reads it wants the same."""
    rotated = {use.reader for use in uses}
    readers = {node.outputs[0].name for node in region.nodes if weight in node.inputs.values()}
    differ = any(
        first.rotation != second.rotation and first.rotation.overlaps(second.rotation)
        for first in uses
        for second in uses
    )
    if readers != rotated or differ:
        raise LoweringError(
            f"weight '{weight}' makes values that are not rotated alike, so its heads cannot be"
            " permuted",
            where=uses[0].rope.location,
            hint=_HINT,
        )


def _permuted(weight: Weight, rotations: Set[_Rotation]) -> Weight:
    if not rotations:
        return weight
    total = int(weight.type.shape[0])
    parts: list[WeightExpression] = []
    at = 0
    for rotation in sorted(rotations, key=lambda rotation: rotation.start):
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
