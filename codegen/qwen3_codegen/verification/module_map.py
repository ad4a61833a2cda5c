"""A PyTorch model's modules and an engine's graph, brought together by the weights they read.

Nothing is configured: a node that reads ``model.layers.0.self_attn.k_norm.weight`` computes what
the module ``model.layers.0.self_attn.k_norm`` computes. What goes into a linear tells the value
before it, so attention and activations are seen, too, though they have no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np

from qwen3_codegen.ir.graph import Graph, Region, Weight
from qwen3_codegen.ir.interpreter import places
from qwen3_codegen.verification.graph_order import PlacedNode
from qwen3_codegen.verification.inner_parts import inner_parts
from qwen3_codegen.verification.measure import Array
from qwen3_codegen.verification.module_calls import ModuleCalls
from qwen3_codegen.verification.observed import Observed, Unmatched
from qwen3_runtime.checkpoint.transform import (
    Add,
    Concat,
    Expression,
    Rows,
    Scale,
    Tensor,
    evaluate,
    tensor_names,
)

__all__ = ["ModuleMap"]

_DATA_ROLES = {"weight": "x", "q_norm": "q", "k_norm": "k"}
"""The role of a node's data by the role of the weight it meets first."""
_NORMS = frozenset(("rms_norm", "layer_norm"))
_EXPERT_ROLES = frozenset(("gate", "up", "down"))
"""Those of a mixture of experts whose weights hold a matrix per expert."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """A node that reads a weight."""

    placed: PlacedNode
    role: str
    weight: Weight
    tensors: tuple[str, ...]

    @property
    def is_of_experts(self) -> bool:
        """Whether the weight holds a matrix per expert."""
        return self.placed.node.op == "moe" and self.role in _EXPERT_ROLES


@dataclass(slots=True)
class _Found:
    values: list[Observed] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)
    emitted: set[str] = field(default_factory=set)

    def add(self, name: str, source: str, rows: Sequence[Array] | None) -> None:
        if rows is not None and name not in self.emitted:
            self.emitted.add(name)
            self.values.append(Observed(name=name, source=source, rows=rows))


class ModuleMap:
    """Which values of an engine a model's modules show.

    Args:
        graph: The engine's, after all passes.
        tensors: Every module's own parameters, each with all its names.
        layer_prefix: Of checkpoint tensors of a layer, with ``{layer}``.
        num_tokens: Length of every sequence.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Mapping[str, tuple[str, ...]]],
        layer_prefix: str,
        num_tokens: Sequence[int],
    ) -> None:
        self._regions: dict[str, tuple[int | None, Region]] = {
            place: (layer, region) for place, layer, region in places(graph)
        }
        self._tensors = tensors
        self._layer_of = re.compile(re.escape(layer_prefix).replace(r"\{layer\}", r"(\d+)"))
        self._containers = {
            layer_prefix.replace("{layer}", str(layer)).rstrip("."): place
            for place, (layer, _) in self._regions.items()
            if layer is not None
        }
        self._num_tokens = num_tokens
        self._readers: dict[str, list[_Reader]] = {}
        self._experts: dict[str, PlacedNode] = {}
        for reader in self._all_readers():
            for tensor in reader.tensors:
                self._readers.setdefault(tensor, []).append(reader)
            if reader.is_of_experts:
                self._experts[_common_module(reader.tensors)] = reader.placed

    @property
    def wanted(self) -> list[str]:
        """Modules to record: those with parameters of their own, and whole layers."""
        return [*self._tensors, *self._containers]

    def match(self, calls: Mapping[str, ModuleCalls]) -> tuple[list[Observed], list[Unmatched]]:
        """Returns the engine's values as the modules show them, and what has no counterpart."""
        found = _Found()
        owners = self._owners(calls)
        for module, recorded in calls.items():
            if module in self._containers:
                place = self._containers[module]
                name = f"{place}.{self._regions[place][1].results[0]}"
                found.add(name, f"output of {module}", self._shaped(name, recorded.outputs))
            elif module in self._tensors:
                self._match_module(module, recorded, owners, calls, found)
        self._missing_in_reference(calls, owners, found)
        return found.values, found.unmatched

    def _match_module(
        self,
        module: str,
        recorded: ModuleCalls,
        owners: Mapping[str, str],
        calls: Mapping[str, ModuleCalls],
        found: _Found,
    ) -> None:
        if module in self._experts:
            name = self._experts[module].name
            found.add(name, f"output of {module}", self._shaped(name, recorded.outputs))
            return
        takes_ids = recorded.inputs[0].dtype.kind in "iu"
        for own, names in self._tensors[module].items():
            readers = [reader for name in names for reader in self._readers.get(name, [])]
            if not readers:
                found.unmatched.append(self._unread(module, own, recorded.kind, found))
            for reader in readers:
                is_lookup = takes_ids or reader.placed.node.op == "embedding"
                if reader.role in _DATA_ROLES and not is_lookup:
                    self._match_reader(module, reader, owners, calls, found)

    def _match_reader(
        self,
        module: str,
        reader: _Reader,
        owners: Mapping[str, str],
        calls: Mapping[str, ModuleCalls],
        found: _Found,
    ) -> None:
        placed, node = reader.placed, reader.placed.node
        name = f"{placed.place}.{node.inputs[_DATA_ROLES[reader.role]]}"
        if not self._is_scaled_for_the_head(name):
            rows = self._shaped(name, calls[module].inputs)
            found.add(name, f"input of {module}", rows)
        if reader.role in inner_parts(node):
            outputs = self._shaped(name, calls[module].outputs)
            found.add(f"{placed.name}.{reader.role}", f"output of {module}", outputs)
        if reader.role != "weight" or "residual" in node.inputs:
            return
        if node.op not in (*_NORMS, "linear") or not _is_made_of_rows(reader.weight.expression):
            return
        modules = [owners.get(tensor) for tensor in reader.tensors]
        if modules[-1] == module and all(each in calls for each in modules):
            outputs = self._outputs(reader, owners, calls)
            found.add(placed.name, f"output of {' and '.join(map(str, modules))}", outputs)

    def _is_scaled_for_the_head(self, name: str) -> bool:
        """A number before the head may as well stand after it; logits judge both together."""
        place, _, value = name.rpartition(".")
        nodes = self._regions[place][1].nodes if place == "epilogue" else ()
        return any(node.op == "scale" and node.output.name == value for node in nodes)

    def _outputs(
        self, reader: _Reader, owners: Mapping[str, str], calls: Mapping[str, ModuleCalls]
    ) -> list[Array] | None:
        """What a node gives, of what the modules give whose weights it holds."""
        placed, node = reader.placed, reader.placed.node
        alpha = node.attributes.get("alpha", 1.0)
        if alpha != 1.0:
            return None  # the module's result is not scaled yet; the next input shows it
        shaped = {
            tensor: self._shaped(
                placed.name, calls[owners[tensor]].outputs, whole=node.op in _NORMS
            )
            for tensor in reader.tensors
        }
        if any(rows is None for rows in shaped.values()):
            return None
        expression = _without_offset(reader.weight.expression)
        results = []
        for index in range(len(self._num_tokens)):
            parts = {tensor: rows[index] for tensor, rows in shaped.items() if rows is not None}
            results.append(_combined(expression, parts, placed.layer))
        return results

    def _shaped(
        self, name: str, recorded: Sequence[Array], *, whole: bool = True
    ) -> list[Array] | None:
        """Rows with tokens first, per head where the engine's value is per head.

        Some models hold heads before tokens; sequences of several lengths tell which is which.
        """
        sizes = self._sizes(name)
        swapped = any(
            rows.ndim == 3 and rows.shape[0] == sizes[0] and rows.shape[0] != count
            for rows, count in zip(recorded, self._num_tokens, strict=True)
        )
        ordered = [rows.swapaxes(0, 1) if swapped else rows for rows in recorded]
        if any(len(rows) != n for rows, n in zip(ordered, self._num_tokens, strict=True)):
            return None
        if not whole:
            return [rows.reshape(len(rows), -1) for rows in ordered]
        if any(rows[0].size != int(np.prod(sizes)) for rows in ordered):
            return None
        return [rows.reshape(len(rows), *sizes) for rows in ordered]

    def _sizes(self, name: str) -> tuple[int, ...]:
        place, _, value = name.rpartition(".")
        types = {each.name: each.type for each in self._regions[place][1].values()}
        return tuple(int(size) for size in types[value].shape[1:])

    def _owners(self, calls: Mapping[str, ModuleCalls]) -> dict[str, str]:
        """The module that applies a tensor; of a tied one the head, not the embedding."""
        owners: dict[str, str] = {}
        for module, parameters in self._tensors.items():
            is_lookup = module in calls and calls[module].inputs[0].dtype.kind in "iu"
            for names in parameters.values():
                for name in names:
                    if name not in owners or not is_lookup:
                        owners[name] = module
        return owners

    def _unread(self, module: str, own: str, kind: str, found: _Found) -> Unmatched:
        match = self._layer_of.match(f"{module}.")
        return Unmatched(
            name=module,
            layer=int(match[1]) if match else None,
            op=kind,
            location=None,
            after=found.values[-1].name if found.values else None,
            text=f"the reference applies {module}.{own}, which no op of the engine reads",
        )

    def _missing_in_reference(
        self, calls: Mapping[str, ModuleCalls], owners: Mapping[str, str], found: _Found
    ) -> None:
        for tensor, readers in self._readers.items():
            owner = owners.get(tensor)
            if owner is not None and owner in calls:
                continue
            if all(reader.is_of_experts for reader in readers) and (
                owner is not None  # an expert runs where a token chose it
                or _common_module(readers[0].tensors) in calls
            ):
                continue
            placed = readers[0].placed
            fault = "does not have" if owner is None else "does not apply (once per sequence)"
            found.unmatched.append(
                Unmatched(
                    name=placed.shown,
                    layer=placed.layer,
                    op=placed.node.op,
                    part=placed.part,
                    location=str(placed.location),
                    after=placed.shown,
                    text=f"the engine reads {tensor}, which the reference {fault}",
                )
            )

    def _all_readers(self) -> Iterator[_Reader]:
        for place, (layer, region) in self._regions.items():
            weights = {weight.name: weight for weight in region.weights}
            for node in region.nodes:
                for role, name in node.inputs.items():
                    if name in weights:
                        weight = weights[name]
                        tensors = tuple(tensor_names(weight.expression, layer))
                        part = role if role in inner_parts(node) else None
                        placed = PlacedNode(place, layer, node, part)
                        yield _Reader(placed, role, weight, tensors)


def _common_module(tensors: Sequence[str]) -> str:
    """The module that all experts lie in, and that holds their weights where it stacks them."""
    parts = zip(*(tensor.split(".") for tensor in tensors), strict=False)
    return ".".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, parts))


def _is_made_of_rows(expression: Expression) -> bool:
    """Whether a linear's columns are made of its parts' columns as its rows are of theirs."""
    match expression:
        case Tensor():
            return True
        case Add(source=source) | Scale(source=source) | Rows(source=source):
            return _is_made_of_rows(source)
        case Concat(sources=sources, axis=0):
            return all(map(_is_made_of_rows, sources))
    return False


def _without_offset(expression: Expression) -> Expression:
    """A module's result holds the offset of its weight already."""
    if isinstance(expression, Add):
        return _without_offset(expression.source)
    if isinstance(expression, Scale):
        return replace(expression, source=_without_offset(expression.source))
    return expression


def _combined(expression: Expression, parts: Mapping[str, Array], layer: int | None) -> Array:
    """A fused linear's columns are made of its parts' as its rows are of theirs."""
    first = next(iter(parts.values()))
    tokens, outer = len(first), first.shape[1:-1]
    flat = {tensor: rows.reshape(-1, rows.shape[-1]).T for tensor, rows in parts.items()}
    joined = evaluate(expression, flat.__getitem__, layer).T
    result: Array = joined.reshape(tokens, *outer, -1)
    return result
