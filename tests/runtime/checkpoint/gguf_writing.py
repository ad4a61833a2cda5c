"""Writes GGUF files as llama.cpp's converters would, from Hugging Face tensors and configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Tensors = Mapping[str, np.ndarray[Any, Any]]
Fields = Mapping[str, object]


def add_field(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        raise TypeError(key)


def write_gguf(path: Path, architecture: str, fields: Fields, tensors: Tensors) -> Path:
    """Writes fields as given and tensors under the file's own names."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in fields.items():
        add_field(writer, key, value)
    for name, array in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def header_fields(architecture: str, config: Mapping[str, Any]) -> dict[str, object]:
    """The keys every converter writes."""
    keys = {
        "block_count": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "rope.freq_base": "rope_theta",
        "attention.key_length": "head_dim",
        "attention.value_length": "head_dim",
    }
    return {f"{architecture}.{key}": config[name] for key, name in keys.items() if name in config}


def converted(
    architecture: str, tensors: Tensors, num_heads: int, num_kv_heads: int, num_layers: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Renames and reorders tensors as conversion does.

    Names come from the gguf package's own map. llama, minicpm and granite have q and k rows
    interleaved per head; gemma3 has one added to every norm weight.
    """
    kind = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, num_layers)
    result = {}
    for name, array in tensors.items():
        if architecture in ("llama", "minicpm", "granite"):
            for module, heads in (("q_proj.", num_heads), ("k_proj.", num_kv_heads)):
                if module in name:
                    array = interleaved(array, heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            array = array + np.float32(1)
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        result[stored] = array
    return result


def interleaved(array: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """Rows of a head in the order 0, d/2, 1, d/2 + 1, ..."""
    head_dim = len(array) // num_heads
    order = [
        head * head_dim + half * (head_dim // 2) + pair
        for head in range(num_heads)
        for pair in range(head_dim // 2)
        for half in range(2)
    ]
    return array[order]
