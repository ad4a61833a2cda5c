"""Random checkpoints: readable by transformers, repeatable, and hard to get right by luck."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from qwen3_codegen.cli.main import main
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.random_checkpoint import write_random_checkpoint, writer
from qwen3_codegen.random_checkpoint.distributions import weight_distributions
from qwen3_codegen.spec.catalog import load_model
from tests.spec.test_transformers_configs import published

CASES = ("llama", "qwen2-off", "qwen3", "granite", "olmo2", "gemma3", "phi3", "qwen3-moe")


def spec_of(case: str, directory: Path, **changes: object):
    fields = {**published(case), "torch_dtype": "float32", "rms_norm_eps": 1e-5, **changes}
    (directory / "config.json").write_text(json.dumps(fields))
    return load_model(str(directory))


def written(case: str, tmp_path: Path, **changes: object) -> Path:
    spec = spec_of(case, tmp_path, **changes)
    write_random_checkpoint(spec, tmp_path / "checkpoint", seed=3)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_transformers_runs_it_and_finds_it_hard(case: str, tied: bool, tmp_path: Path) -> None:
    folder = written(case, tmp_path, tie_word_embeddings=tied)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    if hasattr(model.config, "num_experts"):
        model.set_experts_implementation("eager")
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 331, (1, 40)))
    with torch.inference_mode():
        output = model(tokens, output_attentions=True)
    logits = output.logits[0].numpy()
    assert np.isfinite(logits).all()
    best = np.sort(logits, axis=-1)
    margins = (best[:, -1] - best[:, -2]) / np.abs(logits).max()
    assert np.median(margins) > 0.01
    assert len(set(logits.argmax(axis=-1).tolist())) > 10
    peaks = [float(layer[0, :, 20:].max(dim=-1).values.mean()) for layer in output.attentions]
    assert min(peaks) > 0.3


def test_norms_spread_around_one(tmp_path: Path) -> None:
    tensors = load_file(written("qwen3", tmp_path) / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith(("layernorm.weight", "model.norm.weight")):
            assert 0.5 <= values.min() < 0.6 < 1.4 < values.max() <= 1.5, name
    gemma = tmp_path / "gemma"
    gemma.mkdir()
    offset = load_file(written("gemma3", gemma) / "model.safetensors")
    values = offset["model.layers.0.pre_feedforward_layernorm.weight"]
    assert -0.5 <= values.min() < -0.4 < 0.4 < values.max() <= 0.5


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    spec = spec_of("qwen3", tmp_path)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_random_checkpoint(spec, tmp_path / name, seed=seed)
    a, b, c = (tmp_path / name / "model.safetensors" for name in "abc")
    assert a.read_bytes() == b.read_bytes() != c.read_bytes()


def test_a_tensor_is_the_same_with_fewer_layers_and_in_any_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(written("qwen3", tmp_path) / "model.safetensors")
    monkeypatch.setattr(writer, "_CHUNK", 1024)
    spec = spec_of("qwen3", tmp_path, num_hidden_layers=2)
    write_random_checkpoint(spec, tmp_path / "short", seed=3)
    short = load_file(tmp_path / "short" / "model.safetensors")
    assert set(short) < set(whole)
    for name, values in short.items():
        assert np.array_equal(values, whole[name]), name


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    spec = spec_of("llama", tmp_path)
    total = write_random_checkpoint(
        spec, tmp_path / "checkpoint", seed=0, progress=lambda done, of, _: seen.append((done, of))
    )
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    size = (tmp_path / "checkpoint" / "model.safetensors").stat().st_size
    assert 0 < size - total < 20_000


def test_scales_of_jiuge_are_met(tmp_path: Path) -> None:
    scales = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32}
    fields = {**published("llama-default-theta"), **scales, "model_type": "minicpm"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    graph = build_graph(load_model(str(tmp_path)))
    plain = build_graph(spec_of("llama-default-theta", tmp_path, tie_word_embeddings=True))
    name = "model.embed_tokens.weight"
    jiuge, llama = (weight_distributions(graph)[name] for graph in (graph, plain))
    assert jiuge.spread == pytest.approx(llama.spread / 12)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of("llama", tmp_path)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_random_checkpoint(spec, tmp_path / "checkpoint", seed=0, progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_the_command_writes_a_folder(tmp_path: Path, capsys) -> None:
    output = tmp_path / "random"
    arguments = ["random", "--spec", "smollm2-135m", "--layers", "1", "--dtype", "bf16"]
    arguments += ["--set", "vocab_size=99", "-o", str(output)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "MB of bfloat16 weights" in captured.err
    config = json.loads((output / "config.json").read_text())
    assert (config["num_hidden_layers"], config["vocab_size"]) == (1, 99)
    assert (config["model_type"], config["torch_dtype"]) == ("llama", "bfloat16")
    assert config["architectures"] == ["LlamaForCausalLM"]
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.dtype is torch.bfloat16
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "the folder exists and is not empty" in error
    assert "--force replaces this one" in error
    assert main([*arguments, "--seed", "1", "--force"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["random"]
    other = AutoModelForCausalLM.from_pretrained(output)
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)


def test_force_spares_a_folder_with_anything_else(tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "config.json").write_text("{}")
    arguments = ["random", "--spec", "smollm2-135m", "--layers", "1", "--set", "vocab_size=99"]
    assert main([*arguments, "-o", str(tmp_path), "--force"]) == 2
    assert "name another, or remove this one" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "config.json"}


def test_fewer_layers_shorten_lists_with_an_entry_per_layer(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published("qwen3-layer-types")))
    output = tmp_path / "random"
    assert main(["random", "--spec", str(tmp_path), "--layers", "3", "-o", str(output)]) == 0
    config = json.loads((output / "config.json").read_text())
    assert config["layer_types"] == ["full_attention", "sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "0"], "--layers is out of range\n  got:      0\n  expected: 1 to 30"),
        (["--layers", "31"], "--layers is out of range"),
        (["--seed", "-1"], "--seed is a whole number from 0"),
        (["--dtype", "int8"], "unknown dtype 'int8'"),
    ],
)
def test_wrong_arguments_write_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys
) -> None:
    command = ["random", "--spec", "smollm2-135m", "-o", str(tmp_path / "x"), *arguments]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    command = ["random", "--spec", "smollm2-135m", "-o", str(tmp_path / "x")]
    assert main(command) == 2
    assert "not enough disk space for the checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
