"""A file mapped for reading, with the checks every checkpoint file needs first."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path

import numpy as np

from qwen3_runtime.checkpoint.tensor import Array
from qwen3_runtime.errors import CheckpointError

__all__ = ["MappedFile", "refuse_lfs_pointer"]

_LFS_PREFIX = b"version https://git-lfs"


def refuse_lfs_pointer(path: Path, head: bytes) -> None:
    """Raises CheckpointError when a file's first bytes are those of a git-lfs pointer."""
    if head.startswith(_LFS_PREFIX):
        raise CheckpointError(
            "this is a git-lfs pointer, the file itself was never downloaded",
            where=path,
            hint=f"run 'git lfs pull' in {path.parent}, or download the file again",
        )


class MappedFile:
    """One file's bytes in memory the system may drop and read again.

    The file must not be shortened while it is mapped: the system answers a read beyond the end of
    a mapped file by ending the process.

    Raises:
        CheckpointError: The file is missing, unreadable, empty or a git-lfs pointer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                refuse_lfs_pointer(path, file.read(len(_LFS_PREFIX)))
                self._map: mmap.mmap | None = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CheckpointError("the file is empty", where=path) from None
        except OSError as error:
            raise CheckpointError(
                "cannot read the file", where=path, got=error.strerror or str(error)
            ) from None
        self.num_bytes = len(self._map)

    def bytes_at(self, start: int, stop: int) -> bytes:
        """Returns a copy of ``[start, stop)``, which must lie in the file."""
        return self._open_map()[start:stop]

    def array_at(self, start: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
        """Returns a read-only view; its bytes must lie in the file.

        Raises:
            CheckpointError: The file is closed, or the shape is beyond any array, which it can be
                without a byte in the file where another axis is empty.
        """
        count = int(np.prod(shape, dtype=object))
        flat = np.frombuffer(self._open_map(), dtype=dtype, count=count, offset=start)
        try:
            return flat.reshape(shape)
        except (ValueError, OverflowError):
            raise CheckpointError(
                "a tensor's shape is beyond any array", where=self.path, got=shape
            ) from None

    def release(self, start: int, stop: int) -> None:
        """Drops the pages wholly or partly in ``[start, stop)`` from this process."""
        first = start - start % mmap.PAGESIZE
        if self._map is not None and stop > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, stop - first)

    def close(self) -> None:
        """Unmaps the file, or leaves that to the last array that still views it."""
        if self._map is not None:
            with contextlib.suppress(BufferError):
                self._map.close()
            self._map = None

    def _open_map(self) -> mmap.mmap:
        if self._map is None:
            raise CheckpointError("the checkpoint is closed", where=self.path)
        return self._map
