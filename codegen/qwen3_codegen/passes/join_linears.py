"""The mechanism that ``fuse_qkv`` and ``fuse_gate_up`` share: one linear for several.

Linears over the same input become one whose weight is theirs, row under row, and a split whose
results keep the old names. Each output element is the same sum as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qwen3_codegen.ir.graph import Node, Region, Value, ValueType, Weight
from qwen3_codegen.passes.rewriting import unused_name, use_counts, weights_by_name, with_nodes
from qwen3_runtime.checkpoint.transform import Concat, Rows, Tensor
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression

__all__ = ["join_linears"]


def join_linears(
    region: Region, linears: Mapping[str, Node | None], *, separator: str = ""
) -> Region:
    """Joins those of the linears that fit the first one.

    Linears fit when they have the same input and alpha, a bias all or none, no residual, equally
    typed weights that nothing else reads, and when there are at least two of them.

    Args:
        region: Holds the linears.
        linears: By a short name, in the order in which their rows are put together; None and a
            node that is there already are passed over.
        separator: Between the short names in the joined weight's, as in ``gate_up_proj``.

    Returns:
        The region, unchanged when fewer than two fit.
    """
    weights = weights_by_name(region)
    fitting = _fitting(region, linears, weights)
    if len(fitting) < 2:
        return region
    group = list(fitting.values())
    names = [node.inputs["weight"] for node in group]
    joined = unused_name(region, f"{separator.join(fitting)}_proj")
    new_weights = [_joined_weight(joined, [weights[name] for name in names])]
    inputs = {"x": group[0].inputs["x"], "weight": joined}
    if "bias" in group[0].inputs:
        biases = [weights[node.inputs["bias"]] for node in group]
        inputs["bias"] = unused_name(region, f"{joined}_bias")
        new_weights.append(_joined_weight(inputs["bias"], biases))
    sizes = tuple(int(node.output.type.shape[-1]) for node in group)
    rows, _ = group[0].output.type.shape
    result = Value(
        unused_name(region, separator.join(fitting)),
        ValueType((rows, sum(sizes)), group[0].output.type.dtype),
    )
    linear = replace(group[0], inputs=inputs, outputs=(result,))
    split = Node(
        "split",
        {"x": result.name},
        tuple(node.output for node in group),
        {"sizes": sizes},
        group[0].location,
    )
    return _replaced(region, group, [linear, split], new_weights)


def _fitting(
    region: Region, linears: Mapping[str, Node | None], weights: Mapping[str, Weight]
) -> dict[str, Node]:
    """Returns the linears that can be joined, by their short names."""
    uses = use_counts(region)
    fitting: dict[str, Node] = {}

    def fits(node: Node, first: Node) -> bool:
        read = [node.inputs[role] for role in ("weight", "bias") if role in node.inputs]
        return (
            set(node.inputs) == set(first.inputs)
            and "residual" not in node.inputs
            and node.inputs["x"] == first.inputs["x"]
            and node.attributes == first.attributes
            and all(name in weights and uses[name] == 1 for name in read)
            and _storage(weights[read[0]]) == _storage(weights[first.inputs["weight"]])
        )

    for label, node in linears.items():
        if node is None or node in fitting.values() or node.inputs["weight"] not in weights:
            continue
        if fits(node, next(iter(fitting.values()), node)):
            fitting[label] = node
    return fitting


def _storage(weight: Weight) -> object:
    return weight.type.dtype, weight.type.encoding, weight.type.shard


def _joined_weight(name: str, weights: Sequence[Weight]) -> Weight:
    rows = sum(int(weight.type.shape[0]) for weight in weights)
    sources = {tensor: shape for weight in weights for tensor, shape in weight.sources.items()}
    expression = _concatenated([weight.expression for weight in weights], sources)
    shape = (rows, *weights[0].type.shape[1:])
    return Weight(name, replace(weights[0].type, shape=shape), expression, sources)


def _concatenated(
    parts: Sequence[WeightExpression], sources: Mapping[str, tuple[int, ...]]
) -> WeightExpression:
    """Joins parts; consecutive rows of one tensor are read as what they were on disk."""
    merged: list[WeightExpression] = []
    for part in parts:
        last = merged[-1] if merged else None
        if (
            isinstance(part, Rows)
            and isinstance(last, Rows)
            and part.source == last.source
            and part.start == last.start + last.count
        ):
            merged[-1] = replace(last, count=last.count + part.count)
        else:
            merged.append(part)
    whole = [_whole_tensor(part, sources) for part in merged]
    return whole[0] if len(whole) == 1 else Concat(tuple(whole))


def _whole_tensor(
    part: WeightExpression, sources: Mapping[str, tuple[int, ...]]
) -> WeightExpression:
    if isinstance(part, Rows) and isinstance(part.source, Tensor):
        rows = sources[part.source.name][0]
        if (part.start, part.count) == (0, rows):
            return part.source
    return part


def _replaced(
    region: Region, group: Sequence[Node], nodes: Sequence[Node], weights: Sequence[Weight]
) -> Region:
    """Puts the new nodes where the earliest of the group stood, and the weights likewise."""
    gone = {name for node in group for role, name in node.inputs.items() if role != "x"}
    earliest = next(node for node in region.nodes if any(node is other for other in group))
    new_nodes: list[Node] = []
    for node in region.nodes:
        if node is earliest:
            new_nodes += nodes
        elif not any(node is other for other in group):
            new_nodes.append(node)
    new_weights: list[Weight] = []
    for weight in region.weights:
        if weight.name not in gone:
            new_weights.append(weight)
        elif weights[0] not in new_weights:
            new_weights += weights
    return with_nodes(region, new_nodes, new_weights)
