"""``EnginePlan`` and its parts: what is emitted, with no decision left open.

A plan names C++ locals after IR values. Everything in it is plain data: emission prints it, the
manifest stores parts of it, and tests compare it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import ValueType
from qwen3_codegen.ir.weights import tensor_templates
from qwen3_codegen.spec.device import device_title
from qwen3_codegen.spec.model import RopeTable
from qwen3_codegen.spec.source import SourceLocation
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression
from qwen3_runtime.checkpoint.transform import Reshape, Rows, Stack
from qwen3_runtime.engine.batch import CacheGroup


class Origin(enum.Enum):
    """What the base of a tensor reference is."""

    VALUE = "value"
    """A C++ local named after an IR value."""
    BUFFER = "buffer"
    """An activation buffer of the engine."""
    MODEL_WEIGHT = "model_weight"
    LAYER_WEIGHT = "layer_weight"
    CONSTANT = "constant"
    """A scalar on the device, shape [1]."""
    SIN_TABLE = "sin_table"
    COS_TABLE = "cos_table"
    POSITIONS = "positions"


Extent: TypeAlias = int | str
"""A size, or the name of a symbol whose value is known when a step runs."""


@dataclass(frozen=True, slots=True)
class View:
    """One method of the C++ ``Tensor``: another way to look at the same storage."""

    method: str
    arguments: tuple[Extent | tuple[Extent, ...], ...]


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as an operator sees it: a base and the views taken of it, left to right."""

    origin: Origin
    name: str
    views: tuple[View, ...] = ()

    def viewed(self, method: str, *arguments: Extent | tuple[Extent, ...]) -> TensorRef:
        """Returns this reference with one more view."""
        return TensorRef(self.origin, self.name, (*self.views, View(method, arguments)))


@dataclass(frozen=True, slots=True)
class Definition:
    """``const Tensor name = reference;``: a value finds its place in memory."""

    name: str
    reference: TensorRef
    type: ValueType


Scalar: TypeAlias = float | str
"""A float32 constant, or an enumerator of InfiniCore's."""


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """One InfiniCore operator; tensors and scalars in the order of the API table."""

    operator: str
    tensors: tuple[TensorRef, ...]
    scalars: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class RowCopy:
    """Rows of a table to consecutive rows of a value, row numbers known on the host.

    ``rows`` is ``token_ids`` or ``logit_rows``.
    """

    destination: TensorRef
    table: TensorRef
    rows: str


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Append to the cache and attend; carried out by ``contiguous_attention.hpp``."""

    output: TensorRef
    query: TensorRef
    key: TensorRef
    value: TensorRef
    shape_index: int
    window: int | None
    scale: float


@dataclass(frozen=True, slots=True)
class ActivationCall:
    """An activation made of several operators by a template of ``activations.hpp``."""

    function: str
    output: TensorRef
    input: TensorRef
    constants: tuple[TensorRef, ...]
    scratch: TensorRef


class StepArgument(enum.Enum):
    """What a kernel is told about the step in flight."""

    CACHE = "cache"
    """Keys and values of the layer."""
    SEQUENCES = "sequences"
    """Rows and blocks of every sequence."""
    TOKEN_IDS = "token_ids"
    LOGIT_ROWS = "logit_rows"
    POSITIONS = "positions"


@dataclass(frozen=True, slots=True)
class Flag:
    """A choice, by the name that the code shows beside it."""

    name: str
    value: bool


@dataclass(frozen=True, slots=True)
class FloatVector:
    """A weight in float32 where a kernel takes its address; None is a null pointer."""

    weight: TensorRef | None


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """Norm and rotation of heads on their way to attention; None leaves a step out."""

    norm: TensorRef | None
    epsilon: float
    table: RopeTable | None


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """Numbers of an attention."""

    scale: float
    window: int | None
    softcap: float | None


KernelArgument: TypeAlias = (
    TensorRef
    | tuple[TensorRef, ...]
    | Flag
    | float
    | int
    | bool
    | StepArgument
    | FloatVector
    | HeadOptions
    | AttentionOptions
)
"""Several tensors are one struct of ``ops.hpp``."""


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One op of ``engine/native/ops.hpp``, a class template over the element type and sizes."""

    kernel: str
    """A class of ``ops.hpp``, or ``own::`` and one of the user's."""
    sizes: tuple[int | str, ...]
    """Template arguments behind the element type; a text is a class of ``ops.hpp``."""
    arguments: tuple[KernelArgument, ...]


@dataclass(frozen=True, slots=True)
class RotatedHeads:
    """Rows of a weight, or columns of a value, that hold heads of which a part is rotated."""

    start: int
    count: int
    head_dim: int
    rotary_dim: int

    def overlaps(self, other: RotatedHeads) -> bool:
        """Says whether two of them share a row."""
        return self.start < other.start + other.count and other.start < self.start + self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCall:
    """A copy of a value as it is now, for those who look into a step; only in traced engines."""

    name: str
    region: str | None
    """``prologue`` or ``epilogue``; None is the layer at hand."""
    value: TensorRef
    is_part: bool
    """Whether it holds some of the step's logit rows only."""
    interleaved: tuple[RotatedHeads, ...] = ()
    """Columns whose heads are permuted, for a release that rotates neighbours."""


@dataclass(frozen=True, slots=True)
class CacheTraceCall:
    """A copy of what the step's tokens have in a layer's cache, under two names."""

    keys: str
    values: str


Action: TypeAlias = (
    OperatorCall
    | RowCopy
    | AttentionCall
    | ActivationCall
    | KernelCall
    | TraceCall
    | CacheTraceCall
)


@dataclass(frozen=True, slots=True)
class Step:
    """One IR node carried out."""

    text: str
    """The node as the IR prints it, for the comment above the code."""
    location: SourceLocation
    definitions: tuple[Definition, ...]
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Activation memory shared by values that are never alive together."""

    name: str
    rows: str
    """Symbol that bounds its rows: ``num_tokens`` or ``num_logit_rows``."""
    columns: int
    dtype: DType
    holds: tuple[str, ...]
    """Values that live in it, for the comment beside it."""


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """One tensor on the device and how it is made of checkpoint tensors."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    expression: WeightExpression
    sources: Mapping[str, tuple[int, ...]]
    is_split: bool = False
    """Whether the engine holds a tensor per index of the first axis, so that each may stay where
    its file is mapped."""

    def parts(self) -> tuple[WeightPlan, ...]:
        """The tensors the engine asks for: ``name.0`` onwards of a split weight, else itself."""
        if not self.is_split:
            return (self,)
        return tuple(self._part(index) for index in range(self.shape[0]))

    def _part(self, index: int) -> WeightPlan:
        shape = self.shape[1:]
        if isinstance(self.expression, Stack):
            expression = self.expression.sources[index]
        else:
            expression = Reshape(Rows(self.expression, index, 1), shape)
        sources = {name: self.sources[name] for name in tensor_templates(expression)}
        return WeightPlan(f"{self.name}.{index}", shape, self.dtype, expression, sources)

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count * self.dtype.size


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """Steps of the prologue, one layer kind, or the epilogue."""

    name: str
    parameters: tuple[Definition, ...]
    """Values that are there when the region starts."""
    steps: tuple[Step, ...]
    result: str
    weights: tuple[WeightPlan, ...]
    layers: tuple[int, ...]
    """Layers this kind is run for; empty outside the layers."""
    attributes: Mapping[str, object]

    @property
    def trace_calls(self) -> tuple[TraceCall, ...]:
        """Copies of values, in order."""
        actions = (action for step in self.steps for action in step.actions)
        return tuple(action for action in actions if isinstance(action, TraceCall))


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Head counts and size of an attention; layers of equal shape share scratch memory."""

    num_heads: int
    num_key_value_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class OpChoice:
    """How one IR op is carried out on the device, and why."""

    op: str
    operators: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes known before anything is loaded."""

    weight_bytes: int
    kv_bytes_per_token: int
    activation_bytes_per_token: int
    """Activation buffers, per token of max_num_batched_tokens."""
    logit_bytes_per_row: int
    """Buffers of the epilogue, for max_logit_rows rows."""
    rope_bytes_per_position: int
    """Sines and cosines, per position of max_model_len."""
    mask_bytes_per_token_and_position: int
    """Attention masks, per product of max_num_batched_tokens and max_model_len."""
    attention_scratch_bytes: int
    """Scores of attention; more only if one query row of the longest context needs more."""


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """The device an engine is for."""

    name: str
    """Of its description, e.g. ``board``."""
    device: str
    """InfiniCore's name, e.g. ``cambricon``."""
    enumerator: str
    """e.g. ``INFINI_DEVICE_CAMBRICON``."""
    lowering: str
    release: str
    emulated: bool
    infinicore: str
    """``embedded`` or ``installed``."""

    @property
    def title(self) -> str:
        """The device's name, with InfiniCore's where that is another."""
        return device_title(self.name, self.device)


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Everything emission needs."""

    module_name: str
    model_name: str
    architecture: str
    target: TargetPlan
    dtype: DType
    """Of matrices and, unless ``activation_dtype`` says otherwise, of values between ops."""
    vocab_size: int
    max_position_embeddings: int
    num_layers: int
    prologue: RegionPlan
    layer_kinds: tuple[RegionPlan, ...]
    schedule: tuple[int, ...]
    epilogue: RegionPlan
    buffers: tuple[BufferPlan, ...]
    max_logit_rows: int
    """Rows of logits computed at once; more are done in several goes."""
    scratch_columns: int
    """Scratch elements per token that composite activations need; 0 when there are none."""
    constants: Mapping[str, float]
    rope_tables: Mapping[str, RopeTable]
    attention_shapes: tuple[AttentionShape, ...]
    windows: tuple[int | None, ...]
    """Distinct windows, in order of first use."""
    cache_groups: tuple[CacheGroup, ...]
    operators: tuple[str, ...]
    """InfiniCore operators called, sorted."""
    kernels: tuple[tuple[str, tuple[int | str, ...]], ...]
    """Kernels of our own with their sizes, sorted."""
    choices: tuple[OpChoice, ...]
    memory: MemoryPlan
    ignored_tensors: tuple[str, ...]
    """Shell patterns of checkpoint tensors that may be left over."""
    spec_facts: Mapping[str, object]
    """The resolved configuration, for the manifest."""
    overrides: Mapping[str, object]
    """What the user changed of the description, for the manifest."""
    digests: Mapping[str, str]
    """Hashes of what the plan was made of, ``spec`` and ``device``."""
    own_headers: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict, metadata={"digest": "if set"}
    )
    """By the header of an op of the user's own: its text and those of what it includes, by name."""
    activation_dtype: DType | None = field(default=None, metadata={"digest": "if set"})
    """Of values between ops where that is not ``dtype``."""
    row_dtype: DType | None = field(default=None, metadata={"digest": "if set"})
    """What rows of linears may be rounded to beside matrices of that dtype, where an instruction
    set multiplies those faster; None: no rows."""

    @property
    def value_dtype(self) -> DType:
        """Of values between ops."""
        return self.activation_dtype or self.dtype

    @property
    def cache_dtype(self) -> DType:
        """Of keys and values, the same in every group."""
        dtypes = (DType(group.dtype) for group in self.cache_groups)
        return next(dtypes, self.value_dtype)

    def regions(self) -> tuple[RegionPlan, ...]:
        """Prologue, layer kinds, epilogue."""
        return (self.prologue, *self.layer_kinds, self.epilogue)

    @property
    def is_traced(self) -> bool:
        """Whether values can be looked at while the engine runs."""
        return any(region.trace_calls for region in self.regions())
