"""Where a value of a trace comes from: the order of execution, and whom to blame."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.ir.interpreter import places
from qwen3_codegen.passes.rewriting import producers
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.verification.inner_parts import inner_parts, last_part

__all__ = ["GraphOrder", "PlacedNode"]

_VIEWS = frozenset(("reshape", "split", "concat", "gather_rows"))


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node of one layer."""

    place: str
    layer: int | None
    node: Node
    part: str | None = None
    """The one that is meant, of a node that a pass made of several."""

    @property
    def name(self) -> str:
        """Its first result's name in a trace."""
        return f"{self.place}.{self.node.outputs[0].name}"

    @property
    def shown(self) -> str:
        """The name of what its part makes, or of its first result."""
        last = self.part is None or self.part == last_part(self.node)
        return self.name if last else f"{self.name}.{self.part}"

    @property
    def makes(self) -> set[str]:
        """The names in a trace of what its part makes, or of all its results."""
        if self.shown != self.name:
            return {self.shown}
        return {f"{self.place}.{value.name}" for value in self.node.outputs}

    @property
    def described(self) -> str:
        """What it makes and what it is."""
        part = "" if self.part is None else f"{self.part} of "
        return f"{self.shown} = {part}{self.node.op}"

    @property
    def location(self) -> SourceLocation:
        """Where the description says it, or its part."""
        return self.node.parts.get(self.part or "", self.node.location)


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

    @property
    def places(self) -> list[str]:
        """All places, in order."""
        return list(self._regions)

    def is_layer(self, place: str) -> bool:
        """Says whether a place is a layer."""
        return self._regions[place][0] is not None

    def place(self, name: str) -> str:
        """Returns the place a value is computed in, or is a parameter of."""
        return self._split(name)[0]

    def layer(self, name: str) -> int | None:
        """Returns the layer a value is computed in; a parameter belongs to the one before."""
        node = self.producer(name)
        return None if node is None else node.layer

    def producer(self, name: str) -> PlacedNode | None:
        """Returns the node that computes a value, None for token ids."""
        place, value, part = self._split(name)
        layer, region = self._regions[place]
        if value == region.parameters[0].name:
            before = self._before[place]
            if before is None:
                return None
            return self.producer(f"{before}.{self._regions[before][1].results[0]}")
        return PlacedNode(place, layer, producers(region.nodes)[value], part)

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
            if node is None or node.shown in found:
                continue
            known |= _implied(node, known)
            read = _read_by(node)
            if node.part is None and known.issuperset(read):
                node = replace(node, part=last_part(node.node))
            found[node.shown] = node
            waiting += [
                full for full in read if full in self._rank and self.canonical(full) not in known
            ]
        return [node for node in found.values() if node.node.op not in _VIEWS]

    def canonical(self, name: str) -> str:
        """Returns a value's name seen through what only passes it on: reshapes and places."""
        while True:
            place, value, part = self._split(name)
            if part is not None:
                return name
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
            for parameter in region.parameters:
                yield f"{place}.{parameter.name}"
            for node in region.nodes:
                for part in inner_parts(node):
                    yield f"{place}.{node.output.name}.{part}"
                for value in node.outputs:
                    yield f"{place}.{value.name}"

    def _split(self, name: str) -> tuple[str, str, str | None]:
        """Place, value, and of something inside a fused node the part that makes it."""
        place, _, value = name.rpartition(".")
        if place in self._regions:
            return place, value, None
        place, _, outer = place.rpartition(".")
        return place, outer, value


def _read_by(node: PlacedNode) -> list[str]:
    """Names of what a node is given, or what one part of it is."""
    inputs = {role: f"{node.place}.{value}" for role, value in node.node.inputs.items()}
    if node.part is None:
        inner = [part for part in inner_parts(node.node) if part not in inputs]
        return [f"{node.name}.{part}" for part in inner] or list(inputs.values())
    role, _, what = node.part.partition("_")
    if what == "rope" and f"{role}_norm" in inputs:
        return [f"{node.name}.{role}_norm"]
    return [inputs[role]]


def _implied(node: PlacedNode, known: Collection[str]) -> set[str]:
    """Queries are rotated by the table of their keys: where those are right, these are."""
    if not inner_parts(node.node):
        return set()
    queries, keys = (replace(node, part=f"{role}_rope") for role in ("q", "k"))
    if {keys.shown, *_read_by(queries)}.issubset(known):
        return {queries.shown}
    return set()
