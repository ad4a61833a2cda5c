# Engine of qwen3-1.7b (qwen3) for cpu in bfloat16, on InfiniCore 0.1.0.
from qwen3_runtime.engine.compiled import CompiledEngine

class Engine(CompiledEngine): ...
