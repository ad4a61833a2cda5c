# Engine of llama (llama) for cpu in float32, on InfiniCore 0.1.0.
from qwen3_runtime.engine.compiled import CompiledEngine

class Engine(CompiledEngine): ...
