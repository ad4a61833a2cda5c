"""A GGUF header as the config.json and generation_config.json it was converted from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from qwen3_runtime.checkpoint.gguf_architectures import GgufArchitecture
from qwen3_runtime.checkpoint.gguf_file import GgufTensor
from qwen3_runtime.checkpoint.gguf_header import GgufHeader, shortest_float
from qwen3_runtime.checkpoint.tensor import Array
from qwen3_runtime.errors import CheckpointError

__all__ = ["END_TOKEN_TEXTS", "config_from_header", "generation_config_from_header"]

END_TOKEN_TEXTS = frozenset(
    {
        "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>",
        "<end_of_turn>", "<|return|>", "</s>", "<|eot|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)  # fmt: skip
"""Control tokens that end a turn or a text; a header names at most three ids of its own."""
_CONTROL_TOKEN = 3
_MAX_LAYERS = 4096
"""Far above any model; lists with an entry for each layer are made of it."""
_LLAMA3_DEFAULTS = (1.0, 4.0, 8192)
"""low_freq_factor, high_freq_factor and original length of every published Llama 3.x."""


def config_from_header(header: GgufHeader, architecture: GgufArchitecture) -> dict[str, object]:
    """Returns a config.json's content.

    Raises:
        CheckpointError: A field the architecture needs is missing, of the wrong type, or says
            something Hugging Face's config cannot.
    """
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(
            "the file has no token embedding",
            where=header.path,
            hint="only whole language models are read, no vocabulary or adapter alone",
        )
    config: dict[str, object] = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": header.require("embedding_length", int),
        "intermediate_size": header.require("feed_forward_length", int),
        "num_hidden_layers": header.require("block_count", int, _MAX_LAYERS),
        "num_attention_heads": header.require("attention.head_count", int),
        "max_position_embeddings": header.require("context_length", int),
        "rms_norm_eps": header.require("attention.layer_norm_rms_epsilon", float),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **architecture.constants,
    }
    has_kv_heads = header.get("attention.head_count_kv", int) is not None
    config["num_key_value_heads"] = (
        header.require("attention.head_count_kv", int)
        if has_kv_heads
        else config["num_attention_heads"]
    )
    config |= _head_dims(header, config)
    config |= _biases(header)
    config |= _rope(header, config)
    if (specifics := _SPECIFICS.get(header.architecture)) is not None:
        config |= specifics(header, config)
    for name in ("bos", "eos"):
        if (token := header.token_id(name)) is not None:
            config[f"{name}_token_id"] = token
    config["dtype"] = _dtype(header.tensors)
    return config | header.leftovers()


def _head_dims(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    key_length = header.get("attention.key_length", int)
    head_dim = key_length or config["hidden_size"] // config["num_attention_heads"]
    if head_dim < 1:
        raise header.fault("attention.key_length", head_dim, "at least 1")
    if header.get("attention.value_length", int) not in (None, head_dim):
        raise header.fault("attention.value_length", "another size", f"key_length {head_dim}")
    fields: dict[str, object] = {} if key_length is None else {"head_dim": head_dim}
    rotary_dim = header.get("rope.dimension_count", int)
    if rotary_dim not in (None, head_dim):
        fields["partial_rotary_factor"] = rotary_dim / head_dim
    return fields


def _biases(header: GgufHeader) -> dict[str, object]:
    if header.architecture == "qwen2":
        return {}
    pairs = {"attention_bias": "attn_q", "mlp_bias": "ffn_up"}
    return {name: True for name, stem in pairs.items() if f"blk.0.{stem}.bias" in header.tensors}


def _dtype(tensors: Mapping[str, GgufTensor]) -> str:
    """The dtype that loses nothing: the matrices' own, or float32 for blocks."""
    types = {tensor.type for tensor in tensors.values() if len(tensor.shape) > 1}
    if types == {"f16"}:
        return "float16"
    return "bfloat16" if types == {"bf16"} else "float32"


# ---- rope -----------------------------------------------------------------------------------


def _rope(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    fields: dict[str, object] = {"rope_theta": header.get("rope.freq_base", float) or 10000.0}
    kind = header.get("rope.scaling.type", str)
    linear = header.get("rope.scale_linear", float)
    if kind == "longrope" or "rope_factors_long.weight" in header.tensors:
        fields |= _longrope(header, config)
    elif "rope_freqs.weight" in header.tensors:
        fields["rope_scaling"] = _llama3(header, config, fields["rope_theta"])
    elif kind == "yarn":
        fields["rope_scaling"] = _yarn(header)
    elif kind == "linear" or linear not in (None, 1.0):
        factor = header.get("rope.scaling.factor", float) or linear
        fields["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif kind not in (None, "none"):
        raise header.fault("rope.scaling.type", kind, "none, linear, yarn or longrope")
    return fields


def _yarn(header: GgufHeader) -> dict[str, object]:
    scaling = {
        "rope_type": "yarn",
        "factor": header.require("rope.scaling.factor", float),
        "original_max_position_embeddings": header.require(
            "rope.scaling.original_context_length", int
        ),
        "attention_factor": header.get("rope.scaling.yarn_attn_factor", float),
        "beta_fast": header.get("rope.scaling.yarn_beta_fast", float),
        "beta_slow": header.get("rope.scaling.yarn_beta_slow", float),
    }
    header.used.add("rope.scaling.finetuned")
    return {name: value for name, value in scaling.items() if value is not None}


def _longrope(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    factors = {}
    for length in ("short", "long"):
        tensor = header.tensors.get(f"rope_factors_{length}.weight")
        if tensor is None:
            raise header.fault("rope.scaling.type", f"no rope_factors_{length}", "both tensors")
        with np.errstate(all="ignore"):
            values = header.read_tensor(tensor).astype(np.float32).ravel()
        factors[f"{length}_factor"] = [shortest_float(value) for value in values]
    attention = header.get("rope.scaling.attn_factor", float)
    original = header.get("rope.scaling.original_context_length", int)
    scaling = {"rope_type": "longrope", **factors}
    if attention is not None:
        scaling["attention_factor"] = attention
    return {
        "rope_scaling": scaling,
        "original_max_position_embeddings": original or config["max_position_embeddings"],
    }


def _llama3(header: GgufHeader, config: Mapping[str, Any], rope_theta: Any) -> dict[str, object]:
    """Finds the parameters whose factors the converter stored in place of them."""
    low, high, original = _LLAMA3_DEFAULTS
    with np.errstate(all="ignore"):
        stored = header.read_tensor(header.tensors["rope_freqs.weight"]).astype(np.float64).ravel()
        factor = shortest_float(stored.max()) if stored.size else math.nan
        expected = _llama3_factors(factor, rope_theta, stored.size)
    if not np.allclose(stored, expected, rtol=1e-4, atol=0):
        raise CheckpointError(
            "the rope frequencies come from parameters that cannot be told from the file",
            where=header.path,
            got=f"rope_freqs.weight with a largest factor of {factor:g}",
            expected=f"low_freq_factor {low}, high_freq_factor {high}, original length {original}",
            hint="use the safetensors checkpoint, whose config.json states them",
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _llama3_factors(factor: float, rope_theta: float, count: int) -> Array:
    """Source: transformers' ``_compute_llama3_parameters``, as a divisor per frequency."""
    low, high, original = _LLAMA3_DEFAULTS
    wavelengths = 2 * math.pi * np.float64(rope_theta) ** (np.arange(count) / max(count, 1))
    smooth = (original / wavelengths - low) / (high - low)
    factors = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths < original / high, 1.0, factors)
    result: Array = np.where(wavelengths > original / low, factor, factors)
    return result


# ---- architectures --------------------------------------------------------------------------


def _granite(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    keys = {
        "attention_multiplier": "attention.scale",
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "logits_scaling": "logit_scale",
    }
    return {name: header.require(key, float) for name, key in keys.items()}


def _minicpm(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    """Undoes ``scale_depth / sqrt(layers)`` and ``hidden_size / dim_model_base``."""
    root = math.sqrt(config["num_hidden_layers"])
    residual = header.require("residual_scale", float)
    logit = header.require("logit_scale", float)
    base = round(config["hidden_size"] / logit) if logit > 0 else 0
    if base < 1 or np.float32(config["hidden_size"] / base) != np.float32(logit):
        raise header.fault("logit_scale", logit, "hidden_size / dim_model_base")
    return {
        "scale_emb": header.require("embedding_scale", float),
        "scale_depth": _shortest_with(residual * root, lambda x: x / root, residual),
        "dim_model_base": base,
    }


def _shortest_with(value: float, image: Callable[[float], float], stored: float) -> float:
    """The shortest decimal near ``value`` whose image is the float32 that was stored."""
    for digits in range(1, 17):
        candidate = float(f"{value:.{digits}g}")
        if np.float32(image(candidate)) == np.float32(stored):
            return candidate
    return value


def _gemma3(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    num_layers = config["num_hidden_layers"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    of_27b = num_layers == 62
    fields: dict[str, object] = {
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if of_27b else head_dim
        ),
        "rope_local_base_freq": header.get("rope.freq_base_swa", float) or 10000.0,
    }
    if (cap := header.get("final_logit_softcapping", float)) is not None:
        fields["final_logit_softcapping"] = cap
    window = header.get("attention.sliding_window", int)
    pattern = header.get("attention.sliding_window_pattern", int) or 6
    sliding = [window is not None and (layer + 1) % pattern != 0 for layer in range(num_layers)]
    return fields | _layer_types(sliding, window)


def _olmo2(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    """OLMo 3 shares OLMo 2's GGUF architecture and differs by its window."""
    window = header.get("attention.sliding_window", int)
    if window is None:
        return {}
    sliding = header.require("attention.sliding_window_pattern", list)
    if len(sliding) != config["num_hidden_layers"]:
        raise header.fault("attention.sliding_window_pattern", len(sliding), "one per layer")
    return {
        "model_type": "olmo3",
        "architectures": ["Olmo3ForCausalLM"],
        **_layer_types(sliding, window),
    }


def _layer_types(sliding: Sequence[bool], window: int | None) -> dict[str, object]:
    types = ["sliding_attention" if is_sliding else "full_attention" for is_sliding in sliding]
    return {"layer_types": types, "sliding_window": window}


def _phi3(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    return {"sliding_window": header.get("attention.sliding_window", int) or None}


def _qwen3moe(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, object]:
    return {
        "num_experts": header.require("expert_count", int),
        "num_experts_per_tok": header.require("expert_used_count", int),
        "moe_intermediate_size": header.require("expert_feed_forward_length", int),
    }


_SPECIFICS: Mapping[str, Callable[[GgufHeader, Mapping[str, Any]], dict[str, object]]] = {
    "granite": _granite,
    "minicpm": _minicpm,
    "gemma3": _gemma3,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "qwen3moe": _qwen3moe,
}


# ---- generation_config ----------------------------------------------------------------------


def generation_config_from_header(header: GgufHeader) -> dict[str, object]:
    """Returns a generation_config.json's content: end tokens and sampling defaults."""
    config: dict[str, object] = {}
    if (bos := header.token_id("bos")) is not None:
        config["bos_token_id"] = bos
    named = [header.token_id(name) for name in ("eos", "eot", "eom")]
    ends = [token for token in named if token is not None] + _end_tokens_by_text(header.fields)
    if ends:
        config["eos_token_id"] = list(dict.fromkeys(ends))
    sampling = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
    for name, key in sampling.items():
        value = header.fields.get(f"general.sampling.{key}")
        if isinstance(value, float | int):
            config[name] = shortest_float(value) if isinstance(value, float) else value
    return config


def _end_tokens_by_text(fields: Mapping[str, object]) -> list[int]:
    tokens, types = fields.get("tokenizer.ggml.tokens"), fields.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not isinstance(types, list):
        return []
    return [
        index
        for index, (text, kind) in enumerate(zip(tokens, types, strict=False))
        if kind == _CONTROL_TOKEN and text in END_TOKEN_TEXTS
    ]
