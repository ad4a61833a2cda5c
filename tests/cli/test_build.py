"""``build``: what an engine records of how it was made, and engines that take another's place."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.descriptions import spoil


def emitted(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


def recorded_command(folder: Path) -> list[str]:
    """The arguments that the head of the sources names."""
    head = (folder / "engine.cpp").read_text(encoding="utf-8")
    found = re.search(r"To make it again:\n//   qwen3-codegen (.*)\n", head)
    assert found
    return shlex.split(found.group(1))


SPELLED_OUT = {"bf16": "bfloat16", "f32": "float32"}

CHOICES = {
    "nothing": [],
    "overrides": [
        *("--set", "num_hidden_layers=2"),
        *("--set", 'layer_types=["full_attention", "full_attention"]'),
        *("--set", "rope_theta=5.0"),
    ],
    "isa and lowering": ["--isa", "portable", "--lowering", "portable", "--dtype", "bf16"],
    "release": ["--lowering", "portable", "--infinicore-api", "2026-08"],
    "cache": ["--kv-cache-dtype", "bf16", "--dtype", "f32"],
    "activations": ["--activation-dtype", "f32", "--dtype", "bf16"],
    "alias": ["--dev", "mlu"],
    "trace": ["--trace"],
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_recorded_command_makes_the_engine_again(name, cli, model):
    out = Path(cli("build", "--spec", model, "--emit-only", *CHOICES[name]).succeeded().strip())
    first = model.parent.parent / out
    command = recorded_command(first)
    for word in CHOICES[name]:
        assert SPELLED_OUT.get(word, word) in command
    assert str(model.parent) not in " ".join(emitted(first).values())
    for file in model.parent.iterdir():  # the command names files alone
        shutil.copy(file, first.parent.parent)
    cli(*command, "--emit-only", "--out", "again").succeeded()
    assert emitted(model.parent.parent / "again" / first.name) == emitted(first)


def test_files_of_the_user_s_own_are_named_without_their_folders(cli, model, tmp_path):
    spoil(model, "  torch_dtype", "  colour: blue\n  torch_dtype")
    device = tmp_path / "boards" / "board one.yaml"
    device.parent.mkdir()
    device.write_text("device: board\nextends: cpu\n", encoding="utf-8")
    arguments = ["--dev", device, "--arch", model.parent / "small.yaml"]
    ignored = ["--ignore-config-key", "colour"]
    built = cli("build", "--spec", model, "--emit-only", *arguments, *ignored)
    command = recorded_command(tmp_path / built.succeeded().strip())
    assert command[:7] == [
        *("build", "--spec", "tiny.yaml", "--dev", "board one.yaml", "--arch", "small.yaml")
    ]
    assert command[7:] == ignored
    manifest = json.loads((tmp_path / built.stdout.strip() / "manifest.json").read_text())
    assert manifest["overrides"] == {"config": {}, "ignored_config_keys": ["colour"]}


def test_overrides_and_rope_stand_in_the_manifest(cli, model, tmp_path):
    yarn = '{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}'
    sets = ["--set", f"rope_scaling={yarn}", "--set", "rms_norm_eps=0.5"]
    out = cli("build", "--spec", model, "--emit-only", *sets).succeeded().strip()
    manifest = json.loads((tmp_path / out / "manifest.json").read_text())
    assert manifest["overrides"] == {
        "config": {"rope_scaling": json.loads(yarn), "rms_norm_eps": 0.5},
        "ignored_config_keys": [],
    }
    (rope,) = manifest["rope"].values()
    assert rope.items() >= {**json.loads(yarn), "rope_theta": 100.0, "rotary_dim": 8}.items()
    assert manifest["config"]["rms_norm_eps"] == 0.5


def test_an_engine_of_another_configuration_is_not_replaced_unsaid(cli, model):
    def notes(*options: str) -> list[str]:
        result = cli("build", "--spec", model, "--emit-only", *options)
        result.succeeded()
        return [line for line in result.stderr.splitlines() if "replaces" in line]

    assert notes() == []
    assert notes() == [], "the same once more"
    assert notes("--set", "rms_norm_eps=0.5", "--dtype", "bf16") == [
        "note: replaces the engine in generated/tiny_cpu, which has another rms_norm_eps, dtype, "
        "overrides"
    ]
    assert notes("--set", "rope_theta=5.0", "--dtype", "bf16") == [
        "note: replaces the engine in generated/tiny_cpu, which has another rms_norm_eps, rope, "
        "overrides"
    ]
    kept = ("--set", "rope_theta=5.0", "--dtype", "bf16")
    assert notes(*kept, "--kv-cache-dtype", "f32") == [
        "note: replaces the engine in generated/tiny_cpu, which has another kv_cache_dtype"
    ]
    kept += ("--kv-cache-dtype", "f32")
    assert notes(*kept, "--activation-dtype", "f32") == [
        "note: replaces the engine in generated/tiny_cpu, which has another activation_dtype"
    ], "its products round no rows anywhere"
    assert notes(*kept, "--activation-dtype", "bf16") == [
        "note: replaces the engine in generated/tiny_cpu, which has another activation_dtype"
    ]
    assert notes(*kept[:-2]) == [
        "note: replaces the engine in generated/tiny_cpu, which has another activation_dtype, "
        "kv_cache_dtype"
    ]
    assert notes("--trace") == [
        "note: replaces the engine in generated/tiny_cpu, which has another dtype, rope, "
        "overrides, tracing"
    ]
    assert notes("--trace") == []


def test_standalone_sources_come_go_and_are_recorded(cli, model, tmp_path):
    build = ["build", "--spec", model, "--emit-only"]
    folder = tmp_path / cli(*build, "--standalone").succeeded().strip()
    assert (folder / "cpp" / "CMakeLists.txt").is_file()
    assert recorded_command(folder)[-1] == "--standalone"
    plain = cli(*build)
    plain.succeeded()
    assert "note: removes generated/tiny_cpu/cpp; with --standalone it would stay" in plain.stderr
    assert not (folder / "cpp").exists()
    refused = cli(*build, "--standalone", "--infinicore", tmp_path).refused()
    assert "an installed one cannot be copied" in refused


@pytest.mark.parametrize("text", ["", "[]", "{", '{"config": 3}'])
def test_a_damaged_manifest_is_in_nobody_s_way(cli, model, tmp_path, text):
    folder = tmp_path / "generated" / "tiny_cpu"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(text)
    cli("build", "--spec", model, "--emit-only").succeeded()
    assert json.loads((folder / "manifest.json").read_text())["model"] == "tiny"
