"""Bad checkpoints: what is wrong with which tensor of which file, exit code 2, no traceback."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.compile


@pytest.fixture
def cli(forked_cli):
    return forked_cli


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "tiny")


@pytest.fixture
def error_of(cli) -> Callable[..., str]:
    def error_of(checkpoint: Path, *options: str) -> str:
        return cli("generate", "--model", checkpoint, "--token-ids", "1,2", *options).refused()

    return error_of


def rewrite(checkpoint: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def set_config(checkpoint: Path, **fields: object) -> None:
    file = checkpoint / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, **fields}), encoding="utf-8")


ENGINES = pytest.mark.parametrize("engine", ["compiled", "interpreter"])


@ENGINES
def test_a_mis_shaped_weight(engine, copied, error_of):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(copied, lambda tensors: tensors.update({name: np.zeros((41, 24), np.float32)}))
    error = error_of(copied, "--engine", engine)
    assert f"{copied}: " in error
    assert name in error
    assert "in model.safetensors" in error
    assert "compiling" not in error, "told only after the engine was compiled"
    assert "has shape [41, 24], expected [40, 24]" in error


@ENGINES
def test_a_missing_weight(engine, copied, error_of):
    name = "model.layers.2.self_attn.o_proj.weight"
    rewrite(copied, lambda tensors: tensors.pop(name))
    assert name in error_of(copied, "--engine", engine)


@ENGINES
def test_a_leftover_weight(engine, copied, error_of):
    name = "model.layers.0.self_attn.q_proj.bias"
    rewrite(copied, lambda tensors: tensors.update({name: np.zeros(32, np.float32)}))
    assert name in error_of(copied, "--engine", engine)


@ENGINES
def test_a_qwen3_without_q_norm(engine, copied, error_of):
    def drop(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if "_norm" in name and "self_attn" in name]:
            del tensors[name]

    rewrite(copied, drop)
    error = error_of(copied, "--engine", engine)
    assert "q_norm" in error
    assert "hint:     " in error
    assert "--arch llama" in error


def test_truncated_safetensors(copied, error_of):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    error = error_of(copied)
    assert str(file) in error
    assert re.search(r"truncated|download|bytes", error)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 4, b"\xff" * 64, b"\x10" + b"\x00" * 7 + b"[" * 16]
)
def test_damaged_safetensors(content, copied, error_of):
    file = copied / "model.safetensors"
    file.write_bytes(content)
    assert str(file) in error_of(copied)


def test_a_git_lfs_pointer(copied, error_of):
    file = copied / "model.safetensors"
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123\n"
    file.write_text(pointer, encoding="ascii")
    error = error_of(copied)
    assert str(file) in error
    assert "git lfs pull" in error


def test_pytorch_model_bin(copied, error_of):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    error = error_of(copied)
    assert str(copied) in error
    assert "pytorch_model" in error
    assert "weights_only" in error


def test_a_folder_without_weights(copied, error_of):
    (copied / "model.safetensors").unlink()
    error = error_of(copied)
    assert str(copied) in error
    assert "safetensors" in error


def test_an_index_that_names_a_missing_file(copied, error_of):
    names = list(load_file(copied / "model.safetensors"))
    (copied / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "model-00001-of-00002.safetensors" in error_of(copied)


def test_an_index_out_of_the_folder(copied, error_of):
    names = list(load_file(copied / "model.safetensors"))
    shutil.move(copied / "model.safetensors", copied.parent / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    error = error_of(copied)
    assert "../outside.safetensors" in error
    assert "model.safetensors.index.json" in error


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hidden_sise": 3}, r"config\.json:\d+: .*hidden_sise.*(?s:.*hidden_size)"),
        ({"model_type": "qwen33"}, r"config\.json:\d+: .*(?s:.*did you mean 'qwen3')"),
        ({"model_type": None}, r"model_type"),
        ({"rope_scaling": {"rope_type": "spiral"}}, r"config\.json:\d+: .*spiral"),
        ({"layer_types": ["full_attention"]}, r"config\.json:\d+: .*layer_types"),
        ({"hidden_size": "24"}, r"config\.json:\d+: .*hidden_size"),
        ({"num_hidden_layers": -1}, r"config\.json:\d+: .*num_hidden_layers"),
    ],
)
def test_a_bad_config(fields, says, copied, error_of):
    set_config(copied, **fields)
    error = error_of(copied)
    assert re.search(says, error), error


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1, "a": 2}', '{"model_type": "qwen3"} trailing', "\x00"]
)
def test_a_config_that_is_no_json_object(text, copied, error_of):
    (copied / "config.json").write_text(text, encoding="utf-8")
    assert str(copied / "config.json") in error_of(copied)


def test_an_unknown_field_may_be_vouched_for(copied, cli):
    set_config(copied, colour="red")
    result = cli("generate", "--model", copied, "--token-ids", "1,2", "--max-tokens", "2",
                 "--ignore-config-key", "colour")  # fmt: skip
    assert len(result.succeeded().split(",")) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"GGUF", "GGUF"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, "GGUF"),
        (b"nothing", "weights.gguf"),
    ],
)
def test_a_damaged_gguf(content, says, error_of, tmp_path):
    file = tmp_path / "weights.gguf"
    file.write_bytes(content)
    error = error_of(file)
    assert says in error
    assert str(file) in error


def test_no_checkpoint_there(error_of, tmp_path):
    assert "nowhere" in error_of(tmp_path / "nowhere")
