"""One GGUF file: header fields and tensors, every length checked against the file before use.

Source of the format: ggml's docs/gguf.md. Block types and their decoding are the gguf package's;
its reader is not used, because it trusts the lengths a file states.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from qwen3_runtime.checkpoint.mapped_file import MappedFile
from qwen3_runtime.checkpoint.tensor import SAFETENSORS_DTYPES, Array
from qwen3_runtime.errors import CheckpointError

__all__ = ["GgufFile", "GgufTensor"]

_SCALARS: dict[int, str] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""GGUF's value types that ``struct`` reads, by their number."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_MIN_FIELD_BYTES, _MIN_TENSOR_BYTES = 13, 24


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as a GGUF file stores it."""

    name: str
    """The file's own name, such as ``blk.0.attn_q.weight``."""
    shape: tuple[int, ...]
    """Slowest axis first, as NumPy counts; the file has it the other way round."""
    type: str
    """Block type in lower case, such as ``q4_1`` or ``f32``."""
    start: int
    """First byte in the file."""
    num_bytes: int
    """Bytes in the file."""


class GgufFile:
    """A GGUF file, open until ``close``.

    Raises:
        CheckpointError: The file is missing, truncated, a git-lfs pointer, or not what the format
            demands.
    """

    def __init__(self, path: Path) -> None:
        self._file = MappedFile(path)
        self.path = path
        try:
            cursor = _Cursor(self._file)
            num_tensors, num_fields = _read_preamble(cursor)
            self.fields = _read_fields(cursor, num_fields)
            """Header fields; an array is a list."""
            self.tensors = _read_tensors(cursor, num_tensors, _alignment(self.fields, path))
            """Tensors by the file's own names."""
        except CheckpointError:
            self._file.close()
            raise

    def read(self, tensor: GgufTensor, rows: tuple[int, int] | None = None) -> Array:
        """Decodes a tensor.

        Args:
            tensor: One of ``tensors``.
            rows: Start and stop on axis 0, None for all of it.

        Returns:
            A mapped float32, float16 or bfloat16 view where the file stores such numbers, else
            float32 decoded from blocks.

        Raises:
            CheckpointError: The block type cannot be decoded.
        """
        start, shape, num_bytes = tensor.start, tensor.shape, tensor.num_bytes
        if rows is not None:
            row_bytes = num_bytes // max(shape[0], 1)
            start, num_bytes = start + rows[0] * row_bytes, (rows[1] - rows[0]) * row_bytes
            shape = (rows[1] - rows[0], *shape[1:])
        if tensor.type.upper() in ("F64", "F32", "F16", "BF16"):
            return self._file.array_at(start, SAFETENSORS_DTYPES[tensor.type.upper()], shape)
        blocks = self._file.array_at(start, np.dtype(np.uint8), (num_bytes,))
        num_rows = math.prod(shape[:-1])
        try:
            with np.errstate(all="ignore"):
                values: Array = dequantize(
                    blocks.reshape(num_rows, num_bytes // max(num_rows, 1)),
                    GGMLQuantizationType[tensor.type.upper()],
                ).reshape(shape)
        except (NotImplementedError, ValueError, OverflowError, IndexError, KeyError) as error:
            raise CheckpointError(
                f"tensor '{tensor.name}' is stored in blocks that cannot be decoded",
                where=self.path,
                got=f"{tensor.type} ({error})",
            ) from None
        return values.astype(np.float32, copy=False)

    def release(self, tensor: GgufTensor) -> None:
        """Drops the tensor's pages from memory."""
        self._file.release(tensor.start, tensor.start + tensor.num_bytes)

    def close(self) -> None:
        """Closes the file; arrays already read stay valid."""
        self._file.close()


class _Cursor:
    """Reads little-endian values one after the other and never beyond the file."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.position = 0

    def take(self, num_bytes: int) -> bytes:
        self.require(num_bytes, 1)
        start, self.position = self.position, self.position + num_bytes
        return self.file.bytes_at(start, self.position)

    def require(self, count: int, size: int) -> None:
        """Refuses a count of things that could not all be in the rest of the file."""
        if count * size > self.file.num_bytes - self.position:
            raise CheckpointError(
                "the file is truncated or its header is damaged",
                where=self.file.path,
                got=f"{self.file.num_bytes} bytes",
                expected=f"{count} x {size} bytes more from byte {self.position}",
                hint="fetch the file again",
            )

    def scalar(self, code: str) -> Any:
        layout = struct.Struct(f"<{code}")
        return layout.unpack(self.take(layout.size))[0]

    def string(self) -> str:
        raw = self.take(self.scalar("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.damaged("a string is not UTF-8", repr(raw[:40]))

    def array(self) -> list[Any]:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == _STRING:
            return [self.string() for _ in range(count)]
        if kind not in _SCALARS:
            self.damaged("an array's elements have an unknown type", kind)
        size = struct.calcsize(f"<{_SCALARS[kind]}")
        dtype = np.dtype(np.bool_ if _SCALARS[kind] == "?" else f"<{_SCALARS[kind]}")
        values: list[Any] = np.frombuffer(self.take(count * size), dtype).tolist()
        return values

    def value(self) -> object:
        kind = self.scalar("I")
        readers: dict[int, Callable[[], object]] = {_STRING: self.string, _ARRAY: self.array}
        if kind in readers:
            return readers[kind]()
        if kind not in _SCALARS:
            self.damaged("a header field has an unknown type", kind)
        return self.scalar(_SCALARS[kind])

    def damaged(self, what: str, got: object, expected: object = None) -> NoReturn:
        raise CheckpointError(
            f"the GGUF header is damaged near byte {self.position}: {what}",
            where=self.file.path,
            got=got,
            expected=expected,
        )


def _read_preamble(cursor: _Cursor) -> tuple[int, int]:
    """Returns the numbers of tensors and header fields."""
    magic = cursor.file.bytes_at(0, 4)
    if magic != b"GGUF":
        raise CheckpointError(
            "not a GGUF file",
            where=cursor.file.path,
            got=repr(magic),
            expected="a folder with config.json and safetensors, or a file that starts with GGUF",
        )
    cursor.position = 4
    version = cursor.scalar("I")
    if version not in _VERSIONS:
        raise CheckpointError(
            "a GGUF version this cannot read",
            where=cursor.file.path,
            got="big-endian" if version & 0xFFFF == 0 else version,
            expected=f"little-endian, version {' or '.join(map(str, _VERSIONS))}",
            hint="convert the model again with a current converter",
        )
    num_tensors, num_fields = cursor.scalar("Q"), cursor.scalar("Q")
    cursor.require(num_tensors, _MIN_TENSOR_BYTES)
    cursor.require(num_fields, _MIN_FIELD_BYTES)
    return num_tensors, num_fields


def _read_fields(cursor: _Cursor, count: int) -> dict[str, object]:
    fields: dict[str, object] = {}
    for _ in range(count):
        key = cursor.string()
        if key in fields:
            cursor.damaged("a field occurs twice", key[:200])
        fields[key] = cursor.value()
    return fields


def _alignment(fields: dict[str, object], path: Path) -> int:
    alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise CheckpointError(
            "general.alignment is damaged", where=path, got=alignment, expected="a power of two"
        )
    return alignment


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for _ in range(count):
        tensor = _read_tensor(cursor)
        if tensor.name in tensors:
            cursor.damaged("a tensor occurs twice", tensor.name[:200])
        tensors[tensor.name] = tensor
    data_start = -(-cursor.position // alignment) * alignment
    placed = {
        name: GgufTensor(name, t.shape, t.type, data_start + t.start, t.num_bytes)
        for name, t in tensors.items()
    }
    _check_placement(cursor, list(placed.values()), data_start, alignment)
    return placed


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    """Reads one entry; its ``start`` still counts from the data section."""
    name = cursor.string()
    num_dimensions = cursor.scalar("I")
    if not 0 < num_dimensions <= _MAX_DIMENSIONS:
        cursor.damaged(
            f"tensor '{name[:200]}' has a wrong number of dimensions",
            num_dimensions,
            f"1 to {_MAX_DIMENSIONS}",
        )
    shape = tuple(reversed([cursor.scalar("Q") for _ in range(num_dimensions)]))
    number, start = cursor.scalar("I"), cursor.scalar("Q")
    try:
        kind = GGMLQuantizationType(number)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        cursor.damaged(f"tensor '{name[:200]}' has an unknown block type", number)
    if shape[-1] % block:
        cursor.damaged(f"rows of tensor '{name[:200]}' are no whole blocks", shape[-1], block)
    num_bytes = math.prod(shape) // block * block_bytes
    return GgufTensor(name, shape, kind.name.lower(), start, num_bytes)


def _check_placement(
    cursor: _Cursor, tensors: Sequence[GgufTensor], data_start: int, alignment: int
) -> None:
    """Refuses tensors that overlap, are not aligned, or reach beyond the file."""
    end, previous = data_start, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.num_bytes)):
        if (tensor.start - data_start) % alignment or tensor.start < end:
            cursor.damaged(
                f"tensor '{tensor.name[:200]}' is misplaced",
                tensor.start,
                f"after {previous[:200]}",
            )
        cursor.position = tensor.start
        cursor.require(1, tensor.num_bytes)
        end, previous = tensor.start + tensor.num_bytes, tensor.name
