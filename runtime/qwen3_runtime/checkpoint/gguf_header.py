"""Reading a GGUF header field by field, and keeping count of what was read.

Numbers a converter stored as float32 come back as the shortest decimal that rounds to the same
float32, which is what the original file held (1e-05, not 9.999999747378752e-06). A header key of
the architecture that nothing reads is kept under its GGUF name, so that whoever checks the config
finds a field it does not know instead of a silent loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qwen3_runtime.checkpoint.gguf_file import GgufTensor
from qwen3_runtime.checkpoint.tensor import Array
from qwen3_runtime.errors import CheckpointError

__all__ = ["GgufHeader", "shortest_float"]

_INERT_KEYS = frozenset({"vocab_size", "attention.value_length", "rope.dimension_count"})
"""Keys checked elsewhere or that repeat what a tensor's shape says."""
_MAX_COUNT = 1 << 24
"""Above any size, length or number of layers; bounds what a forged header makes us build."""


def shortest_float(value: float | np.floating[Any]) -> float:
    """Returns the double whose decimal form is the shortest that rounds to this float32."""
    with np.errstate(all="ignore"):
        return float(str(np.float32(value)))


@dataclass(slots=True)
class GgufHeader:
    """The fields of one file, and which of them have been read."""

    path: Path
    architecture: str
    fields: Mapping[str, object]
    tensors: Mapping[str, GgufTensor]
    read_tensor: Callable[[GgufTensor], Array]
    used: set[str] = field(default_factory=set)

    def get(self, key: str, kind: type[Any]) -> Any:
        """Returns ``<architecture>.<key>`` as ``kind``, None where the header lacks it.

        An array that holds one value for every layer counts as that value.

        Raises:
            CheckpointError: The value has another type, or layers differ.
        """
        self.used.add(key)
        value = self.fields.get(f"{self.architecture}.{key}")
        if isinstance(value, list) and kind is not list:
            if not value or any(other != value[0] for other in value):
                raise self.fault(key, value, "one value for all layers")
            value = value[0]
        if value is None:
            return None
        if kind is float and type(value) in (float, int):
            return shortest_float(float(value))  # type: ignore[arg-type] # its type was looked at
        if type(value) is not kind:
            raise self.fault(key, value, kind.__name__)
        return value

    def require(self, key: str, kind: type[Any], largest: int = _MAX_COUNT) -> Any:
        """Returns what ``get`` does; a missing key or a count beyond 1 to ``largest`` fails."""
        value = self.get(key, kind)
        if value is None:
            raise self.fault(key, "nothing", kind.__name__)
        if kind is int and not 0 < value <= largest:
            raise self.fault(key, value, f"1 to {largest}")
        return value

    def fault(self, key: str, got: object, expected: object) -> CheckpointError:
        """Returns the error for a key whose value does not do."""
        return CheckpointError(
            f"header field '{self.architecture}.{key}' is missing or unfit",
            where=self.path,
            got=str(got)[:200],
            expected=expected,
        )

    def token_id(self, name: str) -> int | None:
        """Returns ``tokenizer.ggml.<name>_token_id``, None where the header lacks it."""
        value = self.fields.get(f"tokenizer.ggml.{name}_token_id")
        return value if type(value) is int else None

    def leftovers(self) -> dict[str, object]:
        """Returns the architecture's fields that nothing read, under their GGUF names."""
        prefix = f"{self.architecture}."
        return {
            key: value
            for key, value in self.fields.items()
            if key.startswith(prefix) and key[len(prefix) :] not in self.used | _INERT_KEYS
        }
