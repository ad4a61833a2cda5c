"""Frozen records the templates see: finished names, literals and expressions, nothing to decide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightView:
    """A weight's member, its declaration as lines, and how it is brought there."""

    member: str
    declaration: tuple[str, ...]
    load: str
    load_arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionView:
    """A local tensor; a long one has its comment on a line before it."""

    name: str
    expression: str
    comment: str
    is_long: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """A call statement; arguments are joined and wrapped."""

    function: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One IR node: comment lines, its locals, its calls."""

    comment: tuple[str, ...]
    definitions: tuple[DefinitionView, ...]
    calls: tuple[CallView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionView:
    """What stands inside a function of the forward pass."""

    parameters: tuple[DefinitionView, ...]
    steps: tuple[StepView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionView:
    """A function of the forward pass, its body already printed."""

    name: str
    body: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKindView:
    """A layer kind: its function, its weights and the layers it is run for."""

    index: int
    struct: str
    member: str
    comment: tuple[str, ...]
    weights: tuple[WeightView, ...]
    region: FunctionView


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferView:
    """An activation buffer and its declaration as lines."""

    member: str
    declaration: tuple[str, ...]
    dtype: str
    bound: str
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantView:
    """A scalar kept on the device."""

    member: str
    literal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeView:
    """A rope table: its frequencies as literals."""

    member: str
    constant: str
    half_dim: int
    inv_freq: str
    long_inv_freq: str
    table_arguments: str
    has_long: bool
    long_threshold: int
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionView:
    """Scratch memory and constants of one attention shape."""

    member: str
    constant: str
    shape: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGroupView:
    """A cache group as the runtime is told about it."""

    name_literal: str
    kind: str
    dtype: str
    layers: str
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """Everything ``engine.hpp`` and ``engine.cpp`` print."""

    header: tuple[str, ...]
    sizes: tuple[str, ...]
    cpp_namespace: str
    num_layers: int
    vocab_size: int
    max_position_embeddings: int
    max_logit_rows: int
    dtype: str
    element: str
    kernels: tuple[str, ...]
    own_headers: tuple[str, ...]
    has_own_ops: bool
    target: str
    layer_kinds: tuple[LayerKindView, ...]
    has_several_kinds: bool
    schedule: str
    schedule_comment: tuple[str, ...]
    weights: tuple[WeightView, ...]
    buffers: tuple[BufferView, ...]
    scratch_columns: int
    has_scratch: bool
    constants: tuple[ConstantView, ...]
    has_constants: bool
    rope_tables: tuple[RopeView, ...]
    has_rope: bool
    attentions: tuple[AttentionView, ...]
    has_attention: bool
    windows: str
    cache_groups: tuple[CacheGroupView, ...]
    prologue: FunctionView
    epilogue: FunctionView


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorView:
    """One call site of InfiniCore's."""

    method: str
    comment: tuple[str, ...]
    parameters: str
    key_parts: str
    tensors: tuple[str, ...]
    descriptor_type: str
    create_function: str
    create_arguments: str
    destroy_function: str
    workspace_function: str
    has_workspace: bool
    run_function: str
    run_arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsView:
    """``infinicore_ops.hpp``."""

    header: tuple[str, ...]
    cpp_namespace: str
    operators: tuple[OperatorView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectView:
    """Build files, entry points and the Python package around an engine."""

    title: str
    cpp_namespace: str
    module_name: str
    distribution_name: str
    runtime_requirement: str
    """The distribution with the Python runtime, of the version that wrote the engine."""
    release: str
    isa_flags: str
    sources: str
