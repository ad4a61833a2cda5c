"""The keys of every YAML mapping users write, as data.

The readers refuse what is not here and the reference page prints it, so neither can be behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "ARCHITECTURE",
    "CHAT",
    "CHECK",
    "CHECKPOINT",
    "CONDITIONAL",
    "CONFIG",
    "DEVICE",
    "FIELD",
    "HUGGINGFACE",
    "LAYER_TYPE",
    "MODEL",
    "NOTE",
    "ROPE_TABLE",
    "SHARED_FIELDS",
    "Key",
    "Schema",
]


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what stands under it, and what it means."""

    type: str
    doc: str
    required: bool = False


Schema: TypeAlias = Mapping[str, Key]

MODEL: Schema = {
    "name": Key("text", "The model's name: letters, digits, `.`, `_` and `-`.", True),
    "description": Key("text", "One line for `qwen3-codegen specs`."),
    "architecture": Key(
        "text",
        "A shipped architecture, or the path of a YAML file, relative to this one.",
        True,
    ),
    "config": Key("mapping", "Fields of Hugging Face's config.json under their own names.", True),
    "ignore_config_keys": Key(
        "list of texts", "Fields the architecture does not know and need not."
    ),
    "chat": Key("mapping", "How to talk to the model, see [chat](#chat)."),
}

CHAT: Schema = {
    "system_prompt": Key("text", "Used when a conversation brings none."),
    "tool_format": Key("text", "How the model writes tool calls."),
    "reasoning_format": Key("text", "How the model marks its reasoning."),
    "sampling": Key("mapping", "Defaults of sampling parameters."),
    "sampling_without_thinking": Key(
        "mapping", "Those that differ in conversations that have the model answer at once."
    ),
}

ARCHITECTURE: Schema = {
    "architecture": Key("text", "The architecture's name, for shipped ones the file's.", True),
    "description": Key("text", "One line.", True),
    "huggingface": Key("mapping", "See [huggingface](#huggingface).", True),
    "config": Key("mapping", "How fields of config.json are sorted, see [config](#config).", True),
    "rope": Key("mapping", "Rotary tables by name, see [rope](#rope)."),
    "layer_types": Key(
        "mapping",
        "Layer types by name, see [layer types](#layer-types); without it every layer is a "
        "`full_attention` of all blocks.",
    ),
    "layer_type": Key(
        "expression",
        "Name of a layer's type, over config fields and `layer`, the layer's index. Not needed "
        "with one layer type.",
    ),
    "layer_attributes": Key(
        "mapping of expressions",
        "Every attribute of a layer with its value where the layer type sets none. Layers with "
        "equal type and attributes are one kind.",
    ),
    "checkpoint": Key("mapping", "How checkpoints name tensors, see [checkpoint](#checkpoint)."),
    "chat": Key(
        "mapping", "See [chat](#chat); holds for checkpoints, and where a model spec is silent."
    ),
    "prologue": Key(
        "list of statements", "From `input_ids` to `h`, the hidden state before the layers.", True
    ),
    "layer": Key("list of statements", "The only block of every layer; from `h` to `h`."),
    "blocks": Key(
        "mapping of lists of statements", "Named blocks instead of `layer`; layer types list them."
    ),
    "epilogue": Key(
        "list of statements", "From `h`, the rows whose logits are asked for, to `logits`.", True
    ),
}

HUGGINGFACE: Schema = {
    "model_type": Key(
        "text or list of texts",
        "`model_type` of config.json; the first is written to new ones.",
        True,
    ),
    "class": Key("text", "The class of transformers that is the reference.", True),
}

CHECKPOINT: Schema = {
    "layer_prefix": Key(
        "text",
        "Goes before every weight path inside layers; `{layer}` is the layer's index. Without "
        "this section: `model.layers.{layer}.`",
        True,
    ),
    "ignore": Key("list of texts", "Shell patterns of tensors that may be left over."),
}

CONFIG: Schema = {
    "consumed": Key("mapping", "Fields that are read, see [fields](#fields)."),
    "must_equal": Key(
        "mapping", "Fields that may only have this value, or one of a list, where they are there."
    ),
    "inert": Key(
        "list of texts", "Fields without influence on the forward pass, beside the shared list."
    ),
    "derived": Key(
        "mapping of expressions",
        "New values, computed in order over consumed fields and `dtype`; may replace a field.",
    ),
    "checks": Key("list of mappings", "Conditions that must hold, see [checks](#checks)."),
    "notes": Key("list of mappings", "Lines for the user, see [notes](#notes)."),
}

FIELD: Schema = {
    "type": Key("text", "One of the [field types](#field-types).", True),
    "min": Key("number", "The smallest value."),
    "above": Key("number", "A bound that the value must exceed."),
    "choices": Key("list of texts", "The texts allowed."),
    "nullable": Key("true or false", "`null` is a value, and does not mean the default."),
    "aliases": Key("list of texts", "Other names of the field in config.json."),
    "per_layer": Key(
        "true or false",
        "A list with one entry per layer; the default is computed for each `layer`.",
    ),
    "default": Key(
        "expression", "Value when absent, over fields above; without it the field must be given."
    ),
}

CHECK: Schema = {
    "require": Key("expression", "What must be true of the consumed fields.", True),
    "message": Key("text", "What to say otherwise; `{field}` is a field's value.", True),
    "hint": Key("text", "What to do about it."),
}

NOTE: Schema = {
    "when": Key("expression", "When to say it, over the consumed fields.", True),
    "text": Key("text", "What to say; `{field}` is a field's value.", True),
}

ROPE_TABLE: Schema = {
    "head_dim": Key("expression", "Size of a head.", True),
    "default_theta": Key("number", "Base when config.json has none; 10000 without this."),
    "theta_field": Key("text", "The older field of the base; `rope_theta` without this."),
    "scaled": Key("true or false", "Whether `rope_scaling` applies; true without this."),
    "layer_type": Key("text", "The table's key in a `rope_parameters` nested by layer type."),
    "partial_rotary_factor": Key(
        "number", "Share of a head that is rotated by default; without it all of it, always."
    ),
    "interleaved": Key(
        "true or false", "Pairs are (2i, 2i + 1) instead of (i, i + half the rotated part)."
    ),
    "types": Key("list of texts", "Rope types allowed; all without this."),
    "aliases": Key("mapping", "Older names of rope types."),
    "original_max_position_embeddings": Key(
        "expression", "Overrides the rope parameter of this name."
    ),
}

LAYER_TYPE: Schema = {
    "blocks": Key("list of texts", "The blocks it is made of, in order; all without this."),
}

CONDITIONAL: Schema = {
    "when": Key("expression", "Over config fields and `layer.ATTRIBUTE`.", True),
    "then": Key("list of statements", "Carried out where it is true.", True),
    "else": Key("list of statements", "Carried out where it is false."),
}

DEVICE: Schema = {
    "device": Key("text", "The device's name.", True),
    "description": Key("text", "One line."),
    "extends": Key(
        "text",
        "A device, or a path relative to this file, whose keys but `aliases` apply unless given "
        "here.",
    ),
    "aliases": Key("list of texts", "Other names on the command line."),
    "infinicore": Key("text", "The device in InfiniCore's API table."),
    "lowering": Key("text", "How graphs are carried out there: portable, on the CPU also native."),
    "infinicore_release": Key("text", "API release used unless another is asked for."),
    "dtypes": Key("list of texts", "Engine dtypes, the default first."),
    "transpose_linear_weights": Key("true or false", "Matrices are kept as [in, out]."),
}

SHARED_FIELDS: Schema = {
    "inert": Key("list of texts", "Fields without influence on the forward pass.", True),
    "refused": Key("mapping of texts", "Fields that no engine can honour, and what to do."),
}
