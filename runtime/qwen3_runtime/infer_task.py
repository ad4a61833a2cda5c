"""``scripts/infer_task.py`` of InfiniCore-Infer, on engines of ours."""

from __future__ import annotations

from qwen3_runtime.infer import InferTask, KVCache
from qwen3_runtime.infer.old_names import refusing

__all__ = ["InferTask", "KVCache"]

__getattr__ = refusing(__name__)
