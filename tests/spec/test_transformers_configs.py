"""config.json of either generation, read by us and by transformers: the same model."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.model import ModelSpec
from tests.spec.descriptions import error_of

BASE = {
    "vocab_size": 331,
    "hidden_size": 96,
    "intermediate_size": 75,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 0.03,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LINEAR = {"rope_type": "linear", "factor": 2.5}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.1 * pair for pair in range(6)],
    "long_factor": [2.0 + 0.1 * pair for pair in range(6)],
}
KINDS = ["full_attention", "sliding_attention"]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 28}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_theta": 500000.0, "attention_bias": True, "mlp_bias": True}),
    "llama-default-theta": ("llama", {}),
    "llama-llama3": ("llama", {"rope_theta": 173.0, "rope_scaling": LLAMA3}),
    "llama-head-dim": ("llama", {"head_dim": 64, "rope_scaling": LINEAR}),
    "mistral": ("mistral", {"sliding_window": 5}),
    "mistral-default-window": ("mistral", {}),
    "mistral-no-window": ("mistral", {"sliding_window": None}),
    "qwen2-off": ("qwen2", {"sliding_window": 5, "use_sliding_window": False}),
    "qwen2-max-window-layers": (
        "qwen2",
        {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 4},
    ),
    "qwen3": ("qwen3", {"head_dim": 64, "rope_theta": 1000000}),
    "qwen3-layer-types": (
        "qwen3",
        {"sliding_window": 5, "use_sliding_window": True, "layer_types": KINDS * 3},
    ),
    "qwen3-yarn": ("qwen3", {"head_dim": 32, "rope_theta": 1e6, "rope_scaling": YARN}),
    "granite": ("granite", {"embedding_multiplier": 3.0, "logits_scaling": 2}),
    "olmo2": ("olmo2", {"rope_theta": 500000}),
    "gemma3": ("gemma3_text", {"sliding_window": 5, "sliding_window_pattern": 3}),
    "gemma3-bases": (
        "gemma3_text",
        {"rope_theta": 5000.0, "rope_local_base_freq": 77.0, "rope_scaling": LINEAR},
    ),
    "gemma3-layer-types": ("gemma3_text", {"layer_types": KINDS * 3, "head_dim": 64}),
    "phi3": ("phi3", {"pad_token_id": 0, "sliding_window": 9}),
    "phi3-longrope": (
        "phi3",
        {
            "pad_token_id": 0,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 128,
            "rope_scaling": LONGROPE,
        },
    ),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "mlp_only_layers": [1], "decoder_sparse_step": 2}),
    "qwen3-moe-window": ("qwen3_moe", {**EXPERTS, "use_sliding_window": True, "sliding_window": 7}),
    "qwen3-next": ("qwen3_next", {**EXPERTS, "shared_expert_intermediate_size": 20}),
    "qwen3-next-interval": (
        "qwen3_next",
        {**EXPERTS, "shared_expert_intermediate_size": 20, "full_attention_interval": 3},
    ),
}


def load(fields: Mapping[str, Any], directory: Path) -> tuple[ModelSpec, Any]:
    """Reads one config.json twice: by us, and by transformers."""
    from transformers import AutoConfig  # slow to import, and others need only the configs

    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(fields, indent=2))
    return load_model(str(directory)), AutoConfig.from_pretrained(directory)


def published(case: str) -> dict[str, Any]:
    model_type, fields = CASES[case]
    return {"model_type": model_type, "torch_dtype": "bfloat16", **BASE, **fields}


@pytest.mark.parametrize("case", CASES)
def test_a_published_config_is_read_like_transformers(case: str, tmp_path: Path) -> None:
    spec, config = load(published(case), tmp_path)
    assert_same_model(spec, config)


@pytest.mark.parametrize("case", CASES)
def test_what_transformers_5_writes_is_the_same_model(case: str, tmp_path: Path) -> None:
    old, config = load(published(case), tmp_path / "old")
    config.save_pretrained(tmp_path / "new")
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert "rope_parameters" in written
    assert "rope_scaling" not in written
    new, config = load(written, tmp_path / "new")
    assert_same_model(new, config)
    assert (new.layers, new.rope) == (old.layers, old.rope)
    patterns = ("full_attention_interval", "sliding_window_pattern")  # layer_types replace them
    for name in set(old.config) - set(patterns):
        assert new.config[name] == old.config[name], name


def assert_same_model(spec: ModelSpec, config: Any) -> None:
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads"):
        assert spec.config[name] == getattr(config, name), name
    assert spec.config["tie_word_embeddings"] == config.tie_word_embeddings
    assert spec.dtype.value == str(config.dtype).removeprefix("torch.")
    assert [layer.attributes.get("window") for layer in spec.layers] == windows(config)
    if spec.architecture.name.startswith("qwen3_"):
        assert [is_sparse(spec, index) for index in range(6)] == sparse_layers(config)
    for name, table in spec.rope.items():
        layer_type = spec.architecture.rope[name].layer_type
        inv_freq, attention_factor = rotary(config, layer_type)
        np.testing.assert_array_max_ulp(
            np.array(table.inv_freq, dtype=np.float32), inv_freq, maxulp=2
        )
        assert table.attention_factor == attention_factor


def windows(config: Any) -> list[int | None]:
    """The window of each layer as transformers' masks have it."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * 6
    return [window if kind == "sliding_attention" else None for kind in kinds]


def sparse_layers(config: Any) -> list[bool]:
    return [
        index not in config.mlp_only_layers and (index + 1) % config.decoder_sparse_step == 0
        for index in range(config.num_hidden_layers)
    ]


def is_sparse(spec: ModelSpec, index: int) -> bool:
    layer = spec.layers[index]
    return bool(layer.attributes.get("sparse", layer.layer_type == "sparse"))


def rotary(config: Any, layer_type: str | None) -> tuple[np.ndarray, float]:
    """The frequencies of the model's own rotary module."""
    package = "gemma3" if config.model_type == "gemma3_text" else config.model_type
    modeling = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
    (name,) = (name for name in vars(modeling) if name.endswith("RotaryEmbedding"))
    module = getattr(modeling, name)(config)
    if layer_type is None:
        return module.inv_freq.numpy(), module.attention_scaling
    inv_freq = getattr(module, f"{layer_type}_inv_freq").numpy()
    return inv_freq, getattr(module, f"{layer_type}_attention_scaling")


def test_layer_types_of_gemma_choose_their_table(tmp_path: Path) -> None:
    spec, config = load(published("gemma3"), tmp_path)
    tables = {"full_attention": "global_rope", "sliding_attention": "local_rope"}
    kinds = [layer.attributes["rope"] for layer in spec.layers]
    assert kinds == [tables[kind] for kind in config.layer_types]


def test_kinds_of_qwen3_next(tmp_path: Path) -> None:
    spec, config = load(published("qwen3-next-interval"), tmp_path)
    assert [layer.layer_type for layer in spec.layers] == config.layer_types
    assert spec.rope["rope"].rotary_dim == 64
    assert spec.layers[0].blocks == ("delta_net", "mlp")
    assert spec.layers[2].blocks == ("attention", "mlp")


def test_rope_parameters_by_layer_type_need_layer_types(tmp_path: Path) -> None:
    nested = {kind: {"rope_type": "default", "rope_theta": 10.0} for kind in KINDS}
    fields = {**published("qwen3"), "rope_parameters": nested}
    del fields["rope_theta"]
    message = error_of(load, fields, tmp_path)
    assert "rope type 'default' has no parameter 'full_attention'" in message
    fields = {**published("gemma3"), "rope_parameters": {"rope_theta": 10.0}}
    message = error_of(load, fields, tmp_path)
    assert "'rope_theta' in 'rope_parameters' is no layer type" in message
    assert "expected: a mapping for each of full_attention, sliding_attention" in message


# Fields of configs as published, sizes aside: nothing in them may be unknown.
QWEN25 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 21,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
}
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "is_llama_config": True,
    "mlp_bias": False,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
}
GEMMA3 = {
    "attn_logit_softcapping": None,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
}
PHI4 = {
    "attention_bias": False,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
    "embd_pdrop": 0.0,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "original_max_position_embeddings": 128,
    "pad_token_id": 0,
    "partial_rotary_factor": 0.75,
    "resid_pdrop": 0.0,
    "rope_scaling": {**LONGROPE, "type": "longrope"},
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
}
MINICPM = {
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"},
    "hidden_act": "silu",
    "rope_scaling": None,
    "scale_emb": 12,
    "dim_model_base": 256,
    "scale_depth": 1.4,
}


QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "intermediate_size": 5120,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "mlp_only_layers": [],
    "moe_intermediate_size": 512,
    "norm_topk_prob": True,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "output_router_logits": False,
    "partial_rotary_factor": 0.25,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 512,
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0.dev0",
    "use_cache": True,
    "use_sliding_window": False,
}


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("qwen2", QWEN25),
        ("qwen3_next", QWEN3_NEXT),
        ("llama", SMOLLM2),
        ("gemma3_text", GEMMA3),
        ("phi3", PHI4),
        ("minicpm", MINICPM),
        ("fm9g", MINICPM),
        ("fm9g7b", MINICPM),
    ],
)
def test_published_fields_are_all_known(
    model_type: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": model_type, "torch_dtype": "bfloat16", **BASE, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(str(tmp_path)).ignored_config_keys == ()


def test_qwen3_next_has_no_windows(tmp_path: Path) -> None:
    fields = {"model_type": "qwen3_next", **BASE, **QWEN3_NEXT, "use_sliding_window": True}
    assert "config field 'use_sliding_window' has a value this architecture does not have" in (
        error_of(load, fields, tmp_path)
    )


def test_every_field_of_transformers_qwen3_next_is_known(tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model("qwen3_next", **BASE).save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).ignored_config_keys == ()


def test_jiuge_scales_come_from_the_config(tmp_path: Path) -> None:
    config = {"model_type": "minicpm", "torch_dtype": "float32", **BASE, **MINICPM}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = load_model(str(tmp_path))
    assert spec.config["residual_scale"] == pytest.approx(1.4 / 6**0.5, rel=1e-15)
    assert spec.config["head_divisor"] == 96 / 256
    del config["scale_depth"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = error_of(load_model, str(tmp_path))
    assert "config field 'scale_depth' is missing" in message
