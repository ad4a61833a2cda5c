"""A Hugging Face checkpoint folder: config.json and safetensors, one file or shards."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from qwen3_runtime.checkpoint.json_file import read_json_object
from qwen3_runtime.checkpoint.safetensors_file import SafetensorsFile
from qwen3_runtime.checkpoint.tensor import Array, TensorInfo
from qwen3_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["INDEX_FILE", "SINGLE_FILE", "FolderCheckpoint", "read_weight_map"]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_CONVERSION = (
    "import glob, torch, safetensors.torch as s; "
    'w = {k: t.clone().contiguous() for f in sorted(glob.glob("pytorch_model*.bin")) '
    'for k, t in torch.load(f, map_location="cpu", weights_only=True).items()}; '
    's.save_file(w, "model.safetensors", metadata={"format": "pt"})'
)
"""Copies each tensor, because safetensors refuses tied ones that share memory."""


class FolderCheckpoint:
    """A checkpoint of safetensors files; see ``Checkpoint`` for the interface.

    Raises:
        CheckpointError: A file is missing, damaged, or names what is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.json"
        if not os.path.isfile(self.config_path):
            raise CheckpointError(
                "the checkpoint has no config.json",
                where=path,
                hint="name the folder that holds config.json and the weights, or a .gguf file",
            )
        self.config: Mapping[str, object] = read_json_object(self.config_path)
        generation = path / "generation_config.json"
        self.generation_config: Mapping[str, object] = (
            read_json_object(generation) if os.path.isfile(generation) else {}
        )
        self._files: dict[Path, SafetensorsFile] = {}
        try:
            self.tensors: Mapping[str, TensorInfo] = self._open_files()
        except CheckpointError:
            self.close()
            raise

    def read(self, name: str) -> Array:
        """See ``Checkpoint.read``."""
        return self._file_of(name).read(name)

    def release(self, name: str) -> None:
        """See ``Checkpoint.release``."""
        self._file_of(name).release(name)

    def close(self) -> None:
        """See ``Checkpoint.close``."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _file_of(self, name: str) -> SafetensorsFile:
        if name not in self.tensors:
            raise CheckpointError("no such tensor", where=self.path, got=name)
        return self._files[self.tensors[name].file]

    def _open_files(self) -> dict[str, TensorInfo]:
        if (self.path / SINGLE_FILE).is_file():
            return dict(self._open(self.path / SINGLE_FILE).tensors)
        if (self.path / INDEX_FILE).is_file():
            return self._open_shards(read_weight_map(self.path / INDEX_FILE))
        raise _no_weights(self.path)

    def _open_shards(self, weight_map: dict[str, str]) -> dict[str, TensorInfo]:
        names = sorted(set(weight_map.values()))
        absent = [name for name in names if not os.path.isfile(self.path / name)]
        if absent:
            raise CheckpointError(
                f"{len(absent)} of {len(names)} weight files are missing",
                where=self.path / INDEX_FILE,
                got=f"no {', '.join(absent[:4])}{' ...' if len(absent) > 4 else ''}",
                hint="the download did not finish: fetch the missing files",
            )
        tensors = {}
        for tensor, file_name in weight_map.items():
            stored = self._open(self.path / file_name).tensors
            if tensor not in stored:
                raise CheckpointError(
                    f"the index places tensor '{tensor[:200]}' in {file_name}, which lacks it",
                    where=self.path / INDEX_FILE,
                )
            tensors[tensor] = stored[tensor]
        for file in self._files.values():  # what the index forgets is there all the same
            tensors.update({name: file.tensors[name] for name in file.tensors.keys() - weight_map})
        return tensors

    def _open(self, path: Path) -> SafetensorsFile:
        if path not in self._files:
            self._files[path] = SafetensorsFile(path)
        return self._files[path]


def read_weight_map(path: Path) -> dict[str, str]:
    """Reads an index: from tensor names to names of weight files beside it.

    Raises:
        CheckpointError: It is damaged, or a file name would lead out of the folder.
    """
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("the index has no weight_map", where=path)
    for name, file_name in weight_map.items():
        plain = isinstance(file_name, str) and file_name.endswith(".safetensors")
        if not plain or any(char in file_name for char in "/\\\0"):
            raise CheckpointError(
                f"the index places tensor '{name[:200]}' outside the folder's weight files",
                where=path,
                got=repr(file_name)[:200],
                expected="the plain name of a .safetensors file",
            )
    return weight_map


def _no_weights(path: Path) -> CheckpointError:
    if any(path.glob("pytorch_model*.bin")):
        return CheckpointError(
            "the weights are a pickle, which can run code when it is read; only safetensors are",
            where=path,
            got="pytorch_model*.bin",
            expected=f"{SINGLE_FILE} or {INDEX_FILE}",
            hint="convert it once (needs torch):\n"
            f"cd {shlex.quote(str(path))} && python -c {shlex.quote(_CONVERSION)}",
        )
    others = sorted(file.name for file in path.glob("*.safetensors"))
    return CheckpointError(
        "the folder has no weights",
        where=path,
        got=", ".join(others[:8]) or None,
        expected=f"{SINGLE_FILE} or {INDEX_FILE}",
        hint=f"rename the file to {SINGLE_FILE}" if len(others) == 1 else None,
    )
