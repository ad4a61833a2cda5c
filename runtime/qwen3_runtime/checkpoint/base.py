"""What every checkpoint looks like, whatever its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from qwen3_runtime.checkpoint.tensor import Array, TensorInfo

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Checkpoint"]


class Checkpoint(Protocol):
    """A model's tensors and settings in Hugging Face's names and layouts.

    Opening one reads headers only. Arrays that ``read`` gave stay valid after ``close``. A
    checkpoint may be read from several threads.
    """

    @property
    def path(self) -> Path:
        """The folder or file as the user named it."""

    @property
    def config(self) -> Mapping[str, object]:
        """Content of ``config.json``, or what a GGUF header says under the same field names."""

    @property
    def config_path(self) -> Path:
        """The file ``config`` came from, for messages."""

    @property
    def generation_config(self) -> Mapping[str, object]:
        """Content of ``generation_config.json``; empty where there is none."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its Hugging Face name."""

    def read(self, name: str) -> Array:
        """Returns a tensor in Hugging Face's shape and row order.

        The array is read-only memory mapped from the file (safetensors), or float32 computed from
        blocks (GGUF).

        Raises:
            CheckpointError: No tensor has that name, or its blocks cannot be decoded.
        """

    def release(self, name: str) -> None:
        """Lets the system drop a tensor's pages; arrays stay valid and are read again if used."""

    def close(self) -> None:
        """Closes the files. Closing twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
