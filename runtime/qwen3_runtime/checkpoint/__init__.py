"""Checkpoints of any format in Hugging Face's terms, and the engine's weights made from them."""

from qwen3_runtime.checkpoint.base import Checkpoint
from qwen3_runtime.checkpoint.opening import open_checkpoint
from qwen3_runtime.checkpoint.progress import progress_bar
from qwen3_runtime.checkpoint.tensor import Array, TensorInfo
from qwen3_runtime.checkpoint.weight_store import Progress, WeightBinding, WeightStore

__all__ = [
    "Array",
    "Checkpoint",
    "Progress",
    "TensorInfo",
    "WeightBinding",
    "WeightStore",
    "open_checkpoint",
    "progress_bar",
]
