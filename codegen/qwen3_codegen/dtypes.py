"""Element types a graph may name."""

from __future__ import annotations

import enum


class DType(enum.Enum):
    """Element type; the value is the name used in specs, manifests and on the command line."""

    F32 = "float32"
    BF16 = "bfloat16"
    F16 = "float16"
    I32 = "int32"

    @property
    def size(self) -> int:
        """Bytes per element."""
        return 4 if self in (DType.F32, DType.I32) else 2
