"""qwen3-codegen: compiles language-model specs into InfiniCore engines.

``from qwen3_codegen import LLM, SamplingParams`` is the public face. InfiniCore-Infer's names are
here, too, for programs that were written against it. All are imported when they are first asked
for, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen3_codegen.llm import LLM
    from qwen3_runtime.infer import (
        DeviceType,
        InferTask,
        JiugeForCauslLM,
        KVCache,
        Qwen3ForCausalLM,
    )
    from qwen3_runtime.sampling import SamplingParams

__all__ = [
    "LLM",
    "DeviceType",
    "InferTask",
    "JiugeForCauslLM",
    "KVCache",
    "Qwen3ForCausalLM",
    "SamplingParams",
]

_HOMES = {
    "LLM": "qwen3_codegen.llm",
    "SamplingParams": "qwen3_runtime.sampling",
    "DeviceType": "qwen3_runtime.infer",
    "InferTask": "qwen3_runtime.infer",
    "JiugeForCauslLM": "qwen3_runtime.infer",
    "KVCache": "qwen3_runtime.infer",
    "Qwen3ForCausalLM": "qwen3_runtime.infer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
