"""How the weights of a graph are drawn so that a wrong engine cannot pass by luck.

Norm weights spread around their mean, biases are not zero, attention scores are wide enough that
a head looks at few tokens, and logits are wide enough that the argmax has a margin. What a weight
is for is read off the graph, so every architecture is served alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from qwen3_codegen.ir.graph import Graph, Node, Region, Weight

__all__ = ["Distribution", "weight_distributions"]

_SCORE_SPREAD = 4.5
"""Standard deviation of attention scores."""
_LOGIT_SPREAD = 3.0
_BRANCH_GAIN = 0.6
"""Of the matrices that write into the residual stream, so that it stays near 1."""
_MLP_GAIN = 1.5
_ROUTER_GAIN = 2.0
_EMBEDDING_SPREAD = 0.25
_BIAS_SPREAD = 0.2
_ELEMENTWISE = frozenset(("reshape", "rope", "split", "scale"))
"""Ops that keep a value's role: what comes out is a query if what goes in is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """``mean + spread * z``; z is normal, or uniform between -1 and 1."""

    mean: float = 0.0
    spread: float
    is_uniform: bool = False


def weight_distributions(graph: Graph) -> dict[str, Distribution]:
    """Returns the distribution of every checkpoint tensor, by name with ``{layer}`` kept."""
    found: dict[str, Distribution] = {}
    for region in graph.regions():
        uses = _Uses(region, graph)
        for weight in region.weights:
            distribution = uses.distribution(weight)
            for template in weight.sources:
                found.setdefault(template, distribution)
    return found


class _Uses:
    """What the weights of a region are for."""

    def __init__(self, region: Region, graph: Graph) -> None:
        self._region = region
        self._graph = graph
        self._consumers: dict[str, list[tuple[Node, str]]] = {}
        for node in region.nodes:
            for role, value in node.inputs.items():
                self._consumers.setdefault(value, []).append((node, role))

    def distribution(self, weight: Weight) -> Distribution:
        """Returns how a weight is drawn."""
        node, role = self._consumers[weight.name][0]
        fan_in = int(weight.type.shape[-1])
        match node.op, role:
            case "rms_norm", "weight":
                return self._norm(node)
            case "layer_norm", "weight":
                return Distribution(mean=1.0, spread=0.5, is_uniform=True)
            case _, "bias":
                return Distribution(spread=_BIAS_SPREAD)
            case "embedding", _:
                return Distribution(spread=self._embedding_spread(fan_in) / self._scale_of(node))
            case "linear", _:
                return Distribution(spread=self._linear_gain(node) / math.sqrt(fan_in))
            case "moe", "router":
                return Distribution(spread=_ROUTER_GAIN / math.sqrt(fan_in))
            case "moe", "down":
                return Distribution(spread=_BRANCH_GAIN / math.sqrt(fan_in))
            case "moe", _:
                return Distribution(spread=_MLP_GAIN / math.sqrt(fan_in))
            case "gated_delta_net", _:
                return Distribution(spread=1.0, is_uniform=True)
        return Distribution(spread=1 / math.sqrt(fan_in))

    def _norm(self, node: Node) -> Distribution:
        offset = node.attributes.get("offset") or 0.0
        assert isinstance(offset, int | float)
        gain = self._score_gain(node) or 1.0
        plain = Distribution(mean=gain, spread=0.5 * gain, is_uniform=True)
        return replace(plain, mean=gain - offset)

    def _linear_gain(self, node: Node) -> float:
        if self._region is self._graph.epilogue:
            return _LOGIT_SPREAD / self._scale_of(node)
        score = self._score_gain(node)
        if score is not None:
            return score
        ops = {reader.op for reader, _ in self._readers(node)}
        if "add" in ops or "rms_norm" in ops:
            return _BRANCH_GAIN
        return 1.0 if "attention" in ops else _MLP_GAIN

    def _embedding_spread(self, hidden_size: int) -> float:
        """A tied embedding is the head too, where its spread decides that of the logits."""
        (table,) = (w for w in self._graph.prologue.weights if len(w.type.shape) == 2)
        tied = any(set(table.sources) & set(w.sources) for w in self._graph.epilogue.weights)
        return _LOGIT_SPREAD / math.sqrt(hidden_size) if tied else _EMBEDDING_SPREAD

    def _scale_of(self, node: Node) -> float:
        """Product of the factors that scale a region's results, such as Jiuge's."""
        factors = [1.0]
        for other in self._region.nodes:
            factor = other.attributes.get("factor") if other.op == "scale" else None
            if isinstance(factor, int | float) and factor:
                factors.append(abs(float(factor)))
        return math.prod(factors) if self._region.name in ("prologue", "epilogue") else 1.0

    def _score_gain(self, node: Node) -> float | None:
        """Gain of what makes queries and keys; None for anything else."""
        for reader, role in self._readers(node):
            if reader.op == "attention" and role in ("q", "k"):
                scale = reader.attributes["scale"]
                assert isinstance(scale, int | float)
                head_dim = next(
                    int(value.type.shape[-1])
                    for value in self._region.values()
                    if value.name == reader.inputs["q"]
                )
                return math.sqrt(_SCORE_SPREAD / (abs(scale) * math.sqrt(head_dim)))
        return None

    def _readers(self, node: Node) -> Iterator[tuple[Node, str]]:
        """Yields who reads a node's results, seen through ops that keep a value's role."""
        for output in node.outputs:
            for reader, role in self._consumers.get(output.name, []):
                if reader.op in _ELEMENTWISE:
                    yield from self._readers(reader)
                else:
                    yield reader, role
