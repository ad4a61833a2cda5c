"""Models written back: ``import`` to a model spec, and a config.json transformers reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from qwen3_codegen.cli.main import main
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.export import config_json, model_yaml
from tests.spec.test_transformers_configs import CASES, assert_same_model, published


def write_config(directory: Path, **fields: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**published("qwen3-yarn"), **fields}))
    return directory


@pytest.mark.parametrize("case", CASES)
def test_an_imported_spec_is_the_same_model(case: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published(case)))
    spec = load_model(str(tmp_path), name=case)
    file = tmp_path / "imported.yaml"
    file.write_text(model_yaml(spec, architecture=spec.architecture.name))
    again = load_model(str(file))
    assert (again.name, again.architecture) == (case, spec.architecture)
    assert (again.config, again.rope, again.layers) == (spec.config, spec.rope, spec.layers)
    assert again.dtype is spec.dtype
    assert max(map(len, file.read_text().splitlines())) <= 100


@pytest.mark.parametrize("case", CASES)
def test_a_written_config_is_read_by_transformers(case: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published(case)))
    spec = load_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config_json(spec)))
    assert_same_model(spec, AutoConfig.from_pretrained(tmp_path))


def test_text_that_looks_like_something_else_is_quoted(tmp_path: Path) -> None:
    odd = {"true": "1e-6", "x: y": "# no comment", "n": "", "é": ["null", "a, b", {"k": "~"}]}
    folder = write_config(tmp_path, odd=odd)
    spec = load_model(str(folder), ignore_config_keys=("odd",), name="123")
    file = tmp_path / "imported.yaml"
    file.write_text(model_yaml(spec, architecture="qwen3"))
    again = load_model(str(file))
    assert again.name == "123"
    assert again.huggingface_config["odd"] == spec.huggingface_config["odd"]
    assert again.ignored_config_keys == ("odd",)


def test_import_writes_a_spec_and_prints_its_path(tmp_path: Path, capsys) -> None:
    folder = write_config(tmp_path / "checkpoint", initializer_range=0.1)
    output = tmp_path / "specs" / "mine.yaml"
    assert main(["import", str(folder), "-o", str(output), "--set", "rms_norm_eps=1e-5"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert output.read_text() == (
        "name: checkpoint\n"
        "architecture: qwen3\n"
        "config:\n"
        "  vocab_size: 331\n"
        "  hidden_size: 96\n"
        "  intermediate_size: 75\n"
        "  num_hidden_layers: 6\n"
        "  num_attention_heads: 6\n"
        "  num_key_value_heads: 2\n"
        "  head_dim: 32\n"
        "  max_position_embeddings: 512\n"
        "  rms_norm_eps: 1e-05\n"
        "  rope_scaling:\n"
        "    rope_type: yarn\n"
        "    factor: 4.0\n"
        "    original_max_position_embeddings: 128\n"
        "  rope_theta: 1000000.0\n"
        "  torch_dtype: bfloat16\n"
    )
    assert [path.name for path in output.parent.iterdir()] == ["mine.yaml"]


def test_an_imported_spec_may_get_another_name(tmp_path: Path, capsys) -> None:
    output = tmp_path / "mine.yaml"
    assert main(["import", "qwen3-0.6b", "-o", str(output), "--name", "mine"]) == 0
    again = tmp_path / "again.yaml"
    assert main(["import", str(output), "-o", str(again), "--name", "other"]) == 0
    capsys.readouterr()
    assert (load_model(str(output)).name, load_model(str(again)).name) == ("mine", "other")


def test_an_imported_spec_keeps_how_to_talk_to_the_model(tmp_path: Path, capsys) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    assert main(["import", "qwen3-0.6b", "-o", str(first)]) == 0
    assert "chat:" not in first.read_text()
    chat = 'system_prompt: "Say: no"\n  sampling: {temperature: 0.25, top_k: 20, min_p: 0.5}'
    first.write_text(f"{first.read_text()}chat:\n  {chat}\n")
    assert main(["import", str(first), "-o", str(second)]) == 0
    capsys.readouterr()
    assert load_model(str(second)).chat == load_model(str(first)).chat
    assert second.read_text().endswith(
        'chat:\n  system_prompt: "Say: no"\n  sampling:\n    temperature: 0.25\n    min_p: 0.5\n'
    )


def test_import_does_not_overwrite_unasked(tmp_path: Path, capsys) -> None:
    folder, output = write_config(tmp_path / "checkpoint"), tmp_path / "mine.yaml"
    output.write_text("precious")
    assert main(["import", str(folder), "-o", str(output)]) == 2
    assert "mine.yaml: the file exists\n  hint:     --force replaces it" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert main(["import", str(folder), "-o", str(output), "--force", "--name", "other"]) == 0
    assert output.read_text().startswith("name: other\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.json"], "x.json: a model spec is a YAML file"),
        (["-o", "x.yaml", "--name", "a/b"], "'name' may hold letters, digits"),
        (["-o", "x.yaml", "--arch", "qwen33"], "unknown architecture 'qwen33'"),
        (["-o", "x.yaml", "--set", "hidden_size=0"], "--set hidden_size: config field 'hidden_si"),
        (["-o", "x.yaml", "--set", "hidden_size"], "--set takes KEY=VALUE"),
    ],
)
def test_a_failed_import_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    folder = write_config(tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(folder), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_specs_lists_what_ships(capsys) -> None:
    assert main(["specs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "smollm2-135m        134.5 M  SmolLM2 135M, a Llama"
    assert any(line.startswith("qwen3-1.7b        1,720.6 M  Qwen3 1.7B") for line in lines)


def test_specs_show_counts_exactly(capsys) -> None:
    assert main(["specs", "show", "qwen3-1.7b"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    rows = {label.strip(): value.strip() for label, value in rows.items()}
    assert rows["parameters"] == "1,720,574,976"
    assert rows["weights bfloat16"] == "3,441,397,760 bytes"
    assert rows["weights float32"] == "6,882,299,904 bytes"
    assert rows["cache bfloat16"] == "114,688 bytes per token"
    assert rows["layers"] == "28: 28 full_attention"
    assert rows["context"] == "40,960 tokens"


def test_specs_show_names_windows_and_notes(capsys) -> None:
    window = ["--set", "sliding_window=64"]
    on = [*window, "--set", "use_sliding_window=true", "--set", "max_window_layers=20"]
    assert main(["specs", "show", "qwen3-0.6b", *on]) == 0
    output = capsys.readouterr()
    assert "28: 20 full_attention, 8 sliding_attention (window 64)" in output.out
    assert "8 layers keep no more than a window" in output.out
    assert main(["specs", "show", "qwen3-0.6b", *window]) == 0
    assert "note: sliding_window: 64 has no effect" in capsys.readouterr().err
    assert main(["specs", "show", "qwen3-0.7b"]) == 2
    assert "did you mean 'qwen3-" in capsys.readouterr().err
