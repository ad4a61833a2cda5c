"""GGUF checkpoints give back the Hugging Face tensors and config they were converted from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.checkpoint.gguf_architectures import ARCHITECTURES
from qwen3_runtime.checkpoint.gguf_file import GgufFile
from qwen3_runtime.errors import CheckpointError
from tests.runtime.checkpoint.gguf_writing import (
    Tensors,
    add_field,
    converted,
)
from tests.runtime.checkpoint.tiny_gguf import CONFIG, opened

# ---- tensors --------------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_gives_back_transformers_tensors(
    tmp_path: Path, architecture: str
) -> None:
    """A real transformers model of the class, converted as llama.cpp converts, comes back whole."""
    tensors = transformers_tensors(architecture)
    stored = converted(architecture, stacked_experts(tensors), 4, 2, 2)
    checkpoint = opened(tmp_path, architecture, tensors=stored)
    assert set(checkpoint.tensors) == set(tensors)
    for name, expected in tensors.items():
        assert checkpoint.tensors[name].shape == expected.shape
        assert checkpoint.tensors[name].num_bytes == expected.nbytes
        array = checkpoint.read(name)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            np.testing.assert_allclose(array, expected, atol=2e-7)
        else:
            np.testing.assert_array_equal(array, expected)


def transformers_tensors(architecture: str) -> dict[str, np.ndarray[Any, Any]]:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    row = ARCHITECTURES[architecture]
    fields = {**CONFIG, "tie_word_embeddings": False, "pad_token_id": 0}
    if architecture == "qwen3moe":
        fields |= {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    if architecture in ("llama", "granite", "qwen3"):
        fields["attention_bias"] = True
    if architecture == "phi3":
        fields["original_max_position_embeddings"] = 512
    # MiniCPM has Llama's modules and no class in transformers.
    model_type = "llama" if architecture == "minicpm" else row.model_type
    config = transformers.AutoConfig.for_model(model_type, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return separate_experts(state)


def separate_experts(state: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """Names each expert's matrices as published checkpoints do."""
    tensors = {}
    for name, array in state.items():
        stem = name.removesuffix(".gate_up_proj").removesuffix(".down_proj")
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(array):
                gate, up = np.split(both, 2)
                tensors[f"{stem}.{expert}.gate_proj.weight"] = gate
                tensors[f"{stem}.{expert}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(array):
                tensors[f"{stem}.{expert}.down_proj.weight"] = down
        else:
            tensors[name] = array
    return tensors


def stacked_experts(tensors: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """Joins the experts of a layer, as conversion does before it renames."""
    result, stacks = {}, dict[str, list[np.ndarray[Any, Any]]]()
    for name, array in tensors.items():
        head, found, tail = name.partition(".experts.")
        if found:
            stacks.setdefault(f"{head}.experts.{tail.split('.', 1)[1]}", []).append(array)
        else:
            result[name] = array
    return result | {name: np.stack(arrays) for name, arrays in stacks.items()}


def first_layers(source: Path, path: Path, num_layers: int) -> Path:
    """Copies a GGUF file's header without its vocabulary, and the blocks of its first layers."""
    file, stored = GgufFile(source), np.memmap(source, np.uint8, "r")
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in file.fields.items():
        if not key.startswith(("general.", "tokenizer.")):
            add_field(writer, key, num_layers if key == "llama.block_count" else value)
    for name, tensor in file.tensors.items():
        if not name.startswith("blk.") or int(name.split(".")[1]) < num_layers:
            raw = stored[tensor.start : tensor.start + tensor.num_bytes]
            rows = raw.reshape(*tensor.shape[:-1], -1)
            writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType[tensor.type.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.reference
def test_smollm2_tensors_and_config_equal_transformers_own_reading(
    smollm2_gguf: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    reading = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    path = first_layers(smollm2_gguf, tmp_path / "small.gguf", 3)
    config = transformers.LlamaConfig(num_hidden_layers=3, hidden_size=576, num_attention_heads=9)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    theirs = reading.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    with open_checkpoint(path) as checkpoint, open_checkpoint(smollm2_gguf) as whole:
        assert set(checkpoint.tensors) == set(theirs["tensors"])
        for name, tensor in theirs["tensors"].items():
            np.testing.assert_array_equal(whole.read(name), tensor.numpy())
        shared = theirs["config"].keys() & checkpoint.config.keys()
        assert len(shared) >= 10
        eps = theirs["config"]["rms_norm_eps"]
        assert checkpoint.config["rms_norm_eps"] == pytest.approx(eps, rel=1e-7)
        for key in shared - {"rms_norm_eps"}:
            assert checkpoint.config[key] == theirs["config"][key]


def test_smollm2_header_reads_as_its_published_config(smollm2_gguf: Path) -> None:
    checkpoint = open_checkpoint(smollm2_gguf.parent)
    assert dict(checkpoint.config) == {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 49152,
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05, "rope_theta": 100000.0, "tie_word_embeddings": True,
        "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32",
    }  # fmt: skip
    assert checkpoint.config_path == smollm2_gguf
    assert checkpoint.generation_config == {"bos_token_id": 1, "eos_token_id": [2, 0]}
    parameters = sum(math.prod(info.shape) for info in checkpoint.tensors.values())
    assert parameters == 134_515_008
    assert checkpoint.tensors["model.layers.7.self_attn.k_proj.weight"].dtype == "q4_1"


def test_tensor_the_architecture_does_not_explain_keeps_its_name(tmp_path: Path) -> None:
    extra = {
        "blk.0.attn_q_norm.weight": np.ones(8, np.float32),
        "blk.01.attn_q.weight": np.ones((32, 24), np.float32),
        "v.patch_embd.weight": np.ones(3, np.float32),
    }
    checkpoint = opened(tmp_path, "llama", tensors=extra)
    assert set(checkpoint.tensors) == {"model.embed_tokens.weight", *extra}
    np.testing.assert_array_equal(checkpoint.read("v.patch_embd.weight"), np.ones(3))


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    extra = {"model.embed_tokens.weight": np.ones(3, np.float32)}
    with pytest.raises(CheckpointError, match="two tensors of the file are both"):
        opened(tmp_path, "llama", tensors=extra)


def test_rows_that_do_not_split_into_heads_are_refused(tmp_path: Path) -> None:
    extra = {"blk.0.attn_q.weight": np.ones((30, 24), np.float32)}
    with pytest.raises(CheckpointError, match="does not split into heads"):
        opened(tmp_path, "llama", tensors=extra)


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such tensor"):
        opened(tmp_path, "llama").read("lm_head.weight")


# ---- config ---------------------------------------------------------------------------------


def test_common_fields_come_back(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "qwen3", fields={"tokenizer.ggml.eos_token_id": 9})
    assert {key: checkpoint.config.get(key) for key in CONFIG} == CONFIG
    assert checkpoint.config["model_type"] == "qwen3"
    assert checkpoint.config["architectures"] == ["Qwen3ForCausalLM"]
    assert checkpoint.config["tie_word_embeddings"] is True
    assert checkpoint.config["eos_token_id"] == 9


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 3e-2, 0.123])
def test_float32_numbers_come_back_as_they_were_written(tmp_path: Path, eps: float) -> None:
    key = "qwen3.attention.layer_norm_rms_epsilon"
    assert opened(tmp_path, "qwen3", fields={key: eps}).config["rms_norm_eps"] == eps


def test_untied_head_and_biases_are_seen(tmp_path: Path) -> None:
    zeros = np.zeros
    extra = {
        "output.weight": zeros((40, 24), np.float32),
        "blk.0.attn_q.bias": zeros(32, np.float32),
        "blk.0.ffn_up.bias": zeros(20, np.float32),
    }
    config = opened(tmp_path, "llama", tensors=extra).config
    assert (config["tie_word_embeddings"], config["attention_bias"], config["mlp_bias"]) == (
        False,
        True,
        True,
    )


@pytest.mark.parametrize(("dtype", "expected"), [(np.float32, "float32"), (np.float16, "float16")])
def test_dtype_is_the_matrices(tmp_path: Path, dtype: type[Any], expected: str) -> None:
    tensors = {
        "token_embd.weight": np.zeros((40, 24), dtype),
        "output_norm.weight": np.zeros(24, np.float32),
    }
    assert opened(tmp_path, "qwen3", tensors=tensors).config["dtype"] == expected


def test_minicpm_scales_are_undone_to_their_published_form(tmp_path: Path) -> None:
    config = opened(tmp_path, "minicpm").config
    assert config["scale_emb"] == 12.0
    assert config["scale_depth"] == 1.4
    assert config["dim_model_base"] == 16


@pytest.mark.parametrize(("depth", "layers"), [(1.4, 40), (1.4, 52), (1.0, 24), (0.87, 7)])
def test_minicpm_depth_scale_is_exact_for_any_layer_count(
    tmp_path: Path, depth: float, layers: int
) -> None:
    fields: dict[str, object] = {
        "minicpm.block_count": layers,
        "minicpm.residual_scale": depth / math.sqrt(layers),
    }
    assert opened(tmp_path, "minicpm", fields=fields).config["scale_depth"] == depth


def test_granite_multipliers_come_back(tmp_path: Path) -> None:
    config = opened(tmp_path, "granite").config
    names = ("attention", "embedding", "residual")
    assert [config[f"{name}_multiplier"] for name in names] == [0.015625, 12.0, 0.22]
    assert config["logits_scaling"] == 8.0


def test_gemma3_has_its_windows_and_local_rope(tmp_path: Path) -> None:
    config = opened(tmp_path, "gemma3", fields={"gemma3.block_count": 7}).config
    kinds = ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
    assert config["layer_types"] == kinds
    assert config["sliding_window"] == 16
    assert config["rope_local_base_freq"] == 5000.0
    assert config["query_pre_attn_scalar"] == 8
    assert config["hidden_activation"] == "gelu_pytorch_tanh"


def test_olmo3_is_told_from_olmo2_by_its_window(tmp_path: Path) -> None:
    assert opened(tmp_path, "olmo2").config["model_type"] == "olmo2"
    fields: dict[str, object] = {
        "olmo2.attention.sliding_window": 64,
        "olmo2.attention.sliding_window_pattern": [True, False],
    }
    config = opened(tmp_path, "olmo2", fields=fields).config
    assert (config["model_type"], config["sliding_window"]) == ("olmo3", 64)
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    fields["olmo2.attention.sliding_window_pattern"] = [True]
    with pytest.raises(CheckpointError, match="one per layer"):
        opened(tmp_path, "olmo2", fields=fields)


def test_phi3_window_of_zero_means_none_and_rotary_part_is_kept(tmp_path: Path) -> None:
    assert opened(tmp_path, "phi3").config["sliding_window"] is None
    fields: dict[str, object] = {
        "phi3.attention.sliding_window": 2047,
        "phi3.rope.dimension_count": 6,
    }
    config = opened(tmp_path, "phi3", fields=fields).config
    assert (config["sliding_window"], config["partial_rotary_factor"]) == (2047, 0.75)


def test_qwen3moe_sizes_come_back(tmp_path: Path) -> None:
    config = opened(tmp_path, "qwen3moe").config
    assert (config["num_experts"], config["num_experts_per_tok"]) == (3, 2)
    assert (config["moe_intermediate_size"], config["norm_topk_prob"]) == (20, True)


def test_key_the_architecture_does_not_explain_stays_visible(tmp_path: Path) -> None:
    config = opened(tmp_path, "qwen3", fields={"qwen3.attention.scale": 0.5}).config
    assert config["qwen3.attention.scale"] == 0.5
    plain = opened(tmp_path, "qwen3").config
    assert not [key for key in plain if "." in key]


# ---- rope -----------------------------------------------------------------------------------


def test_linear_and_yarn_scaling_come_back(tmp_path: Path) -> None:
    linear: dict[str, object] = {
        "qwen3.rope.scaling.type": "linear", "qwen3.rope.scaling.factor": 4.0
    }  # fmt: skip
    config = opened(tmp_path, "qwen3", fields=linear).config
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    yarn: dict[str, object] = {
        "qwen3.rope.scaling.type": "yarn",
        "qwen3.rope.scaling.factor": 2.5,
        "qwen3.rope.scaling.original_context_length": 32768,
        "qwen3.rope.scaling.yarn_beta_fast": 33.3,
    }
    config = opened(tmp_path, "qwen3", fields=yarn).config
    assert config["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 2.5,
        "original_max_position_embeddings": 32768,
        "beta_fast": 33.3,
    }


def llama3_factors(
    theta: float, dim: int, factor: float, low: float, high: float, original: int
) -> np.ndarray[Any, Any]:
    """The converter's loop, one frequency at a time."""
    factors = []
    for index in range(0, dim, 2):
        wavelength = 2 * math.pi * theta ** (index / dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_found_from_its_factors(tmp_path: Path, factor: float) -> None:
    factors = llama3_factors(5e5, 64, factor, 1.0, 4.0, 8192)
    assert 1 < factors[16] < factor
    fields: dict[str, object] = {
        "llama.rope.freq_base": 5e5,
        "llama.attention.key_length": 64,
        "llama.attention.value_length": 64,
    }
    checkpoint = opened(tmp_path, "llama", fields=fields, tensors={"rope_freqs.weight": factors})
    assert checkpoint.config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" not in checkpoint.tensors


@pytest.mark.parametrize("odd", [(8.0, 2.0, 4.0, 8192), (8.0, 1.0, 4.0, 4096)])
def test_llama3_factors_of_other_parameters_are_not_guessed(
    tmp_path: Path, odd: tuple[float, float, float, int]
) -> None:
    factors = llama3_factors(5e5, 64, *odd)
    with pytest.raises(CheckpointError, match="cannot be told from the file"):
        opened(
            tmp_path,
            "llama",
            fields={"llama.rope.freq_base": 5e5},
            tensors={"rope_freqs.weight": factors},
        )


def test_longrope_factors_come_back_from_their_tensors(tmp_path: Path) -> None:
    short, long = [1.0, 1.05, 1.1, 1.3], [1.0, 2.2, 10.5, 63.75]
    tensors = {
        "rope_factors_short.weight": np.array(short, np.float32),
        "rope_factors_long.weight": np.array(long, np.float32),
    }
    fields: dict[str, object] = {
        "phi3.rope.scaling.original_context_length": 128,
        "phi3.rope.scaling.attn_factor": 1.19,
    }
    config = opened(tmp_path, "phi3", fields=fields, tensors=tensors).config
    assert config["rope_scaling"] == {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": 1.19,
    }
    assert config["original_max_position_embeddings"] == 128
    del tensors["rope_factors_short.weight"]
    with pytest.raises(CheckpointError, match="no rope_factors_short"):
        opened(tmp_path, "phi3", fields=fields, tensors=tensors)


# ---- generation_config ----------------------------------------------------------------------


def test_end_tokens_are_all_found_and_sampling_defaults_read(tmp_path: Path) -> None:
    texts = ["a", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>", "b"]
    fields: dict[str, object] = {
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [1, 3, 3, 3, 1, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 5,
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.95,
    }
    assert opened(tmp_path, "qwen3", fields=fields).generation_config == {
        "bos_token_id": 1,
        "eos_token_id": [2, 5, 1, 3],
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }
