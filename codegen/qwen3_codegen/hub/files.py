"""Which files of a repository a checkpoint is made of; code and pickles are never among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qwen3_codegen.errors import HubError
from qwen3_codegen.hub.model_id import ModelId
from qwen3_runtime.checkpoint.folder import INDEX_FILE, SINGLE_FILE, read_weight_map

__all__ = ["RemoteFile", "is_small", "small_files", "weight_files"]

_CONFIG = "config.json"
_SMALL = frozenset(
    {
        _CONFIG,
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    }
)
_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    num_bytes: int


def is_small(name: str) -> bool:
    """Returns whether a file is one of those around the weights."""
    path = PurePosixPath(name)
    if len(path.parts) == 2 and path.parts[0] == _TEMPLATES:
        return path.suffix == ".jinja"
    return name in _SMALL or name == INDEX_FILE


def small_files(files: Mapping[str, RemoteFile], model: ModelId) -> list[RemoteFile]:
    """Returns configuration, tokenizer and templates.

    Raises:
        HubError: The repository is no checkpoint of safetensors.
    """
    if _CONFIG not in files or not {SINGLE_FILE, INDEX_FILE} & files.keys():
        raise _no_checkpoint(files, model)
    chosen = [file for name, file in sorted(files.items()) if is_small(name)]
    # One file with all the weights makes an index beside it idle.
    return [file for file in chosen if file.name != INDEX_FILE or SINGLE_FILE not in files]


def weight_files(
    files: Mapping[str, RemoteFile], index: Callable[[], Path], model: ModelId
) -> list[RemoteFile]:
    """Returns the weights: one file, or those the index names and no other.

    Args:
        files: All of the repository.
        index: Gives the downloaded index; called where there is one.
        model: For messages.

    Raises:
        HubError: The index names what the repository does not have.
        CheckpointError: The index is damaged.
    """
    if SINGLE_FILE in files:
        return [files[SINGLE_FILE]]
    names = sorted(set(read_weight_map(index()).values()))
    absent = [name for name in names if name not in files]
    if absent:
        raise HubError(
            f"the index of '{model}' names weight files that the repository does not have",
            got=", ".join(absent[:4]),
        )
    return [files[name] for name in names]


def _no_checkpoint(files: Mapping[str, RemoteFile], model: ModelId) -> HubError:
    names = sorted(name for name in files if "/" not in name)
    hint = None
    gguf = [name for name in names if name.endswith(".gguf")]
    if gguf:
        hint = f"`hf download {model.repository} {gguf[0]} --local-dir .`, then --model {gguf[0]}"
    elif any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        hint = (
            "its weights are pickles, which can run code when they are read; they are not fetched"
        )
    return HubError(
        f"'{model}' is no checkpoint of safetensors",
        got=", ".join(names[:8]) or "no files",
        expected=f"{_CONFIG} and {SINGLE_FILE} or {INDEX_FILE}",
        hint=hint,
    )
