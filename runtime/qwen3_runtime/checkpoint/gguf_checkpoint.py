"""A GGUF file as a checkpoint in Hugging Face's names, shapes and row order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from qwen3_runtime.checkpoint.gguf_architectures import (
    ARCHITECTURES,
    GLOBAL_NAMES,
    GgufArchitecture,
)
from qwen3_runtime.checkpoint.gguf_config import config_from_header, generation_config_from_header
from qwen3_runtime.checkpoint.gguf_file import GgufFile, GgufTensor
from qwen3_runtime.checkpoint.gguf_header import GgufHeader
from qwen3_runtime.checkpoint.tensor import Array, TensorInfo
from qwen3_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GgufCheckpoint"]

_LAYER_TENSOR = re.compile(r"blk\.(0|[1-9]\d{0,5})\.(\w+)\.(weight|bias)")
_CONFIG_TENSORS = frozenset(
    {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
)
"""Tensors that the config states as numbers."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a Hugging Face tensor lies in the file and what conversion did to it."""

    tensor: GgufTensor
    expert: int | None
    num_heads: int | None
    """Heads whose rows are interleaved, None where rows are in order."""
    offset: float


class GgufCheckpoint:
    """A checkpoint in one GGUF file; see ``Checkpoint`` for the interface.

    A tensor whose name the architecture does not explain keeps its GGUF name.

    Raises:
        CheckpointError: The file is damaged, of an unknown architecture, or one of several parts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path
        self._file = GgufFile(path)
        try:
            self.fields: Mapping[str, object] = self._file.fields
            """Header fields by their GGUF names, arrays as lists."""
            name, architecture = _architecture_of(path, self.fields)
            header = GgufHeader(path, name, self.fields, self._file.tensors, self._file.read)
            self.config: Mapping[str, object] = config_from_header(header, architecture)
            self.generation_config: Mapping[str, object] = generation_config_from_header(header)
            self._sources = _named_sources(self._file, architecture, self.config)
        except CheckpointError:
            self.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = {
            name: _info(name, source, path) for name, source in self._sources.items()
        }

    def read(self, name: str) -> Array:
        """See ``Checkpoint.read``."""
        source = self._source_of(name)
        expert = source.expert
        array = self._file.read(source.tensor, None if expert is None else (expert, expert + 1))
        if expert is not None:
            array = array[0]
        if source.num_heads is not None:
            array = _halves_from_pairs(array, source.num_heads)
        if source.offset:
            with np.errstate(all="ignore"):  # a damaged file can hold anything
                array = array.astype(np.float32) - np.float32(source.offset)
        return array

    def release(self, name: str) -> None:
        """See ``Checkpoint.release``."""
        self._file.release(self._source_of(name).tensor)

    def close(self) -> None:
        """See ``Checkpoint.close``."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _source_of(self, name: str) -> _Source:
        if name not in self._sources:
            raise CheckpointError("no such tensor", where=self.path, got=name)
        return self._sources[name]


def _architecture_of(path: Path, fields: Mapping[str, object]) -> tuple[str, GgufArchitecture]:
    name = fields.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise CheckpointError(
            "a GGUF architecture this cannot read",
            where=path,
            got=repr(name)[:80],
            expected=", ".join(ARCHITECTURES),
            hint="use the model's safetensors checkpoint",
        )
    if fields.get("split.count") not in (None, 0, 1):
        raise CheckpointError(
            "the model is split over several files",
            where=path,
            got=f"{fields['split.count']} parts",
            hint="join them first: llama-gguf-split --merge FIRST_PART OUTPUT",
        )
    return name, ARCHITECTURES[name]


def _named_sources(
    file: GgufFile, architecture: GgufArchitecture, config: Mapping[str, object]
) -> dict[str, _Source]:
    sources: dict[str, _Source] = {}
    for name, source in _sources(file, architecture, config):
        if name in sources:
            raise CheckpointError(
                f"two tensors of the file are both '{name[:200]}'",
                where=file.path,
                got=f"{sources[name].tensor.name[:200]}, {source.tensor.name[:200]}",
            )
        sources[name] = source
    return sources


def _sources(
    file: GgufFile, architecture: GgufArchitecture, config: Mapping[str, object]
) -> Iterator[tuple[str, _Source]]:
    for tensor in file.tensors.values():
        if tensor.name in _CONFIG_TENSORS:
            continue
        if match := _LAYER_TENSOR.fullmatch(tensor.name):
            yield from _layer_sources(tensor, match, architecture, config)
        else:
            stem, _, suffix = tensor.name.rpartition(".")
            name = GLOBAL_NAMES.get(stem)
            offset = architecture.norm_offset if stem == "output_norm" else 0.0
            yield f"{name}.{suffix}" if name else tensor.name, _Source(tensor, None, None, offset)


def _layer_sources(
    tensor: GgufTensor,
    match: re.Match[str],
    architecture: GgufArchitecture,
    config: Mapping[str, object],
) -> Iterator[tuple[str, _Source]]:
    layer, stem, suffix = match.groups()
    prefix = f"model.layers.{int(layer)}"
    if stem in architecture.expert_names and len(tensor.shape) == 3:
        path = architecture.expert_names[stem]
        if tensor.num_bytes < tensor.shape[0]:  # else a name for each would need no file behind it
            raise CheckpointError(
                f"tensor '{tensor.name}' has experts without weights", got=tensor.shape
            )
        for expert in range(tensor.shape[0]):
            name = f"{prefix}.{path.replace('{expert}', str(expert))}.{suffix}"
            yield name, _Source(tensor, expert, None, 0.0)
        return
    if stem not in architecture.layer_names:
        yield tensor.name, _Source(tensor, None, None, 0.0)
        return
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    num_heads = config[heads[stem]] if architecture.permutes_qk and stem in heads else None
    assert num_heads is None or isinstance(num_heads, int)
    if num_heads is not None and tensor.shape[0] % (2 * num_heads):
        raise CheckpointError(
            f"tensor '{tensor.name}' does not split into heads",
            got=tensor.shape,
            expected=f"rows of {num_heads} heads",
        )
    offset = architecture.norm_offset if stem.endswith("norm") else 0.0
    name = f"{prefix}.{architecture.layer_names[stem]}.{suffix}"
    yield name, _Source(tensor, None, num_heads, offset)


def _info(name: str, source: _Source, path: Path) -> TensorInfo:
    tensor = source.tensor
    plain = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    shape, num_bytes = tensor.shape, tensor.num_bytes
    if source.expert is not None:
        shape, num_bytes = shape[1:], num_bytes // shape[0]
    return TensorInfo(
        name=name,
        shape=shape,
        dtype=plain.get(tensor.type, tensor.type),
        num_bytes=num_bytes,
        file=path,
    )


def _halves_from_pairs(array: Array, num_heads: int) -> Array:
    """Undoes the converter's reordering of each head's rows from half-split to interleaved."""
    pairs = array.reshape(num_heads, array.shape[0] // num_heads // 2, 2, *array.shape[1:])
    halves: Array = pairs.swapaxes(1, 2).reshape(array.shape)
    return halves
