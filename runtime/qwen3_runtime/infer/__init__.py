"""InfiniCore-Infer's Python names on engines of ours, for programs that were written against it.

Constructors, arguments and results are those of its ``scripts/jiuge.py``, ``qwen3.py`` and
``infer_task.py``; ``qwen3_runtime.qwen3``, ``.jiuge``, ``.infer_task`` and ``.libinfinicore_infer``
offer them where those files did. New programs are better off with ``qwen3_codegen.LLM``.
"""

from __future__ import annotations

from qwen3_runtime.infer.devices import DeviceType
from qwen3_runtime.infer.model import JiugeForCauslLM, Qwen3ForCausalLM
from qwen3_runtime.infer.tasks import InferTask, KVCache

__all__ = ["DeviceType", "InferTask", "JiugeForCauslLM", "KVCache", "Qwen3ForCausalLM"]
