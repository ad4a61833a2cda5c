"""What an architecture file says about config.json and layers, still without any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Expression
from qwen3_codegen.spec.yaml_loader import Scalar

__all__ = [
    "Check",
    "ConfigField",
    "ConfigSchema",
    "LayerTypeRule",
    "LocatedExpression",
    "Note",
    "RopeRule",
    "SharedFields",
]


@dataclass(frozen=True, slots=True)
class LocatedExpression:
    """An expression and the line it stands on."""

    expression: Expression
    location: SourceLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigField:
    """A field of config.json that the architecture reads."""

    name: str
    type: str
    """``int``, ``float``, ``bool``, ``str``, or one of these in brackets for a list."""
    minimum: float | None = None
    """Smallest value (of each element); given by ``min``, exclusive when given by ``above``."""
    exclusive: bool = False
    choices: tuple[str, ...] = ()
    """The values a text may have; empty for any."""
    nullable: bool = False
    """``null`` is a value of its own; otherwise it means the default."""
    aliases: tuple[str, ...] = ()
    """Other names of the field in config.json."""
    per_layer: bool = False
    """A list with one element per layer; the default is evaluated for each ``layer``."""
    default: LocatedExpression | None = None
    """Value when absent, over earlier fields; None when the field must be given."""
    location: SourceLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A condition over the consumed fields that must hold."""

    require: LocatedExpression
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A line for the user where a condition holds; ``{field}`` in the text is its value."""

    when: LocatedExpression
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFields:
    """What holds for fields of config.json in every architecture."""

    inert: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    """Field to what the user should do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSchema:
    """How an architecture sorts the fields of config.json."""

    fields: Mapping[str, ConfigField]
    must_equal: Mapping[str, tuple[Scalar, ...]]
    """Field to the values it may have when it is there."""
    inert: frozenset[str]
    """Fields without influence on the forward pass; includes the shared list."""
    derived: Mapping[str, LocatedExpression]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Fields no engine can honour, with what the user should do; only ``null`` is let through."""
    checks: tuple[Check, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeRule:
    """Where a rope table takes its parameters from."""

    name: str
    head_dim: LocatedExpression
    default_theta: float = 10000.0
    """transformers' value when config.json has none."""
    theta_field: str = "rope_theta"
    """Older field that holds the base."""
    scaling_field: str | None = "rope_scaling"
    """Older field that holds the scaling parameters; None when this table is never scaled."""
    layer_type: str | None = None
    """Key of a ``rope_parameters`` that is nested by layer type."""
    partial_rotary_factor: float | None = None
    """Default share of the head that is rotated; None when the model always rotates all of it."""
    interleaved: bool = False
    types: tuple[str, ...] | None = None
    """Rope types the architecture allows; None for all that exist."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Older names of rope types."""
    original_max_position_embeddings: LocatedExpression | None = None
    """Overrides the rope parameter of this name, as transformers does for a top-level field."""
    location: SourceLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTypeRule:
    """A layer type: its blocks in order, and the attributes it sets."""

    name: str
    blocks: tuple[str, ...]
    attributes: Mapping[str, LocatedExpression]
    location: SourceLocation
