"""Content-keyed folders of build results: locked while they are made, complete once they exist."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from qwen3_codegen.paths import cache_dir


def content_key(parts: Iterable[str]) -> str:
    """Returns a key of 32 hex digits that any change of any part changes."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()[:32]


def source_texts(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Returns paths and texts of the files below a folder, sorted by path.

    Vendors' headers need not be UTF-8; bytes that are not stand escaped.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    texts = (path.read_text(encoding="utf-8", errors="backslashreplace") for path in files)
    return [f"{path.relative_to(folder)}\n{text}" for path, text in zip(files, texts, strict=True)]


@contextmanager
def cache_in_use() -> Iterator[None]:
    """Keeps the cache from being cleared meanwhile; any number of processes may hold this."""
    with _whole_cache(fcntl.LOCK_SH):
        yield


@contextmanager
def cache_for_oneself() -> Iterator[None]:
    """Keeps everybody else from using the cache.

    Raises:
        BlockingIOError: Somebody uses it now.
    """
    with _whole_cache(fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _whole_cache(how: int) -> Iterator[None]:
    """The system lets go of the lock when the process ends, however it does."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / ".in-use.lock").open("a") as stream:
        fcntl.flock(stream, how)
        yield


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lets one process at a time write a folder outside the cache; the lock lies in the cache."""
    parent = cache_dir() / "locks"
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / f"{content_key([str(folder.resolve())])}.lock"):
        yield


def cached_folder(
    kind: str, key: str, make: Callable[[Path], None], *, again: bool = False
) -> Path:
    """Returns the folder of ``key``, made by ``make(folder)`` when it is not there.

    With ``again`` it is made even so, and replaces the old one when it is complete.

    ``make`` works in a temporary sibling that is renamed when it returns, so a folder in the
    cache is always complete, whatever was interrupted. Processes that want the same key wait for
    the one that makes it, and clear away what a killed one has left.
    """
    parent = cache_dir() / kind
    target = parent / key
    if target.is_dir() and not again:
        return target
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / f"{key}.lock"):
        if target.is_dir() and not again:
            return target
        for leftover in parent.glob(f".{key}.*"):
            shutil.rmtree(leftover)
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=f".{key}."))
        try:
            make(scratch)
            put_in_place(scratch, target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return target


def put_in_place(scratch: Path, target: Path) -> None:
    """Renames, which nobody can see half of; a folder with files in it must get out of the way."""
    if target.is_dir():
        old = target.with_name(f".{target.name}.old")
        target.rename(old)
        scratch.rename(target)
        shutil.rmtree(old)
    else:
        scratch.rename(target)
