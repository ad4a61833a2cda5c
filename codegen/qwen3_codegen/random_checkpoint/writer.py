"""Writes a random checkpoint tensor by tensor, so that no model needs to fit in memory."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, BinaryIO, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.frontend.build_graph import build_graph
from qwen3_codegen.model_size import CheckpointTensor, checkpoint_tensors
from qwen3_codegen.random_checkpoint.distributions import Distribution, weight_distributions
from qwen3_codegen.spec.export import config_json
from qwen3_codegen.spec.model import ModelSpec

__all__ = ["Progress", "write_random_checkpoint"]

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all and the tensor's name."""

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_CHUNK = 1 << 20
"""Elements drawn at once."""
_NUM_QUANTILES = 1 << 16
_STORED: dict[DType, tuple[str, Any]] = {
    DType.F32: ("F32", np.float32),
    DType.BF16: ("BF16", ml_dtypes.bfloat16),
    DType.F16: ("F16", np.float16),
}


def write_random_checkpoint(
    spec: ModelSpec,
    directory: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    replace: bool = False,
) -> int:
    """Writes ``config.json`` and ``model.safetensors`` of a model with random weights.

    The same spec and seed give the same bytes; a tensor's values depend on its name and shape, not
    on the tensors around it. The folder appears whole or not at all.

    Args:
        spec: The model; its dtype is the checkpoint's.
        directory: The folder to make; must not exist, or be empty.
        seed: Of every draw.
        progress: Told after each chunk.
        replace: Takes the place of a folder that holds such a checkpoint and nothing else.

    Returns:
        Bytes of the weights.

    Raises:
        CodegenError: The folder holds something, or the disk has no room.
        SpecError: The architecture's statements do not fit these sizes.
    """
    graph = build_graph(spec)
    tensors = list(checkpoint_tensors(graph))
    total = sum(_num_bytes(tensor, spec.dtype) for tensor in tensors)
    _check_target(directory, total, replace)
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        os.chmod(partial, 0o755)
        text = json.dumps(config_json(spec), indent=2) + "\n"
        (partial / _CONFIG).write_text(text, encoding="utf-8")
        with (partial / _WEIGHTS).open("wb") as stream:
            writer = _Writer(stream, spec.dtype, seed, progress or (lambda *_: None), total)
            writer.write(tensors, weight_distributions(graph))
        _put_in_place(partial, directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return total


def _num_bytes(tensor: CheckpointTensor, dtype: DType) -> int:
    return math.prod(tensor.shape) * dtype.size


def _check_target(directory: Path, total: int, replace: bool) -> None:
    inside = {path.name for path in directory.iterdir()} if directory.is_dir() else None
    replaceable = bool(inside) and {_CONFIG, _WEIGHTS}.issuperset(inside or ())
    is_free = not directory.exists() or inside == set()
    if not is_free and not (replace and replaceable):
        raise CodegenError(
            "the folder exists and is not empty",
            where=directory,
            hint=f"name another, or {'--force replaces' if replaceable else 'remove'} this one",
        )
    existing = next(parent for parent in directory.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if total > free:
        raise CodegenError(
            "not enough disk space for the checkpoint",
            where=directory,
            got=f"{free:,} bytes free",
            expected=f"{total:,} bytes",
        )


def _put_in_place(partial: Path, directory: Path) -> None:
    """Renames; a folder with files in it must get out of the way."""
    if directory.is_dir() and any(directory.iterdir()):
        old = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        os.replace(directory, old)
        os.replace(partial, directory)
        shutil.rmtree(old)
    else:
        os.replace(partial, directory)


class _Writer:
    def __init__(
        self, stream: BinaryIO, dtype: DType, seed: int, progress: Progress, total: int
    ) -> None:
        self._stream = stream
        self._tag, self._numpy_dtype = _STORED[dtype]
        self._dtype = dtype
        self._seed = seed
        self._progress = progress
        self._total = total
        self._done = 0

    def write(
        self, tensors: Sequence[CheckpointTensor], distributions: dict[str, Distribution]
    ) -> None:
        self._stream.write(self._header(tensors))
        for tensor in tensors:
            self._draw(tensor, distributions[tensor.template])

    def _header(self, tensors: Sequence[CheckpointTensor]) -> bytes:
        """The safetensors header: its length, then JSON padded to a multiple of eight."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor in tensors:
            end = offset + _num_bytes(tensor, self._dtype)
            entries[tensor.name] = {
                "dtype": self._tag,
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    def _draw(self, tensor: CheckpointTensor, distribution: Distribution) -> None:
        """Draws each element as one of the distribution's 65536 quantiles, at 2 ns apiece."""
        rng = np.random.Generator(np.random.PCG64([self._seed, *tensor.name.encode()]))
        quantiles = _quantiles(distribution).astype(self._numpy_dtype)
        left = math.prod(tensor.shape)
        while left:
            count = min(left, _CHUNK)
            chosen = rng.integers(_NUM_QUANTILES, size=count, dtype=np.uint16)
            values = quantiles[chosen]
            self._stream.write(values.tobytes())
            left -= count
            self._done += values.nbytes
            self._progress(self._done, self._total, tensor.name)


def _quantiles(distribution: Distribution) -> npt.NDArray[np.float64]:
    standard = _standard_quantiles(distribution.is_uniform)
    return standard * distribution.spread + distribution.mean


@lru_cache(maxsize=2)
def _standard_quantiles(is_uniform: bool) -> npt.NDArray[np.float64]:
    middles = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    if is_uniform:
        return middles * 2 - 1
    normal = NormalDist()
    return np.array([normal.inv_cdf(middle) for middle in middles.tolist()])
