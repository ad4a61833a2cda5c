"""The records every later stage reads; after them no field is missing and no size unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.functions import FUNCTIONS, FunctionTable
from qwen3_codegen.spec.rules import ConfigSchema, LayerTypeRule, LocatedExpression, RopeRule
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Statement

ConfigValue: TypeAlias = (
    int | float | str | bool | tuple["ConfigValue", ...] | Mapping[str, "ConfigValue"] | None
)
Attribute: TypeAlias = int | float | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointNames:
    """How a checkpoint names its tensors.

    ``layer_prefix`` holds ``{layer}`` and goes before every weight path of a layer statement;
    paths outside the layer are written in full. ``.weight`` and ``.bias`` are appended except
    inside ``tensor(...)``. ``ignore`` are shell patterns of tensors that may be left over.
    """

    layer_prefix: str
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDefaults:
    """How to talk to a model; None where the checkpoint decides."""

    system_prompt: str | None = None
    tool_format: str | None = None
    reasoning_format: str | None = None
    sampling: Mapping[str, Attribute] = field(default_factory=dict)
    sampling_without_thinking: Mapping[str, Attribute] = field(default_factory=dict)
    """What differs where the template has a model that can think answer at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureSpec:
    """One architecture file: the layer graph an engineer would draw, and the checkpoint's names."""

    name: str
    description: str
    model_type: str
    """``model_type`` that a config.json written for this architecture gets."""
    model_types: tuple[str, ...]
    """Every ``model_type`` that config.json may have; the first is ``model_type``."""
    huggingface_class: str
    """Class of transformers that is the reference."""
    config: ConfigSchema
    rope: Mapping[str, RopeRule]
    layer_types: Mapping[str, LayerTypeRule]
    layer_type: LocatedExpression
    """Name of a layer's type, over config fields and ``layer``, the layer's index."""
    layer_attributes: Mapping[str, LocatedExpression]
    """Every attribute of a layer with its value where the layer type sets none."""
    prologue: tuple[Statement, ...]
    """Statements before the layers; ``input_ids`` is given, ``h`` must be defined."""
    blocks: Mapping[str, tuple[Statement, ...]]
    """Named lists of statements; a layer is the concatenation of its layer type's blocks."""
    epilogue: tuple[Statement, ...]
    """Statements after the layers, on the rows that need logits; ``logits`` must be defined."""
    checkpoint: CheckpointNames
    chat: ChatDefaults = field(default_factory=ChatDefaults)
    """Holds for checkpoints, and where a model spec is silent."""
    own_functions: FunctionTable = field(default_factory=dict, metadata={"digest": "if set"})
    """What statements may call beside the functions of the language: ops of the user's own."""
    location: SourceLocation

    @property
    def functions(self) -> FunctionTable:
        """Everything that statements may call."""
        return {**FUNCTIONS, **self.own_functions}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One layer: its type, the blocks it is made of, and its attributes (``layer.window`` ...)."""

    layer_type: str
    blocks: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeTable:
    """Rotary frequencies after scaling, in transformers' float32 arithmetic.

    Source: transformers ``modeling_rope_utils``; the cosine of pair i at position p is
    ``cos(p * inv_freq[i]) * attention_factor``.
    """

    name: str
    rotary_dim: int
    """Leading elements of a head that are rotated; even, at most head_dim."""
    interleaved: bool
    """Pairs (2i, 2i+1) when true, (i, i + rotary_dim / 2) when false."""
    inv_freq: tuple[float, ...]
    """[rotary_dim / 2], each exactly representable in float32."""
    attention_factor: float
    long_inv_freq: tuple[float, ...] | None = None
    """longrope: used instead of ``inv_freq`` when max_model_len exceeds ``long_threshold``."""
    long_threshold: int | None = None
    parameters: tuple[tuple[str, object], ...] = field(default=(), compare=False)
    """What the table was computed from, under transformers' names; for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model with every size known.

    ``config`` holds the consumed and derived fields under Hugging Face's names.
    """

    name: str
    architecture: ArchitectureSpec
    config: Mapping[str, ConfigValue]
    dtype: DType
    """Dtype of activations and matrix weights; norm weights stay float32."""
    layers: tuple[LayerSpec, ...]
    rope: Mapping[str, RopeTable]
    chat: ChatDefaults
    huggingface_config: Mapping[str, ConfigValue]
    """What the sizes were read from, overrides applied: a config.json's content."""
    notes: tuple[str, ...]
    """One-line facts the user should know, e.g. that a sliding_window has no effect."""
    ignored_config_keys: tuple[str, ...]
    overrides: Mapping[str, str] = field(default_factory=dict)
    """``--set`` values by field, as the user wrote them."""
    location: SourceLocation

    def size(self, name: str) -> int:
        """Returns a config field that is a whole number; KeyError or TypeError is our fault."""
        value = self.config[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"config field {name} is {value!r}, not a whole number")
        return value
