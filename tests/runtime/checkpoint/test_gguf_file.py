"""The GGUF container: every value and block type read right, every damaged file refused."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize, quantize

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.checkpoint.gguf_file import GgufFile
from qwen3_runtime.errors import CheckpointError
from tests.runtime.checkpoint.gguf_writing import header_fields, write_gguf

QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
DECODED = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "MXFP4"]
CONFIG = {
    "num_hidden_layers": 1, "max_position_embeddings": 64, "hidden_size": 32,
    "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
}  # fmt: skip


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def field(key: str, kind: int, raw: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + raw


def tensor_entry(
    name: str = "w", dims: tuple[int, ...] = (2,), kind: int = 0, start: int = 0
) -> bytes:
    dimensions = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return string(name) + dimensions + struct.pack("<IQ", kind, start)


def file_of(
    folder: Path,
    fields: list[bytes],
    tensors: list[bytes],
    body: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> Path:
    num_tensors, num_fields = counts or (len(tensors), len(fields))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields)
    head += b"".join(fields) + b"".join(tensors)
    path = folder / "model.gguf"
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def test_every_value_type_reads_as_the_packages_reader_does(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "llama")
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -100)
    writer.add_uint16("a.u16", 60000)
    writer.add_int16("a.i16", -30000)
    writer.add_uint32("a.u32", 4_000_000_000)
    writer.add_int32("a.i32", -2_000_000_000)
    writer.add_uint64("a.u64", 2**63 + 1)
    writer.add_int64("a.i64", -(2**62))
    writer.add_float32("a.f32", 0.1)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.yes", True)
    writer.add_string("a.text", "naïve 模型 🙂")
    writer.add_array("b.strings", ["", "x", "ḱ"])
    writer.add_array("b.ints", [1, -2, 3])
    writer.add_array("b.floats", [0.5, -1.25])
    writer.add_array("b.flags", [True, False])
    writer.add_tensor("w", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fields = GgufFile(tmp_path / "all.gguf").fields
    theirs = gguf.GGUFReader(tmp_path / "all.gguf").fields
    assert {key for key in theirs if not key.startswith("GGUF.")} == set(fields)
    for key, value in fields.items():
        assert value == theirs[key].contents()
    assert fields["a.u64"] == 2**63 + 1
    assert fields["a.yes"] is True


@pytest.mark.parametrize("name", QUANTISED)
def test_blocks_decode_as_the_package_decodes_them(tmp_path: Path, name: str) -> None:
    kind = GGMLQuantizationType[name]
    values = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    blocks = quantize(values, kind)
    file = written(tmp_path, {"w": (blocks, kind)})
    tensor = file.tensors["w"]
    assert (tensor.shape, tensor.type, tensor.num_bytes) == ((6, 64), name.lower(), blocks.nbytes)
    decoded = file.read(tensor)
    np.testing.assert_array_equal(decoded, dequantize(blocks, kind))
    assert np.abs(decoded - values).max() < 0.5
    np.testing.assert_array_equal(file.read(tensor, rows=(2, 5)), decoded[2:5])


@pytest.mark.parametrize("name", DECODED)
def test_blocks_of_any_bytes_decode_as_the_package_decodes_them(tmp_path: Path, name: str) -> None:
    kind = GGMLQuantizationType[name]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 2 * block_bytes), np.uint8)
    file = written(tmp_path, {"w": (blocks, kind)})
    decoded = file.read(file.tensors["w"])
    assert decoded.shape == (3, 2 * block)
    assert decoded.dtype == np.float32
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(decoded, dequantize(blocks, kind))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F32", np.float32), ("F16", np.float16), ("BF16", ml_dtypes.bfloat16), ("F64", np.float64)],
)
def test_plain_floats_are_mapped_views_of_their_own_dtype(
    tmp_path: Path, kind: str, dtype: type[Any]
) -> None:
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(dtype)
    raw = values.view(np.uint8) if kind == "BF16" else values
    raw_kind = GGMLQuantizationType[kind] if kind == "BF16" else None
    file = written(tmp_path, {"v": (np.zeros(3, np.float32), None), "w": (raw, raw_kind)})
    array = file.read(file.tensors["w"])
    assert array.dtype == values.dtype
    assert array.tobytes() == values.tobytes()
    assert not array.flags.writeable
    np.testing.assert_array_equal(file.read(file.tensors["w"], rows=(1, 2)), values[1:2])


def written(folder: Path, tensors: dict[str, tuple[np.ndarray[Any, Any], Any]]) -> GgufFile:
    writer = gguf.GGUFWriter(folder / "w.gguf", "llama")
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(folder / "w.gguf")


def test_blocks_nobody_decodes_are_refused_when_read(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.Q8_K
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    file = written(tmp_path, {"w": (np.zeros((1, block_bytes), np.uint8), kind)})
    with pytest.raises(CheckpointError, match="blocks that cannot be decoded"):
        file.read(file.tensors["w"])


def test_arrays_outlive_the_file_and_its_released_pages(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.float32)
    file = written(tmp_path, {"w": (values, None)})
    array = file.read(file.tensors["w"])
    file.release(file.tensors["w"])
    file.close()
    np.testing.assert_array_equal(array, values)
    with pytest.raises(CheckpointError, match="the checkpoint is closed"):
        file.read(file.tensors["w"])


# ---- damaged files --------------------------------------------------------------------------

HUGE = 2**60


@pytest.mark.parametrize(
    ("fields", "tensors", "options", "message"),
    [
        ([], [], {"version": 1}, "version this cannot read"),
        ([], [], {"version": 0x03000000}, "big-endian"),
        ([], [], {"counts": (HUGE, 0)}, "truncated or its header is damaged"),
        ([], [], {"counts": (0, HUGE)}, "truncated or its header is damaged"),
        ([struct.pack("<Q", HUGE) + b"key"], [], {}, "truncated or its header is damaged"),
        ([field("k", 8, struct.pack("<Q", HUGE))], [], {}, "truncated or its header is damaged"),
        ([field("k", 8, string(b"\xff\xfe"))], [], {}, "not UTF-8"),
        ([string(b"\xff") + struct.pack("<IB", 0, 1)], [], {}, "not UTF-8"),
        ([field("k", 13, b"\0" * 8)], [], {}, "unknown type"),
        ([field("k", 9, struct.pack("<IQ", 0, HUGE))], [], {}, "truncated or its header"),
        ([field("k", 9, struct.pack("<IQ", 8, HUGE))], [], {}, "truncated or its header"),
        (
            [field("k", 9, struct.pack("<IQ", 9, 1) + b"\0" * 12)],
            [],
            {},
            "elements have an unknown",
        ),
        ([field("k", 0, b"\1"), field("k", 0, b"\1")], [], {}, "occurs twice"),
        ([field("general.alignment", 4, b"\0" * 4)], [], {}, "power of two"),
        ([field("general.alignment", 4, b"\x18\0\0\0")], [], {}, "power of two"),
        ([field("general.alignment", 8, string("32"))], [], {}, "power of two"),
        ([], [tensor_entry(dims=())], {}, "wrong number of dimensions"),
        ([], [tensor_entry(dims=(1, 1, 1, 1, 1))], {}, "wrong number of dimensions"),
        ([], [tensor_entry(kind=4)], {}, "unknown block type"),
        ([], [tensor_entry(kind=99)], {}, "unknown block type"),
        ([], [tensor_entry(kind=2, dims=(33,))], {}, "no whole blocks"),
        ([], [tensor_entry(dims=(2**40, 2**40))], {}, "truncated"),
        ([], [tensor_entry(start=2**63)], {}, "truncated"),
        ([], [tensor_entry(start=4)], {}, "misplaced"),
        ([], [tensor_entry(), tensor_entry("v")], {}, "misplaced"),
        ([], [tensor_entry(), tensor_entry()], {}, "occurs twice"),
    ],
)
def test_damaged_header_is_refused_in_bounded_memory(
    tmp_path: Path,
    fields: list[bytes],
    tensors: list[bytes],
    options: dict[str, Any],
    message: str,
) -> None:
    path = file_of(tmp_path, fields, tensors, b"\0" * 64, **options)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        GgufFile(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in str(caught.value)
    assert str(caught.value.where) == str(path)
    assert peak < 1 << 20


@pytest.mark.parametrize("content", [b"", b"GGU", b"GGUF", b"PK\3\4" * 8, b"GGUF\3\0\0\0"])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a GGUF file|the file is (truncated|empty)"):
        open_checkpoint(tmp_path / "model.gguf")


def test_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 98362432\n"
    (tmp_path / "model.gguf").write_bytes(pointer)
    with pytest.raises(CheckpointError, match="git-lfs pointer"):
        open_checkpoint(tmp_path / "model.gguf")


def small_checkpoint(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    names = {"token_embd": (40, 32), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32)}
    tensors = {
        f"{name}.weight": rng.standard_normal(shape).astype(np.float32)
        for name, shape in names.items()
    }
    fields = {
        **header_fields("llama", CONFIG),
        "tokenizer.ggml.tokens": [f"t{index}" for index in range(40)],
        "tokenizer.ggml.token_type": [1] * 40,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return write_gguf(folder / "small.gguf", "llama", fields, tensors)


@pytest.mark.parametrize("keep", [10, 40, 300, 700, -1, -2000])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = small_checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="the file is truncated"):
        open_checkpoint(path)


def test_mutated_files_never_raise_anything_else(tmp_path: Path) -> None:
    good = small_checkpoint(tmp_path).read_bytes()
    header = good.index(b"blk.0.attn_k.weight") + 60
    source = random.Random(0)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(good)
        for _ in range(source.randint(1, 3)):
            damaged[source.randrange(header)] = source.choice([0, 1, 2, 8, 9, 127, 255])
        (tmp_path / "damaged.gguf").write_bytes(damaged)
        try:
            with open_checkpoint(tmp_path / "damaged.gguf") as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.read(name)
        except CheckpointError:
            refused += 1
    assert refused > 500


def test_value_types_are_all_known() -> None:
    """A new value type in the format must be met with a decision here."""
    assert {kind.value for kind in GGUFValueType} == set(range(13))
