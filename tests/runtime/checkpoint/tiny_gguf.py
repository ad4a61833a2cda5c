"""A tiny GGUF model of any architecture, for tests to vary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from qwen3_runtime.checkpoint import Checkpoint, open_checkpoint
from tests.runtime.checkpoint.gguf_writing import (
    Tensors,
    header_fields,
    write_gguf,
)

CONFIG: dict[str, Any] = {
    "vocab_size": 40, "num_hidden_layers": 2, "max_position_embeddings": 512, "hidden_size": 24,
    "intermediate_size": 20, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "head_dim": 8,
}  # fmt: skip
EXTRA_FIELDS: dict[str, dict[str, object]] = {
    "minicpm": {
        "minicpm.embedding_scale": 12.0,
        "minicpm.residual_scale": 1.4 / math.sqrt(2),
        "minicpm.logit_scale": 24 / 16,
    },
    "granite": {
        "granite.attention.scale": 0.015625,
        "granite.embedding_scale": 12.0,
        "granite.residual_scale": 0.22,
        "granite.logit_scale": 8.0,
    },
    "gemma3": {"gemma3.attention.sliding_window": 16, "gemma3.rope.freq_base_swa": 5000.0},
    "phi3": {"phi3.attention.sliding_window": 0, "phi3.rope.dimension_count": 8},
    "qwen3moe": {
        "qwen3moe.expert_count": 3,
        "qwen3moe.expert_used_count": 2,
        "qwen3moe.expert_feed_forward_length": 20,
    },
}


def write_model(
    folder: Path,
    architecture: str,
    *,
    tensors: Tensors | None = None,
    fields: dict[str, object] | None = None,
    without: str = "",
) -> Path:
    stored = {"token_embd.weight": np.zeros((40, 24), np.float32), **(tensors or {})}
    header = {**header_fields(architecture, CONFIG), **EXTRA_FIELDS.get(architecture, {})}
    header |= fields or {}
    header.pop(without, None)
    return write_gguf(folder / "model.gguf", architecture, header, stored)


def opened(folder: Path, architecture: str, **options: Any) -> Checkpoint:
    return open_checkpoint(write_model(folder, architecture, **options))
