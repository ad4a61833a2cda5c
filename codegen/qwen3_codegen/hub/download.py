"""Files of a repository into Hugging Face's own cache, weights in pieces that survive a stop.

huggingface_hub throws an unfinished file away when its process ends, which for some gigabytes of
weights is too much to lose. They are fetched into ``blobs/ETAG.incomplete`` here, and a later run
goes on where this one stopped.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock

from qwen3_codegen.errors import HubError
from qwen3_codegen.hub.files import RemoteFile, is_small
from qwen3_codegen.hub.model_id import ModelId
from qwen3_codegen.progress import format_bytes

__all__ = ["Advance", "Repository"]

Advance = Callable[[int], None]
"""Told how many more bytes are there."""

_ETAG = re.compile(r"[0-9A-Za-z_-]{8,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE = 1 << 20


class Repository:
    """One commit of a model on the hub, and its place in the cache."""

    def __init__(self, model: ModelId, commit: str) -> None:
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.file_download import repo_folder_name

        self._model = model
        self._commit = commit
        name = repo_folder_name(repo_id=model.repository, repo_type="model")
        self._folder = Path(HF_HUB_CACHE) / name

    def cached(self, name: str) -> Path | None:
        """Returns a file's path in the cache when it is there."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self._model.repository, name, revision=self._commit)
        return Path(found) if isinstance(found, str) else None

    def fetch(self, file: RemoteFile, advance: Advance = lambda num_bytes: None) -> Path:
        """Returns a file's path in the cache, downloading what is missing of it.

        Raises:
            HubError: What came is not what the hub announced.
        """
        there = self.cached(file.name)
        if there is not None:
            return there
        if not is_small(file.name):
            self._fetch_blob(file, advance)
        return self._link(file.name)

    def remember(self, revision: str) -> None:
        """Notes in the cache which commit a branch or tag is, for days without a network.

        Done last: a revision that the cache knows is one that it has.
        """
        reference = self._folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        temporary = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
        temporary.write_text(self._commit, encoding="ascii")
        os.replace(temporary, reference)

    def require_room(self, files: Iterable[RemoteFile]) -> None:
        """Raises HubError when the disk cannot hold these files."""
        begun = sum(file.stat().st_size for file in self._folder.glob("blobs/*.incomplete"))
        needed = max(0, sum(file.num_bytes for file in files) - begun)
        there = next(path for path in self._folder.parents if path.is_dir())
        free = shutil.disk_usage(there).free
        if needed > free:
            raise HubError(
                f"'{self._model}' does not fit the disk",
                where=self._folder.parent,
                got=f"{format_bytes(free)} free",
                expected=format_bytes(needed),
                hint="set HF_HOME to a folder on a larger disk",
            )

    def _link(self, name: str) -> Path:
        """Lets the library put a file in its place; it downloads nothing it has a blob of."""
        from huggingface_hub import hf_hub_download

        with _quiet():
            return Path(hf_hub_download(self._model.repository, name, revision=self._commit))

    def _fetch_blob(self, file: RemoteFile, advance: Advance) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self._model.repository, file.name, revision=self._commit)
        metadata = get_hf_file_metadata(url)
        etag, size = metadata.etag, metadata.size
        if etag is None or size is None or not _ETAG.fullmatch(etag):
            raise HubError("the hub does not say what a file is", where=url, got=f"etag {etag!r}")
        blob = self._folder / "blobs" / etag
        # The library's own lock, so that its other users wait instead of downloading it, too.
        lock = self._folder.parent / ".locks" / self._folder.name / f"{etag}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        incomplete = blob.with_name(f"{etag}.incomplete")
        with FileLock(lock):
            if not blob.is_file():
                _fill(incomplete, url, size, advance)
                _check(incomplete, url, etag)
                incomplete.rename(blob)


def _fill(incomplete: Path, url: str, size: int, advance: Advance) -> None:
    """Downloads what a file lacks; with all of it there, nothing."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if incomplete.exists() and incomplete.stat().st_size > size:
        incomplete.unlink()
    with incomplete.open("ab") as file:
        start = file.tell()
        advance(start)
        counted = cast(BinaryIO, _Counted(file, advance))
        with _quiet():
            http_get(
                url, counted, resume_size=start, headers=build_hf_headers(), expected_size=size
            )


class _Counted:
    """A file that tells how many bytes are written to it, or taken back."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def write(self, data: bytes) -> int:
        self._advance(len(data))
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def truncate(self) -> int:
        """Called where a server does not go on in the middle but starts again."""
        kept = self._file.tell()
        thrown_away = self._file.seek(0, os.SEEK_END) - kept
        self._file.seek(kept)
        self._advance(-thrown_away)
        return self._file.truncate()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library from drawing bars of its own; ours counts all files together."""
    from huggingface_hub import utils

    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _check(incomplete: Path, url: str, etag: str) -> None:
    """Compares with the SHA-256 that names the large files of the hub."""
    if not _SHA256.fullmatch(etag):
        return
    digest = hashlib.sha256()
    with incomplete.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest() != etag:
        incomplete.unlink()
        raise HubError(
            "a file arrived damaged and was thrown away",
            where=url,
            got=f"sha256 {digest.hexdigest()}",
            expected=f"sha256 {etag}",
            hint="run the same command again",
        )
