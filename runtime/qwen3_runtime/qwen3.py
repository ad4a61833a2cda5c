"""``scripts/qwen3.py`` of InfiniCore-Infer, on engines of ours."""

from __future__ import annotations

import sys

from qwen3_runtime.infer import DeviceType, InferTask, KVCache, Qwen3ForCausalLM
from qwen3_runtime.infer.command import main
from qwen3_runtime.infer.old_names import refusing

__all__ = ["DeviceType", "InferTask", "KVCache", "Qwen3ForCausalLM"]

__getattr__ = refusing(__name__)

if __name__ == "__main__":
    sys.exit(main(Qwen3ForCausalLM))
