"""Frozen records the templates see: finished names, literals and expressions, nothing to decide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldView:
    """A member of a struct: its name and a comment with shape, dtype and origin."""

    name: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightView:
    """A weight's member, and what ``upload`` is told about it."""

    member: str
    name_literal: str
    dtype: str
    shape: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionView:
    """A local tensor."""

    name: str
    expression: str
    comment: str


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
    """A function of the forward pass."""

    name: str
    comment: str
    parameters: tuple[DefinitionView, ...]
    steps: tuple[StepView, ...]
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKindView:
    """A layer kind: its function, its weights and the layers it is run for."""

    index: int
    struct: str
    member: str
    comment: str
    weights: tuple[WeightView, ...]
    region: RegionView


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferView:
    """An activation buffer."""

    member: str
    bound: str
    columns: int
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantView:
    """A scalar kept on the device."""

    name: str
    literal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeView:
    """A rope table: its frequencies as literals."""

    name: str
    constant: str
    half_dim: int
    inv_freq: str
    long_inv_freq: str
    inv_freq_expression: str
    has_long: bool
    long_threshold: int
    attention_factor: str
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
    layers: str
    num_key_value_heads: int
    head_dim: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """Everything ``engine.hpp`` and ``engine.cpp`` print."""

    title: str
    regenerate: str
    namespace: str
    num_layers: int
    vocab_size: int
    max_position_embeddings: int
    max_logit_rows: int
    dtype: str
    device_enumerator: str
    device_literal: str
    is_emulated: str
    layer_kinds: tuple[LayerKindView, ...]
    schedule: str
    weights: tuple[WeightView, ...]
    buffers: tuple[BufferView, ...]
    scratch_columns: int
    has_scratch: bool
    constants: tuple[ConstantView, ...]
    has_constants: bool
    rope_tables: tuple[RopeView, ...]
    has_rope: bool
    attentions: tuple[AttentionView, ...]
    windows: str
    cache_groups: tuple[CacheGroupView, ...]
    prologue: RegionView
    epilogue: RegionView


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorView:
    """One call site of InfiniCore's."""

    index: int
    method: str
    comment: str
    parameters: str
    key_parts: tuple[str, ...]
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

    title: str
    namespace: str
    operators: tuple[OperatorView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectView:
    """Build files and the Python package around an engine."""

    title: str
    namespace: str
    module_name: str
    distribution_name: str
    release: str
