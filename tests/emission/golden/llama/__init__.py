"""Engine of llama (llama) for cpu in float32, on InfiniCore 0.1.0.

``Engine.from_checkpoint(DIR).forward([[1, 2, 3]])`` gives float32 logits, one array
``[num_tokens, vocab_size]`` per sequence. Needs the package ``qwen3_runtime``, not the compiler.
"""

from pathlib import Path

from qwen3_runtime.engine.compiled import engine_class

__all__ = ["Engine"]

Engine = engine_class(Path(__file__).parent)
