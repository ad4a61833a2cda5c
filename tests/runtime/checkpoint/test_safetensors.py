"""Safetensors checkpoints: real files read right, damaged ones refused with a reason."""

from __future__ import annotations

import json
import random
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.errors import CheckpointError

Tensors = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def tensors() -> Tensors:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 4)).astype(np.float32)
    return {
        "model.embed_tokens.weight": values,
        "model.layers.0.mlp.up_proj.weight": values.astype(np.float16),
        "model.layers.1.mlp.up_proj.weight": values.astype(ml_dtypes.bfloat16),
        'odd \u00fc/../"name"\\ {layer}': values[:, 0].astype(np.float64),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(7, np.float32),
        "steps": np.arange(5, dtype=np.int64),
    }


def write_folder(folder: Path, tensors: Tensors, config: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "qwen3"}))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def write_raw(folder: Path, header: object, body: bytes = b"") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return folder


def entry(
    dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_every_dtype_reads_back_bit_equal(tmp_path: Path, tensors: Tensors) -> None:
    with open_checkpoint(write_folder(tmp_path, tensors)) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        for name, expected in tensors.items():
            info = checkpoint.tensors[name]
            array = checkpoint.read(name)
            assert array.dtype == expected.dtype
            assert (info.shape, info.dtype) == (expected.shape, expected.dtype.name)
            assert info.num_bytes == expected.nbytes
            assert info.file == tmp_path / "model.safetensors"
            assert array.tobytes() == expected.tobytes()
            assert not array.flags.writeable


def test_arrays_outlive_the_checkpoint_and_their_released_pages(
    tmp_path: Path, tensors: Tensors
) -> None:
    name = "model.embed_tokens.weight"
    checkpoint = open_checkpoint(write_folder(tmp_path, tensors))
    array = checkpoint.read(name)
    checkpoint.release(name)
    checkpoint.close()
    checkpoint.close()
    np.testing.assert_array_equal(array, tensors[name])
    with pytest.raises(CheckpointError, match="the checkpoint is closed"):
        checkpoint.read(name)


def test_config_and_generation_config_are_read(tmp_path: Path, tensors: Tensors) -> None:
    write_folder(tmp_path, tensors, {"model_type": "qwen3", "rope_theta": 1e6})
    assert open_checkpoint(tmp_path).generation_config == {}
    (tmp_path / "generation_config.json").write_text('{"top_k": 20}')
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == {"model_type": "qwen3", "rope_theta": 1e6}
    assert checkpoint.config_path == tmp_path / "config.json"
    assert checkpoint.generation_config == {"top_k": 20}


def test_unknown_tensor_is_named(tmp_path: Path, tensors: Tensors) -> None:
    with pytest.raises(CheckpointError, match="no such tensor") as caught:
        open_checkpoint(write_folder(tmp_path, tensors)).read("nope")
    assert caught.value.got == "nope"


# ---- shards ---------------------------------------------------------------------------------


def write_shards(folder: Path, tensors: Tensors) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    weight_map = {}
    for index, name in enumerate(tensors):
        file = f"model-{index % 2 + 1:05}-of-00002.safetensors"
        weight_map[name] = file
    for file in set(weight_map.values()):
        shard = {name: tensors[name] for name, place in weight_map.items() if place == file}
        safetensors.numpy.save_file(shard, folder / file)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: object) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_read_as_one_checkpoint(tmp_path: Path, tensors: Tensors) -> None:
    weight_map = write_shards(tmp_path, tensors)
    with open_checkpoint(tmp_path) as checkpoint:
        for name, expected in tensors.items():
            assert checkpoint.read(name).tobytes() == expected.tobytes()
            assert checkpoint.tensors[name].file.name == weight_map[name]


def test_tensors_the_index_forgets_are_there_all_the_same(tmp_path: Path, tensors: Tensors) -> None:
    weight_map = write_shards(tmp_path, tensors)
    forgotten = sorted(weight_map)[0]
    write_index(tmp_path, {name: file for name, file in weight_map.items() if name != forgotten})
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        assert checkpoint.read(forgotten).tobytes() == tensors[forgotten].tobytes()


def test_missing_shard_is_named(tmp_path: Path, tensors: Tensors) -> None:
    write_shards(tmp_path, tensors)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 2 weight files are missing") as caught:
        open_checkpoint(tmp_path)
    assert "model-00002-of-00002.safetensors" in str(caught.value.got)


def test_tensor_absent_from_its_shard_is_named(tmp_path: Path, tensors: Tensors) -> None:
    weight_map = write_shards(tmp_path, tensors)
    write_index(tmp_path, weight_map | {"ghost": "model-00001-of-00002.safetensors"})
    with pytest.raises(CheckpointError, match=r"'ghost' in model-00001-of-00002\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "a\\b.safetensors", 3, "x"])
def test_index_cannot_lead_out_of_the_folder(tmp_path: Path, file: object) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_index(tmp_path, {"w": file})
    with pytest.raises(CheckpointError, match="outside the folder's weight files"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("weight_map", [None, [], {}, "x"])
def test_index_without_weight_map_is_refused(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match="no weight_map"):
        open_checkpoint(tmp_path)


# ---- what is no checkpoint ------------------------------------------------------------------


def test_missing_path_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder or file") as caught:
        open_checkpoint(tmp_path / "nowhere")
    assert "config.json" in str(caught.value.expected)


def test_folder_without_config_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    write_folder(tmp_path, tensors)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint(tmp_path)


def test_folder_without_weights_names_what_it_holds(tmp_path: Path, tensors: Tensors) -> None:
    write_folder(tmp_path, tensors)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="no weights") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.got == "weights.safetensors"
    assert caught.value.hint == "rename the file to model.safetensors"


def test_single_weight_file_is_sent_to_its_folder(tmp_path: Path, tensors: Tensors) -> None:
    write_folder(tmp_path, tensors)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        open_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_git_lfs_pointer_is_recognised(tmp_path: Path, tensors: Tensors, name: str) -> None:
    write_folder(tmp_path, tensors)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 3440000000\n"
    (tmp_path / name).write_bytes(pointer)
    with pytest.raises(CheckpointError, match="git-lfs pointer") as caught:
        open_checkpoint(tmp_path)
    assert "git lfs pull" in str(caught.value.hint)


def test_pickled_weights_are_refused_with_a_command_that_converts_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tied = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    for index, part in enumerate([{"a": tied, "b": tied}, {"c": tied.T}]):
        torch.save(part, folder / f"pytorch_model-{index}.bin")
    with pytest.raises(CheckpointError, match="the weights are a pickle") as caught:
        open_checkpoint(folder)
    command = str(caught.value.hint).splitlines()[-1]
    command = command.replace("python -c", f"{shlex.quote(sys.executable)} -c")
    subprocess.run(["sh", "-c", command], check=True)
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.tensors) == {"a", "b", "c"}
    np.testing.assert_array_equal(
        checkpoint.read("c").astype(np.float32), tied.T.to(torch.float32).numpy()
    )


# ---- damaged files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": }', r"config\.json:2: not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"a": 1, "a": 2}', "key 'a' occurs twice"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_broken_config_is_refused_with_its_place(
    tmp_path: Path, tensors: Tensors, text: str, message: str
) -> None:
    write_folder(tmp_path, tensors)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1, -40])
def test_truncated_file_is_recognised(tmp_path: Path, tensors: Tensors, keep: int) -> None:
    write_folder(tmp_path, tensors)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"the file is (truncated|empty)"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"w": entry()}, b"\0" * 9, "belong to no tensor"),
        ({"w": entry(offsets=[1, 9])}, b"\0" * 9, "follows a hole"),
        ({"v": entry(), "w": entry(offsets=[4, 12])}, b"\0" * 12, "overlaps another"),
        ({"w": entry(offsets=[0, 4])}, b"\0" * 4, "8 bytes for F32"),
        ({"w": entry(offsets=[8, 0])}, b"\0" * 8, "8 bytes for F32"),
        ({"w": entry(offsets=[-8, 0])}, b"\0" * 8, "two non-negative integers"),
        ({"w": entry(offsets=[0])}, b"\0" * 8, "two non-negative integers"),
        ({"w": entry(offsets=[False, 8])}, b"\0" * 8, "two non-negative integers"),
        ({"w": entry(shape=[-2])}, b"\0" * 8, "non-negative integers"),
        ({"w": entry(shape=[2.0])}, b"\0" * 8, "non-negative integers"),
        ({"w": entry(shape=[1] * 65, offsets=[0, 4])}, b"\0" * 4, "non-negative integers"),
        ({"w": entry(shape=[2**62, 2**62], offsets=[0, 8])}, b"\0" * 8, "bytes for F32"),
        ({"w": entry(shape=[2**62], offsets=[0, 2**64])}, b"\0" * 8, "truncated"),
        ({"w": entry(dtype="F4")}, b"\0" * 8, "a dtype of F64, F32"),
        ({"w": entry(dtype=["F32"])}, b"\0" * 8, "a dtype of F64, F32"),
        ({"w": [1, 2]}, b"", "an object with dtype"),
        ({"w": {"dtype": "F32", "shape": [2]}}, b"", "an object with dtype"),
        (b'{"w": 1, "w": 2}', b"", "key 'w' occurs twice"),
        (b"[1]", b"", "not a JSON object"),
        (b"{", b"", "not valid JSON"),
        (b"\xff{}", b"", "not valid JSON"),
    ],
)
def test_damaged_header_is_refused(
    tmp_path: Path, header: object, body: bytes, message: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(write_raw(tmp_path, header, body))
    assert message in str(caught.value)
    assert "model.safetensors" in str(caught.value.where)


def test_absurd_header_length_is_refused_without_reading_it(tmp_path: Path) -> None:
    write_raw(tmp_path, {})
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04" * 4)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        open_checkpoint(tmp_path)


def test_mutated_files_never_raise_anything_else(tmp_path: Path, tensors: Tensors) -> None:
    good = (write_folder(tmp_path, tensors) / "model.safetensors").read_bytes()
    random_source = random.Random(0)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(good)
        for _ in range(random_source.randint(1, 4)):
            position = random_source.randrange(min(len(damaged), 700))
            damaged[position] = random_source.choice(b'0123456789[]{}",:\x00\xffFBI6')
        (tmp_path / "model.safetensors").write_bytes(damaged)
        try:
            with open_checkpoint(tmp_path) as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.read(name).tobytes()
        except CheckpointError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize("shape", [[2**62, 2**62, 0], [2**64, 0]])
def test_a_shape_beyond_any_array_is_refused_when_read(tmp_path: Path, shape: list[int]) -> None:
    checkpoint = open_checkpoint(write_raw(tmp_path, {"a": entry(shape=shape, offsets=(0, 0))}))
    with pytest.raises(CheckpointError, match="a tensor's shape is beyond any array") as caught:
        checkpoint.read("a")
    assert caught.value.where == str(tmp_path / "model.safetensors")


def test_a_shard_of_a_name_no_file_system_has_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": "x" * 5000 + ".safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="1 of 1 weight files are missing"):
        open_checkpoint(tmp_path)
