"""What lies in the cache folder: listing it, and clearing it while nobody works there."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from qwen3_codegen.build.cache import cache_for_oneself
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.paths import cache_dir
from qwen3_codegen.spec.device import device_title
from qwen3_runtime.engine.manifest import MANIFEST_FILE, TRACED_KEY
from qwen3_runtime.engine.native_module import BUILD_RECORD
from qwen3_runtime.errors import printable

__all__ = ["KINDS", "CacheEntry", "cache_entries", "clear_cache"]

KINDS = {
    "runtime": "shared runtimes, one per compiler and instruction set",
    "engines": "compiled engines",
    "models": "engines of --model, ready to import",
    "infinicore": "InfiniCore installations",
}
"""Folders of the cache, and what is in them."""

_KEYED = ("runtime", "engines", "models")
_KEY = re.compile(r"[0-9a-f]{32}")
_LEFTOVER = re.compile(r"\.[0-9a-f]{32}\..+")
"""What an interrupted process has left of a folder it was making or clearing."""
_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One folder of the cache."""

    kind: str
    name: str
    """What it is to a person: of an engine what it was compiled from, a version, else the key."""
    path: Path
    num_bytes: int
    """On disk, each hard link counted once."""
    made: float
    """When it was last written, in seconds since the epoch."""


def cache_entries() -> list[CacheEntry]:
    """Returns the entries of the cache, by kind and name; other files there are not ours."""
    entries = [
        CacheEntry(kind, _name(kind, path), path, *_size_and_age(path))
        for kind in KINDS
        for path in _folders(kind)
    ]
    return sorted(
        entries, key=lambda entry: (list(KINDS).index(entry.kind), entry.name, entry.path)
    )


def clear_cache(older_than_days: float | None = None) -> list[CacheEntry]:
    """Deletes the entries of the cache and returns them.

    All locks of the cache are held meanwhile, so nothing goes that a build is using or making, and
    one that is begun now waits. The empty lock files stay, for a process may be waiting for one.

    Args:
        older_than_days: Spare what was written later than so many days ago.

    Raises:
        CodegenError: Another process works in the cache; nothing was deleted.
    """
    youngest = None if older_than_days is None else time.time() - older_than_days * _DAY
    if not cache_dir().is_dir():
        return []
    with ExitStack() as held:
        try:
            held.enter_context(cache_for_oneself())
        except BlockingIOError:
            raise _in_use("another process builds or loads an engine") from None
        for lock in _lock_files():
            _take(lock, held)
        entries = [e for e in cache_entries() if youngest is None or e.made < youngest]
        for entry in entries:
            _delete(entry.path)
    return entries


def _folders(kind: str) -> Iterator[Path]:
    """Yields what the compiler has put there and nothing else, whoever owns the folder."""
    parent = cache_dir() / kind
    if not parent.is_dir() or parent.is_symlink():
        return
    for path in sorted(parent.iterdir()):
        if path.is_symlink() or not path.is_dir():
            continue
        if _is_ours(kind, path):
            yield path


def _is_ours(kind: str, path: Path) -> bool:
    if kind in _KEYED:
        return any(pattern.fullmatch(path.name) for pattern in (_KEY, _LEFTOVER))
    return (path / "include" / "infinicore.h").is_file()


def _name(kind: str, path: Path) -> str:
    if _LEFTOVER.fullmatch(path.name):
        return "(interrupted)"
    manifests = sorted(path.glob(f"*/{MANIFEST_FILE}" if kind == "models" else MANIFEST_FILE))
    if manifests and (described := _described(manifests[0])) is not None:
        return described
    if kind == "models":
        return next((child.name for child in sorted(path.iterdir()) if child.is_dir()), path.name)
    if kind == "engines":
        libraries = sorted(path.glob("lib*.so"))
        return libraries[0].stem.removeprefix("lib") if libraries else path.name
    return path.name


def _described(manifest: Path) -> str | None:
    """Model, device and dtype of an engine, and what tells it from others of these.

    None where its manifest does not say the former.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        device = content["device"]
        words = [content["model"], _device(device), content["dtype"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    folder = manifest.parent
    facts = [
        " ".join([*map(str, words), *(["traced"] if TRACED_KEY in content else [])]),
        *([f"{device['lowering']} lowering"] if "lowering" in device else []),
        *([f"isa {isa}"] if (isa := _instruction_set(folder / BUILD_RECORD)) else []),
        *(["with C library"] if any(folder.glob("lib*.so")) else []),
    ]
    return printable(", ".join(facts))


def _instruction_set(record: Path) -> str | None:
    """What an engine was compiled for; None where nothing, or something damaged, says so."""
    try:
        name = json.loads(record.read_text(encoding="utf-8"))["isa"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _device(manifest: Mapping[str, object]) -> str:
    """A device as notes and sources call it."""
    infinicore = str(manifest["name"])
    return device_title(str(manifest.get("description", infinicore)), infinicore)


def _size_and_age(folder: Path) -> tuple[int, float]:
    total, youngest = 0, folder.stat().st_mtime
    seen: set[tuple[int, int]] = set()
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(root, name))
            except FileNotFoundError:  # a compiler at work takes its scratch files away
                continue
            youngest = max(youngest, status.st_mtime)
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total, youngest


def _lock_files() -> list[Path]:
    folders = [cache_dir() / kind for kind in (*KINDS, "locks")]
    return [file for folder in folders for file in sorted(folder.glob("*.lock"))]


def _take(lock: Path, held: ExitStack) -> None:
    try:
        held.enter_context(FileLock(lock, timeout=0))
    except Timeout:
        raise _in_use(f"another process holds {lock.relative_to(cache_dir())}") from None


def _in_use(who: str) -> CodegenError:
    return CodegenError(
        "the cache is in use, nothing was cleared",
        where=cache_dir(),
        got=who,
        hint="wait until it is done",
    )


def _delete(folder: Path) -> None:
    """Takes a folder out of sight at once, so that half of it never looks like all of it."""
    if not folder.exists():  # somebody else has cleared it since it was listed
        return
    hidden = folder
    if not folder.name.startswith("."):
        hidden = folder.with_name(f".{folder.name}.cleared")
        folder.rename(hidden)
    shutil.rmtree(hidden)
