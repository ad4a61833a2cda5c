"""Where a value of a trace comes from: the order of execution, and whom to blame."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.ir.interpreter import places
from qwen3_codegen.passes.rewriting import producers

__all__ = ["GraphOrder", "PlacedNode"]

_VIEWS = frozenset(("reshape", "split", "concat", "gather_rows"))


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node of one layer."""

    place: str
    layer: int | None
    node: Node

    @property
    def name(self) -> str:
        """Its first result's name in a trace."""
        return f"{self.place}.{self.node.outputs[0].name}"


class GraphOrder:
    """The values of a graph in the order they are computed."""

    def __init__(self, graph: Graph) -> None:
        self._regions: dict[str, tuple[int | None, Region]] = {
            place: (layer, region) for place, layer, region in places(graph)
        }
        self._before: dict[str, str | None] = {}
        previous: str | None = None
        for place in self._regions:
            self._before[place], previous = previous, place
        self._rank = {name: rank for rank, name in enumerate(self._names())}

    def __contains__(self, name: str) -> bool:
        return name in self._rank

    def rank(self, name: str) -> int:
        """Returns when a value is computed; a place's parameter comes before its nodes."""
        return self._rank[name]

    def layer(self, name: str) -> int | None:
        """Returns the layer a value is computed in; a parameter belongs to the one before."""
        node = self.producer(name)
        return None if node is None else node.layer

    def producer(self, name: str) -> PlacedNode | None:
        """Returns the node that computes a value, None for token ids."""
        place, value = self._split(name)
        layer, region = self._regions[place]
        if value == region.parameters[0].name:
            before = self._before[place]
            if before is None:
                return None
            return self.producer(f"{before}.{self._regions[before][1].results[0]}")
        return PlacedNode(place, layer, producers(region.nodes)[value])

    def suspects(self, name: str, sound: Collection[str]) -> list[PlacedNode]:
        """Returns the ops that can have made a value wrong, nearest first.

        Args:
            name: The value.
            sound: Values that are known to be right; nothing before them is to blame.
        """
        found: dict[str, PlacedNode] = {}
        known = {self.canonical(each) for each in sound}
        waiting = [name]
        while waiting:
            node = self.producer(waiting.pop(0))
            if node is None or node.name in found:
                continue
            found[node.name] = node
            for value in node.node.inputs.values():
                full = f"{node.place}.{value}"
                if full in self._rank and self.canonical(full) not in known:
                    waiting.append(full)
        return [node for node in found.values() if node.node.op not in _VIEWS]

    def canonical(self, name: str) -> str:
        """Returns a value's name seen through what only passes it on: reshapes and places."""
        while True:
            place, value = self._split(name)
            region = self._regions[place][1]
            before = self._before[place]
            if value == region.parameters[0].name:
                if before is None:
                    return name
                name = f"{before}.{self._regions[before][1].results[0]}"
                continue
            node = producers(region.nodes)[value]
            if node.op != "reshape":
                return name
            name = f"{place}.{node.inputs['x']}"

    def _names(self) -> Iterator[str]:
        for place, (_, region) in self._regions.items():
            weights = {weight.name for weight in region.weights}
            for value in region.values():
                if value.name not in weights:
                    yield f"{place}.{value.name}"

    @staticmethod
    def _split(name: str) -> tuple[str, str]:
        place, _, value = name.rpartition(".")
        return place, value
