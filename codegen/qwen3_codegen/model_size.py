"""Exact sizes of a model, counted over the tensors its graph reads.

Nothing is estimated: a tensor that two weights share, such as a tied head, counts once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend.build_graph import build_graph
from qwen3_codegen.ir.graph import Graph, Region, Value
from qwen3_codegen.ir.weights import LAYER
from qwen3_codegen.spec.model import ModelSpec

__all__ = ["CheckpointTensor", "ModelSize", "checkpoint_tensors", "model_size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What a model takes, in elements; a dtype turns them into bytes."""

    num_matrix_elements: int
    """Elements of matrices, embeddings and biases, stored in the engine's dtype."""
    num_norm_elements: int
    """Elements of norm weights, stored in float32 whatever the dtype."""
    kv_elements_per_token: int
    """Keys and values one token adds over all attention layers."""
    num_windowed_layers: int
    """Attention layers whose cache ends with the window."""
    num_recurrent_layers: int
    """Layers whose cache is a state of fixed size."""

    @property
    def num_parameters(self) -> int:
        """Elements of all checkpoint tensors."""
        return self.num_matrix_elements + self.num_norm_elements

    def weight_bytes(self, dtype: DType) -> int:
        """Bytes of the weights of an engine of this dtype."""
        return self.num_matrix_elements * dtype.size + self.num_norm_elements * DType.F32.size

    def kv_bytes_per_token(self, dtype: DType) -> int:
        """Bytes one token adds to the cache, as long as no window is full."""
        return self.kv_elements_per_token * dtype.size


@dataclass(frozen=True, slots=True)
class CheckpointTensor:
    """One tensor a model reads."""

    name: str
    template: str
    """The name with ``{layer}`` in place of the layer's index."""
    shape: tuple[int, ...]
    is_float32: bool
    """Stored in float32 beside half-precision matrices."""


def checkpoint_tensors(graph: Graph) -> Iterator[CheckpointTensor]:
    """Yields every checkpoint tensor a graph reads, once, in the order it is first used."""
    seen: set[str] = set()
    for region, layer in _regions(graph):
        for weight in region.weights:
            is_float32 = weight.type.dtype is DType.F32 and graph.dtype is not DType.F32
            for template, shape in weight.sources.items():
                name = template if layer is None else template.replace(LAYER, str(layer))
                if name not in seen:
                    seen.add(name)
                    yield CheckpointTensor(name, template, shape, is_float32)


def _regions(graph: Graph) -> Iterator[tuple[Region, int | None]]:
    yield graph.prologue, None
    for layer, kind in enumerate(graph.schedule):
        yield graph.layer_kinds[kind], layer
    yield graph.epilogue, None


def model_size(spec: ModelSpec) -> ModelSize:
    """Counts a model.

    Raises:
        SpecError: The architecture's statements do not fit these sizes.
    """
    graph = build_graph(dataclasses.replace(spec, dtype=DType.BF16))
    elements = {True: 0, False: 0}
    for tensor in checkpoint_tensors(graph):
        elements[tensor.is_float32] += math.prod(tensor.shape)
    kinds = [_cache_of(region) for region in graph.layer_kinds]
    layers = [kinds[kind] for kind in graph.schedule]
    return ModelSize(
        num_matrix_elements=elements[False],
        num_norm_elements=elements[True],
        kv_elements_per_token=sum(layer.elements_per_token for layer in layers),
        num_windowed_layers=sum(layer.is_windowed for layer in layers),
        num_recurrent_layers=sum(layer.is_recurrent for layer in layers),
    )


@dataclass(frozen=True, slots=True)
class _LayerCache:
    elements_per_token: int
    is_windowed: bool
    is_recurrent: bool


def _cache_of(region: Region) -> _LayerCache:
    values: dict[str, Value] = {value.name: value for value in region.values()}
    elements, is_windowed, is_recurrent = 0, False, False
    for node in region.nodes:
        if node.op == "attention":
            is_windowed = is_windowed or node.attributes.get("window") is not None
            for role in ("k", "v"):
                shape = values[node.inputs[role]].type.shape
                elements += math.prod(int(dim) for dim in shape[1:])
        is_recurrent = is_recurrent or node.op in ("causal_conv1d", "gated_delta_net")
    return _LayerCache(elements, is_windowed, is_recurrent)
