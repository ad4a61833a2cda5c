"""One safetensors file: its header checked in full, its tensors as memory-mapped views.

Source of the format: https://huggingface.co/docs/safetensors. Eight bytes give the header's length
(little endian), the header is a JSON object of name -> {dtype, shape, data_offsets}, the rest is
the tensors' bytes, each byte belonging to exactly one tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from qwen3_runtime.checkpoint.json_file import parse_json_object
from qwen3_runtime.checkpoint.mapped_file import MappedFile
from qwen3_runtime.checkpoint.tensor import SAFETENSORS_DTYPES, Array, TensorInfo
from qwen3_runtime.errors import CheckpointError

__all__ = ["SafetensorsFile"]

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


@dataclass(frozen=True, slots=True)
class _Entry:
    info: TensorInfo
    code: str
    start: int
    stop: int


class SafetensorsFile:
    """A safetensors file, open until ``close``.

    Raises:
        CheckpointError: The file is missing, truncated, a git-lfs pointer, or its header is not
            what the format demands.
    """

    def __init__(self, path: Path) -> None:
        self._file = MappedFile(path)
        try:
            self._entries = _read_header(self._file)
        except CheckpointError:
            self._file.close()
            raise
        self.tensors = {name: entry.info for name, entry in self._entries.items()}

    def read(self, name: str) -> Array:
        """Returns a read-only view of a tensor that is in ``tensors``."""
        entry = self._entries[name]
        return self._file.array_at(entry.start, SAFETENSORS_DTYPES[entry.code], entry.info.shape)

    def release(self, name: str) -> None:
        """Drops the tensor's pages from memory."""
        entry = self._entries[name]
        self._file.release(entry.start, entry.stop)

    def close(self) -> None:
        """Closes the file; arrays already read stay valid."""
        self._file.close()


def _read_header(file: MappedFile) -> dict[str, _Entry]:
    path = file.path
    if file.num_bytes < _LENGTH_BYTES:
        raise _truncated(file, "at least 8 bytes")
    length = int.from_bytes(file.bytes_at(0, _LENGTH_BYTES), "little")
    if length > _MAX_HEADER_BYTES:
        raise CheckpointError(
            "not a safetensors file, or its first bytes are damaged",
            where=path,
            got=f"a header of {length} bytes",
            expected=f"at most {_MAX_HEADER_BYTES}",
        )
    data_start = _LENGTH_BYTES + length
    if data_start > file.num_bytes:
        raise _truncated(file, f"a header up to byte {data_start}")
    header = parse_json_object(file.bytes_at(_LENGTH_BYTES, data_start), f"{path} (header)")
    header.pop("__metadata__", None)
    entries = {name: _read_entry(path, name, obj, data_start) for name, obj in header.items()}
    _check_coverage(file, entries, data_start)
    return entries


def _truncated(file: MappedFile, expected: str) -> CheckpointError:
    return CheckpointError(
        "the file is truncated",
        where=file.path,
        got=f"{file.num_bytes} bytes",
        expected=expected,
        hint="the download or copy did not finish: fetch the file again",
    )


def _read_entry(path: Path, name: str, obj: object, data_start: int) -> _Entry:
    if not isinstance(obj, dict) or not obj.keys() >= {"dtype", "shape", "data_offsets"}:
        raise _bad_entry(path, name, obj, "an object with dtype, shape and data_offsets")
    code, shape, offsets = obj["dtype"], obj["shape"], obj["data_offsets"]
    if not isinstance(code, str) or code not in SAFETENSORS_DTYPES:
        raise _bad_entry(path, name, code, f"a dtype of {', '.join(SAFETENSORS_DTYPES)}")
    if not _is_sizes(shape) or len(shape) > 64:
        raise _bad_entry(path, name, shape, "a shape of non-negative integers")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise _bad_entry(path, name, offsets, "data_offsets of two non-negative integers")
    start, stop = offsets
    dtype = SAFETENSORS_DTYPES[code]
    num_bytes = math.prod(shape) * dtype.itemsize
    if stop - start != num_bytes:
        raise _bad_entry(
            path, name, f"data_offsets {offsets}", f"{num_bytes} bytes for {code} {shape}"
        )
    info = TensorInfo(
        name=name, shape=tuple(shape), dtype=dtype.name, num_bytes=num_bytes, file=path
    )
    return _Entry(info, code, data_start + start, data_start + stop)


def _bad_entry(path: Path, name: str, got: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"header entry of tensor '{name[:200]}' is damaged",
        where=path,
        got=repr(got)[:200],
        expected=expected,
    )


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_coverage(file: MappedFile, entries: dict[str, _Entry], data_start: int) -> None:
    """Refuses tensors that overlap, leave holes, or end elsewhere than the file."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            fault = "overlaps another" if entry.start < position else "follows a hole"
            raise CheckpointError(
                f"tensor '{name[:200]}' {fault}",
                where=file.path,
                got=f"start at byte {entry.start}",
                expected=f"start at byte {position}",
            )
        position = entry.stop
    if position > file.num_bytes:
        raise _truncated(file, f"{position} bytes")
    if position < file.num_bytes:
        raise CheckpointError(
            "bytes at the end of the file belong to no tensor",
            where=file.path,
            got=f"{file.num_bytes} bytes",
            expected=f"{position} bytes",
        )
