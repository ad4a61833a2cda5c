"""``--set`` on both generations of config.json, and what is read back from what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qwen3_codegen.cli.main import main
from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.export import config_json, model_yaml
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from tests.spec.descriptions import error_of

SIZES = {
    "model_type": "qwen3",
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}
OLD = {**SIZES, "rope_theta": 1000.0, "torch_dtype": "bfloat16"}
NEW = {
    **SIZES,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    "dtype": "bfloat16",
}
MOE = {
    **NEW,
    "model_type": "qwen3_moe",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
}
PHI = {
    **NEW,
    "model_type": "phi3",
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
}
GEMMA = {
    **NEW,
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
    },
}
YARN = {"rope_type": "yarn", "factor": 2.0}


def load(folder: Path, fields: Mapping[str, Any], overrides: Mapping[str, str]) -> ModelSpec:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields, indent=2))
    return load_model(str(folder), overrides=overrides)


CASES = [
    (OLD, "rope_theta", 5000.0, {"rope_theta": 5000.0}),
    (OLD, "rope_scaling", YARN, {"rope_scaling": YARN}),
    (OLD, "dtype", "float32", {"torch_dtype": "float32"}),
    (NEW, "torch_dtype", "float32", {"dtype": "float32"}),
    (NEW, "rope_theta", 5000.0, {"rope_parameters": {"rope_theta": 5000.0}}),
    (NEW, "rope_scaling", YARN, {"rope_parameters": {**YARN, "rope_theta": 1000.0}}),
    (NEW, "rope_parameters", YARN, {"rope_parameters": YARN}),
    (OLD, "rope_parameters", YARN, {"rope_scaling": YARN}),
    (
        {**NEW, "rope_parameters": {**YARN, "rope_theta": 1000.0}},
        "rope_scaling",
        None,
        {"rope_parameters": {"rope_theta": 1000.0}},
    ),
    (NEW, "partial_rotary_factor", 1.0, {}),
    (PHI, "partial_rotary_factor", 0.25, {"rope_parameters": {
        "rope_theta": 50.0, "partial_rotary_factor": 0.25}}),
    (PHI, "rope_theta", 70.0, {"rope_parameters": {
        "rope_theta": 70.0, "partial_rotary_factor": 0.5}}),
    (MOE, "num_experts", 8, {"num_local_experts": 8}),
    (MOE, "num_local_experts", 8, {"num_local_experts": 8}),
    (GEMMA, "rope_theta", 70.0, {"rope_parameters": {
        **GEMMA["rope_parameters"], "full_attention": {"rope_theta": 70.0}}}),
    (GEMMA, "rope_local_base_freq", 70.0, {"rope_parameters": {
        **GEMMA["rope_parameters"], "sliding_attention": {"rope_theta": 70.0}}}),
    (GEMMA, "rope_scaling", {"rope_type": "linear", "factor": 8.0}, {"rope_parameters": {
        **GEMMA["rope_parameters"],
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0}}}),
]  # fmt: skip


def assert_same(found: ModelSpec, expected: ModelSpec) -> None:
    assert (found.config, found.rope, found.layers) == (
        expected.config,
        expected.rope,
        expected.layers,
    )
    assert found.dtype is expected.dtype


@pytest.mark.parametrize(("fields", "key", "value", "meant"), CASES)
def test_an_override_survives_whatever_is_done_with_the_model(
    fields: Mapping[str, Any], key: str, value: Any, meant: Mapping[str, Any], tmp_path: Path
) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    spec = load(tmp_path / "given", fields, {key: text})
    assert_same(spec, load(tmp_path / "meant", {**fields, **meant}, {}))
    half = with_dtype(spec, DType.F16)
    assert_same(with_dtype(half, spec.dtype), spec)
    (tmp_path / "imported.yaml").write_text(model_yaml(spec, architecture=spec.architecture.name))
    assert_same(load_model(str(tmp_path / "imported.yaml")), spec)
    assert_same(load(tmp_path / "written", config_json(half), {}), half)


def test_commands_write_what_they_read(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "checkpoint"
    spec = load(folder, NEW, {})
    change = ["--set", "rope_theta=5000"]
    imported, random = tmp_path / "imported.yaml", tmp_path / "random"
    assert main(["import", str(folder), *change, "-o", str(imported)]) == 0
    arguments = ["--spec", str(folder), *change, "--dtype", "f32", "-o", str(random)]
    assert main(["random", *arguments]) == 0
    arguments[-1] = str(tmp_path / "less")
    assert main(["random", *arguments, "--layers", "1"]) == 0
    assert load_model(str(imported)).rope == load_model(str(random)).rope != spec.rope
    assert "rope_theta" not in load_model(str(random)).huggingface_config
    capsys.readouterr()


@pytest.mark.parametrize(
    ("fields", "overrides", "message"),
    [
        (NEW, {"rope_theta": "-1"}, "--set rope_theta: 'rope_theta' is out of range"),
        (OLD, {"rope_theta": "-1"}, "--set rope_theta: 'rope_theta' is out of range"),
        (GEMMA, {"rope_local_base_freq": "x"}, "--set rope_local_base_freq: 'rope_theta' must be"),
        (NEW, {"partial_rotary_factor": "2"}, "--set partial_rotary_factor: 'partial_rotary_fac"),
        (NEW, {"rope_scaling": "3"}, "--set rope_scaling: 'rope_scaling' must be a mapping"),
        (NEW, {"rope_scaling": '{"rope_type": "yarn"}'}, "--set rope_scaling: rope type 'yarn' ne"),
        (GEMMA, {"rope_parameters": '{"full_attention": 5}'}, "--set rope_parameters: 'full_atten"),
        (MOE, {"num_local_experts": "x"}, "--set num_local_experts: config field 'num_experts' h"),
        (
            MOE,
            {"num_local_experts": "8", "num_experts": "9"},
            "--set num_local_experts: config fields 'num_experts' and 'num_local_experts' contrad",
        ),
        (
            NEW,
            {"rope_parameters": '{"rope_type": "default", "rope_theta": 5}', "rope_theta": "6"},
            "--set rope_theta: 'rope_theta' and 'rope_parameters' contradict each other",
        ),
        (NEW, {"model_type": "llama"}, "--set model_type: 'model_type' chooses the architecture"),
    ],
)
def test_a_wrong_override_is_named(
    fields: Mapping[str, Any], overrides: Mapping[str, str], message: str, tmp_path: Path
) -> None:
    assert error_of(load, tmp_path / "given", fields, overrides).startswith(message)
