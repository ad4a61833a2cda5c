"""From what a user calls a model to a folder or file that lies here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.errors import CodegenError, HubError
from qwen3_codegen.hub.download import Repository
from qwen3_codegen.hub.failures import Unreachable, hub_failures, not_cached
from qwen3_codegen.hub.files import RemoteFile, small_files, weight_files
from qwen3_codegen.hub.model_id import ModelId, is_commit, model_id_of
from qwen3_codegen.progress import format_bytes, say
from qwen3_codegen.spec.catalog import model_names
from qwen3_codegen.spec.near_names import nearest_model
from qwen3_runtime.checkpoint import progress_bar
from qwen3_runtime.checkpoint.folder import INDEX_FILE, SINGLE_FILE, read_weight_map
from qwen3_runtime.errors import CheckpointError

__all__ = ["LocatedCheckpoint", "locate_checkpoint"]

_CONFIG = "config.json"
_EXPECTED = (
    "a folder with config.json and safetensors, a .gguf file, or a model on the hub "
    "(organisation/name)"
)
_SECONDS = 10.0
"""How long the hub may take to answer a question."""


@dataclass(frozen=True, slots=True)
class LocatedCheckpoint:
    """Where a checkpoint lies."""

    path: Path
    name: str | None = None
    """The model's name where the folder's is a commit; None leaves it to the folder."""


def locate_checkpoint(model: str | Path, *, show_progress: bool = True) -> LocatedCheckpoint:
    """Returns where a checkpoint lies, downloading it first where it is a model on the hub.

    What exists is taken as a path. ``organisation/name`` and ``organisation/name@revision`` are
    ids otherwise. Downloads go to Hugging Face's cache (HF_HOME), come from HF_ENDPOINT, and go on
    where an earlier one stopped. With HF_HUB_OFFLINE, or when the hub does not answer, what the
    cache has is taken.

    Args:
        model: Path or hub id.
        show_progress: Says on standard error what is done, and draws a bar on a terminal.

    Raises:
        HubError: The hub has no such model, or does not give it, or cannot be reached.
        CodegenError: A path leads nowhere.
    """
    model_id = model_id_of(model) if isinstance(model, str) else None
    if model_id is not None:
        return LocatedCheckpoint(_snapshot(model_id, show_progress), model_id.name)
    if str(model).endswith((".yaml", ".yml")):
        raise CodegenError(
            "a model spec has no weights", where=model, expected=_EXPECTED, hint=_makes_some(model)
        )
    if not os.path.exists(model):
        raise _nothing_there(str(model))
    return LocatedCheckpoint(Path(model))


def _nothing_there(model: str) -> CodegenError:
    if model in model_names():
        hint: str | None = f"{model} is a spec, which has no weights; {_makes_some(model)}"
    else:
        hint = nearest_model(model, model_names())
    return CodegenError(
        "no such folder or file",
        where=model,
        expected=_EXPECTED,
        hint=hint,
    )


def _makes_some(spec: str | Path) -> str:
    return f"`qwen3-codegen random --spec {spec} -o FOLDER` makes some"


def _snapshot(model: ModelId, show_progress: bool) -> Path:
    there = _complete_in_cache(model)
    if there is not None and model.is_commit:
        return there
    try:
        commit, files = _ask(model)
    except Unreachable as error:
        if there is None:
            raise not_cached(model, error) from error
        if show_progress and not _is_offline():
            say(f"note: {error.message}; what was downloaded before is taken")
        return there
    with hub_failures(model):
        return _download(model, Repository(model, commit), files, show_progress)


def _complete_in_cache(model: ModelId) -> Path | None:
    """Returns the folder of a revision in the cache when nothing that is needed lacks there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model.repository, _CONFIG, revision=model.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    if (folder / SINGLE_FILE).is_file():
        return folder
    try:
        names = set(read_weight_map(folder / INDEX_FILE).values())
    except CheckpointError:
        return None
    return folder if all((folder / name).is_file() for name in names) else None


def _ask(model: ModelId) -> tuple[str, Mapping[str, RemoteFile]]:
    """Asks the hub which commit a revision is, and for the files of that commit."""
    from huggingface_hub import HfApi

    with hub_failures(model):
        info = HfApi().model_info(
            model.repository, revision=model.revision, timeout=_SECONDS, files_metadata=True
        )
    if info.sha is None or not is_commit(info.sha):
        raise HubError(f"the hub does not say which commit '{model}' is", got=repr(info.sha))
    files = {
        file.rfilename: RemoteFile(file.rfilename, file.size or 0) for file in info.siblings or ()
    }
    return info.sha, files


def _download(
    model: ModelId, repository: Repository, files: Mapping[str, RemoteFile], show_progress: bool
) -> Path:
    """Brings into the cache what is missing there and returns the folder of the commit."""
    paths = {file.name: repository.fetch(file) for file in small_files(files, model)}
    weights = weight_files(files, lambda: paths[INDEX_FILE], model)
    missing = [file for file in weights if repository.cached(file.name) is None]
    if missing:
        repository.require_room(missing)
        _fetch_weights(model, repository, missing, show_progress)
    if not model.is_commit:
        repository.remember(model.revision)
    return paths[_CONFIG].parent


def _fetch_weights(
    model: ModelId, repository: Repository, files: Sequence[RemoteFile], show_progress: bool
) -> None:
    """Downloads one file after the other with one bar for all."""
    total = sum(file.num_bytes for file in files)
    if not show_progress:
        for file in files:
            repository.fetch(file)
        return
    say(f"downloading {model}: {format_bytes(total)} of weights in {len(files)} files")
    done = Counter[str]()
    with progress_bar(f"Downloading {model.name}") as report:
        for file in files:

            def advance(num_bytes: int, name: str = file.name) -> None:
                done[name] += num_bytes
                report(done.total(), total, name)

            repository.fetch(file, advance)


def _is_offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)
