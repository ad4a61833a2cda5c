"""A small architecture, and the ways tests read, change and fill it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pytest

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec.architecture import parse_architecture
from qwen3_codegen.spec.config_source import ConfigSource, freeze
from qwen3_codegen.spec.model import ArchitectureSpec, ModelSpec
from qwen3_codegen.spec.resolve import resolve_model
from qwen3_codegen.spec.rules import SharedFields
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.yaml_loader import parse_yaml

ARCHITECTURE = """\
architecture: tiny
description: One attention layer of any kind
huggingface: {model_type: tiny, class: TinyForCausalLM}
config:
  consumed:
    vocab_size: {type: int, min: 1}
    hidden_size: {type: int, min: 1}
    num_hidden_layers: {type: int, min: 1}
    num_attention_heads: {type: int, min: 1}
    num_key_value_heads: {type: int, min: 1, default: num_attention_heads}
    head_dim: {type: int, min: 1, default: "divide(hidden_size, num_attention_heads)"}
    max_position_embeddings: {type: int, min: 1}
    rms_norm_eps: {type: float, above: 0}
    sliding_window: {type: int, min: 1, nullable: true, default: none}
    layer_types: {type: "[str]", per_layer: true, default: "'full'"}
  must_equal: {hidden_act: silu}
rope:
  rope: {head_dim: head_dim}
layer_types:
  full: {}
  sliding: {window: sliding_window}
layer_type: layer_types[layer]
layer_attributes: {window: none, rope: rope}
prologue:
  - h = embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])
layer:
  - x = rms_norm(h, weight=norm)
  - q = linear(x, weight=attn.q, out=[num_attention_heads, head_dim])
  - k = linear(x, weight=attn.k, out=[num_key_value_heads, head_dim])
  - v = linear(x, weight=attn.v, out=[num_key_value_heads, head_dim])
  - q, k = rope(q, k, table=layer.rope)
  - a = attention(q, k, v, scale=1 / sqrt(head_dim), window=layer.window)
  - h = h + linear(a, weight=attn.o, out=hidden_size)
epilogue:
  - logits = linear(h, weight=head, out=vocab_size)
"""

CONFIG: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.01,
    "torch_dtype": "float32",
}


@lru_cache(maxsize=64)
def architecture(*replacements: tuple[str, str], text: str = ARCHITECTURE) -> ArchitectureSpec:
    """Reads the small architecture with some of its text replaced."""
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new, 1)
    shared = SharedFields(inert=frozenset({"bos_token_id"}), refused={"quantization_config": "No."})
    return parse_architecture(parse_yaml(text, "tiny.yaml"), shared)


def model(
    config: Mapping[str, Any] = CONFIG,
    *replacements: tuple[str, str],
    drop: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    **options: Any,
) -> ModelSpec:
    """Resolves the small architecture with a config of one field a line, from line 1 on."""
    values = {key: value for key, value in config.items() if key not in drop}
    values |= changes or {}
    lines = {key: number for number, key in enumerate(values, start=1)}
    frozen = freeze(values)
    assert isinstance(frozen, Mapping)
    source = ConfigSource(values=frozen, path="config.json", line=1, lines=lines)
    return resolve_model(
        architecture(*replacements),
        source,
        name=options.pop("name", "tiny"),
        location=SourceLocation("config.json", 1),
        **options,
    )


def error_of(function: Any, *args: Any, **kwargs: Any) -> str:
    """Returns the whole text of the SpecError a call raises."""
    with pytest.raises(SpecError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def line_of(text: str, needle: str) -> int:
    """Returns the line, from 1, that holds ``needle``."""
    return next(n for n, line in enumerate(text.splitlines(), start=1) if needle in line)
