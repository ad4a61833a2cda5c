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
from qwen3_codegen.plan.records import RotatedHeads
from qwen3_runtime.checkpoint.transform import Concat, PermuteHalves, Rows
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression


@dataclass(frozen=True, slots=True)
class _Use:
    """A node on the way to a rope, and what it wants of one of its weights."""

    weight: str
    reader: str
    """First result of the node."""
    rotation: RotatedHeads
    rope: Node


def interleave_rotary_weights(graph: Graph) -> Graph:
    """Returns the graph with the weights behind every half-split rope permuted.

    Raises:
        LoweringError: A rotated value does not come straight from a projection, or its weights
            also make something that is not rotated alike.
    """
    kinds = tuple(_interleave_region(region, graph) for region in graph.layer_kinds)
    return replace(graph, layer_kinds=kinds)


def interleaved_values(graph: Graph) -> Mapping[str, Mapping[str, tuple[RotatedHeads, ...]]]:
    """Returns which values hold permuted heads then: columns by region and name of the value.

    Raises:
        LoweringError: As ``interleave_rotary_weights``.
    """
    return {region.name: _interleaved_in(region, graph) for region in graph.layer_kinds}


def _interleaved_in(region: Region, graph: Graph) -> Mapping[str, tuple[RotatedHeads, ...]]:
    found: dict[str, tuple[RotatedHeads, ...]] = {}
    for rope, rotary_dim in _half_split_ropes(region, graph):
        columns = [(rope.output.name, RotatedHeads(0, *_head_sizes(rope), rotary_dim))]
        columns += [(stop.value, stop.heads) for stop in _way_back(region, rope, rotary_dim)]
        for name, heads in columns:
            found[name] = (*found.get(name, ()), heads)
    return found


def _half_split_ropes(region: Region, graph: Graph) -> Iterator[tuple[Node, int]]:
    """Yields every rope that rotates halves, with the rotated elements of a head."""
    for node in region.nodes:
        if node.op == "rope":
            table = graph.rope_tables[str(node.attributes["table"])]
            if not table.interleaved:
                yield node, table.rotary_dim


def _head_sizes(rope: Node) -> tuple[int, int]:
    """Elements of a row and of a head."""
    _, heads, head_dim = rope.output.type.shape
    return int(heads) * int(head_dim), int(head_dim)


def _interleave_region(region: Region, graph: Graph) -> Region:
    uses: dict[str, list[_Use]] = {}
    for rope, rotary_dim in _half_split_ropes(region, graph):
        for use in _uses(region, rope, rotary_dim):
            uses.setdefault(use.weight, []).append(use)
    for weight, of_weight in uses.items():
        _require_alike(region, weight, of_weight)
    weights = tuple(
        _permuted(weight, {use.rotation for use in uses.get(weight.name, [])})
        for weight in region.weights
    )
    return replace(region, weights=weights)


@dataclass(frozen=True, slots=True)
class _Stop:
    """A value between a rope and its projection, the node that makes it, the heads in it."""

    node: Node
    value: str
    heads: RotatedHeads


def _way_back(region: Region, rope: Node, rotary_dim: int) -> Iterator[_Stop]:
    """Walks from a rope's input back to its projection."""
    producers: Mapping[str, Node] = {v.name: node for node in region.nodes for v in node.outputs}
    count, head_dim = _head_sizes(rope)
    name, start = rope.inputs["x"], 0
    while True:
        node = producers.get(name)
        _require_single_reader(region, rope, name)
        if node is None or not _is_on_the_way(node):
            raise LoweringError(
                "a rotated value must come from a projection for this release's interleaved rope",
                where=rope.location,
                hint=_HINT,
            )
        yield _Stop(node, name, RotatedHeads(start, count, head_dim, rotary_dim))
        if node.op == "linear":
            return
        if node.op == "split":
            sizes = [int(value.type.shape[-1]) for value in node.outputs]
            start += sum(sizes[: [value.name for value in node.outputs].index(name)])
        name = node.inputs["x"]


def _uses(region: Region, rope: Node, rotary_dim: int) -> Iterator[_Use]:
    """Yields every weight on the way; of a norm per head, the rows are those of its one head."""
    for stop in _way_back(region, rope, rotary_dim):
        made, heads = stop.node.outputs[0], stop.heads
        if stop.node.op == "rms_norm" and len(made.type.shape) > 2:
            heads = replace(heads, start=0, count=heads.head_dim)
        for role in ("weight", "bias"):
            if role in stop.node.inputs:
                yield _Use(stop.node.inputs[role], made.name, heads, rope)


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


def _permuted(weight: Weight, rotations: Set[RotatedHeads]) -> Weight:
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
