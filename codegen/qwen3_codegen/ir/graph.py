"""The graph: typed values and nodes, a region per distinct layer kind, a schedule of layers.

A graph is frozen; a pass builds a new one. Node order is execution order. Every value has one
definition inside its region. Weights are values too, defined by their region's ``weights``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.model import RopeTable
from qwen3_codegen.spec.source import SourceLocation
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression

if TYPE_CHECKING:
    from qwen3_codegen.ir.ops.definition import OpDef

NUM_TOKENS = "num_tokens"
"""Symbol: packed tokens of one step, over all sequences."""
NUM_LOGIT_ROWS = "num_logit_rows"
"""Symbol: rows of a step whose logits are asked for."""

Dim: TypeAlias = int | str
"""A size, or one of the symbols above; only the first dimension of a value is a symbol."""
AttributeValue: TypeAlias = int | float | str | bool | tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a tensor is stored: ``dense``, or a quantised block format with its group size."""

    kind: str = "dense"
    group_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Axis split over the devices of a tensor-parallel engine; None means replicated."""

    axis: int | None = None


DENSE = Encoding()
REPLICATED = Shard()


@dataclass(frozen=True, slots=True)
class ValueType:
    """Shape, logical dtype, storage encoding and shard of a value."""

    shape: tuple[Dim, ...]
    dtype: DType
    encoding: Encoding = DENSE
    shard: Shard = REPLICATED

    def __str__(self) -> str:
        dims = ", ".join(str(dim) for dim in self.shape)
        suffix = "" if self.encoding == DENSE else f" {self.encoding.kind}"
        return f"{self.dtype.value}[{dims}]{suffix}"


@dataclass(frozen=True, slots=True)
class Value:
    """A named result of a node, or a parameter of a region."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Weight:
    """A value read from the checkpoint.

    ``expression`` says how it is made of checkpoint tensors; names inside hold ``{layer}`` for
    weights of a layer. ``sources`` gives the shape each of those tensors must have on disk.
    """

    name: str
    type: ValueType
    expression: WeightExpression
    sources: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Node:
    """One op: inputs and outputs by name, attributes by value.

    Optional inputs that are absent are simply not in ``inputs``; the op table says which input
    roles an op has, and ``inputs`` maps role to value name.
    """

    op: str
    inputs: Mapping[str, str]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, AttributeValue]
    location: SourceLocation
    parts: Mapping[str, SourceLocation] = field(default_factory=dict)
    """Where the description says what a pass took into this node, by the part it plays in it."""

    @property
    def output(self) -> Value:
        """The only output; ValueError when there are several."""
        (value,) = self.outputs
        return value


@dataclass(frozen=True, slots=True)
class Region:
    """A straight run of nodes with parameters, results and weights of its own."""

    name: str
    parameters: tuple[Value, ...]
    weights: tuple[Weight, ...]
    nodes: tuple[Node, ...]
    results: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    """For a layer kind: the attributes that make it distinct (``window`` ...)."""

    def values(self) -> Iterator[Value]:
        """Yields parameters, weights and node outputs in order of definition."""
        yield from self.parameters
        for weight in self.weights:
            yield Value(weight.name, weight.type)
        for node in self.nodes:
            yield from node.outputs


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole model: prologue, layer kinds with the schedule that runs them, epilogue.

    Data flows ``input_ids`` → prologue → ``h`` → each layer in turn → ``h`` → epilogue →
    ``logits`` ``[num_logit_rows, vocab_size]``.
    """

    name: str
    dtype: DType
    max_position_embeddings: int
    vocab_size: int
    prologue: Region
    layer_kinds: tuple[Region, ...]
    schedule: tuple[int, ...]
    """Index into ``layer_kinds`` for every layer."""
    epilogue: Region
    rope_tables: Mapping[str, RopeTable]
    own_ops: Mapping[str, OpDef] = field(default_factory=dict)
    """Rows that the user adds to the op table; see ``qwen3_codegen.ir.ops.ops_of``."""

    def regions(self) -> Iterator[Region]:
        """Yields prologue, layer kinds and epilogue."""
        yield self.prologue
        yield from self.layer_kinds
        yield self.epilogue
