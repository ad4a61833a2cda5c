"""Element types and the record that describes one tensor of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["FLOAT_DTYPES", "SAFETENSORS_DTYPES", "Array", "TensorInfo"]

Array: TypeAlias = npt.NDArray[Any]

SAFETENSORS_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""Element types of the safetensors format that NumPy can hold."""

FLOAT_DTYPES: dict[str, np.dtype[Any]] = {
    SAFETENSORS_DTYPES[code].name: SAFETENSORS_DTYPES[code]
    for code in ("F64", "F32", "F16", "BF16")
}
"""Element types whose numbers are the weights themselves: no scale or block goes with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor as a checkpoint stores it."""

    name: str
    """Hugging Face's name."""
    shape: tuple[int, ...]
    """Hugging Face's shape, slowest axis first."""
    dtype: str
    """NumPy's name of the stored element type, or a GGUF block type such as ``q4_1``."""
    num_bytes: int
    """Bytes in the file."""
    file: Path
    """The file that holds it."""
