"""From a path a user typed to an open checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from qwen3_runtime.checkpoint.base import Checkpoint
from qwen3_runtime.checkpoint.folder import FolderCheckpoint
from qwen3_runtime.errors import CheckpointError

__all__ = ["open_checkpoint"]


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a Hugging Face folder, a GGUF file, or a folder that holds one GGUF file.

    Reads headers only, never runs anything the checkpoint holds, and checks every offset against
    the file before using it.

    Raises:
        CheckpointError: There is no such path, or it is not a checkpoint this can read.
    """
    if os.path.isdir(path):
        return _open_folder(path)
    if not os.path.exists(path):
        raise CheckpointError(
            "no such folder or file",
            where=path,
            expected="a folder with config.json and safetensors, or a .gguf file",
        )
    if path.suffix in (".safetensors", ".json"):
        raise CheckpointError(
            "one file of a folder is not a whole checkpoint",
            where=path,
            hint=f"name the folder: {path.parent}",
        )
    return _open_gguf(path)


def _open_folder(path: Path) -> Checkpoint:
    files = sorted(path.glob("*.gguf"))
    if not files or any(path.glob("*.safetensors")):
        return FolderCheckpoint(path)
    if len(files) > 1:
        raise CheckpointError(
            "the folder holds several GGUF files",
            where=path,
            got=", ".join(file.name for file in files[:8]),
            hint="name one of them",
        )
    return _open_gguf(files[0])


def _open_gguf(path: Path) -> Checkpoint:
    from qwen3_runtime.checkpoint.gguf_checkpoint import GgufCheckpoint

    return GgufCheckpoint(path)
