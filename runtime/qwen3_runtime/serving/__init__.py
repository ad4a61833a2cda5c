"""An engine in a process of its own, and its face in the process that serves.

The engine's process steps; the serving one reads requests, turns text into tokens and back, and is
never held up by a step, nor holds one up.
"""

from qwen3_runtime.serving.client import EngineClient, EngineState
from qwen3_runtime.serving.stream import TokenStream
from qwen3_runtime.serving.worker import EngineLoader, LoadedEngine

__all__ = ["EngineClient", "EngineLoader", "EngineState", "LoadedEngine", "TokenStream"]
