"""GGUF files that are refused, each with what is wrong and what would fit."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.checkpoint.gguf_architectures import ARCHITECTURES
from qwen3_runtime.errors import CheckpointError
from tests.fuzz.formats import gguf_bytes
from tests.runtime.checkpoint.gguf_writing import header_fields, write_gguf
from tests.runtime.checkpoint.tiny_gguf import CONFIG, EXTRA_FIELDS, opened, write_model


@pytest.mark.parametrize(
    "key",
    [
        "block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention.head_count", "attention.layer_norm_rms_epsilon",
    ],
)  # fmt: skip
def test_missing_field_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"'qwen3\.{key}' is missing or unfit"):
        opened(tmp_path, "qwen3", without=f"qwen3.{key}")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"qwen3.block_count": "two"}, "int"),
        ({"qwen3.block_count": 0}, "1 to"),
        ({"qwen3.block_count": 4097}, "1 to 4096"),
        ({"qwen3.attention.head_count_kv": 0}, "1 to"),
        ({"qwen3.attention.head_count_kv": [2, 4]}, "one value for all layers"),
        ({"qwen3.attention.value_length": 16}, "key_length 8"),
        ({"qwen3.rope.scaling.type": "dynamic"}, "none, linear, yarn or longrope"),
        ({"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 2.0}, "int"),
    ],
)
def test_unfit_field_is_named(tmp_path: Path, fields: dict[str, object], expected: str) -> None:
    with pytest.raises(CheckpointError, match="is missing or unfit") as caught:
        opened(tmp_path, "qwen3", fields=fields)
    assert expected in str(caught.value.expected)


def test_one_value_repeated_for_all_layers_is_that_value(tmp_path: Path) -> None:
    fields: dict[str, object] = {"qwen3.attention.head_count_kv": [2, 2]}
    assert opened(tmp_path, "qwen3", fields=fields).config["num_key_value_heads"] == 2


@pytest.mark.parametrize("scale", [0.0, 1.7, -1.5])
def test_minicpm_logit_scale_that_no_base_explains_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(CheckpointError, match=r"'minicpm\.logit_scale' is missing or unfit"):
        opened(tmp_path, "minicpm", fields={"minicpm.logit_scale": scale})


def test_unknown_architecture_names_the_known_ones(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", "falcon", {}, {"w": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match="architecture this cannot read") as caught:
        open_checkpoint(path)
    assert caught.value.got == "'falcon'"
    assert "qwen3" in str(caught.value.expected)


def test_file_without_embedding_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", "qwen3", {}, {"w": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match="no token embedding"):
        open_checkpoint(path)


def test_split_model_is_refused_with_the_command_that_joins(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="split over several files") as caught:
        opened(tmp_path, "qwen3", fields={"split.count": 3})
    assert "llama-gguf-split --merge" in str(caught.value.hint)


def test_folder_with_one_gguf_file_opens_and_with_two_asks_which(tmp_path: Path) -> None:
    path = write_model(tmp_path, "qwen3")
    assert open_checkpoint(tmp_path).config_path == path
    (tmp_path / "other.gguf").write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match="several GGUF files") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.got == "model.gguf, other.gguf"


def test_every_listed_architecture_is_one_of_the_formats() -> None:
    assert set(ARCHITECTURES) <= set(gguf.MODEL_ARCH_NAMES.values())


def forged(folder: Path, architecture: str, name: str, shape: tuple[int, ...], raw: bytes) -> Path:
    """A tiny model's file with one more float32 tensor of any shape, whatever bytes it has."""
    fields = {"general.architecture": architecture, **header_fields(architecture, CONFIG)}
    fields |= EXTRA_FIELDS.get(architecture, {})
    tensors = {"token_embd.weight": ((40, 24), 0), name: (shape, 0)}
    content = {40 * 24 * 4: bytes(40 * 24 * 4)}
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes(fields, tensors, lambda count: content.get(count, raw)))
    return path


@pytest.mark.parametrize("shape", [(2**62, 2**62, 0), (2**64 - 1, 0), (0, 2**63)])
def test_a_shape_beyond_any_array_is_refused_when_read(tmp_path: Path, shape) -> None:
    checkpoint = open_checkpoint(forged(tmp_path, "qwen3", "x.weight", shape, b""))
    assert checkpoint.tensors["x.weight"].shape == shape
    with pytest.raises(CheckpointError, match="a tensor's shape is beyond any array") as caught:
        checkpoint.read("x.weight")
    assert caught.value.where == str(tmp_path / "model.gguf")


@pytest.mark.parametrize("shape", [(2**60, 0, 32), (2**60, 32, 0)])
def test_experts_without_a_byte_are_not_listed(tmp_path: Path, shape) -> None:
    path = forged(tmp_path, "qwen3moe", "blk.0.ffn_gate_exps.weight", shape, b"")
    with pytest.raises(CheckpointError, match="has experts without weights"):
        open_checkpoint(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [0x7FA00000, 0x7FC00000, 0x7F7FFFFF], ids=["snan", "nan", "max"])
def test_rope_factors_that_are_no_numbers_give_no_warning(tmp_path: Path, number: int) -> None:
    raw = number.to_bytes(4, "little") * 4
    path = forged(tmp_path, "llama", "rope_freqs.weight", (4,), raw)
    with pytest.raises(CheckpointError, match="the rope frequencies come from parameters"):
        open_checkpoint(path)


def test_names_from_a_file_do_not_steer_a_terminal(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", "qwen3\x1b[2J\x00", {}, {"w": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(caught.value).replace("\n", "").isprintable()


def test_an_empty_query_matrix_is_read_as_one(tmp_path: Path) -> None:
    path = forged(tmp_path, "llama", "blk.0.attn_q.weight", (32, 0), b"")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert open_checkpoint(path).read(name).shape == (32, 0)
