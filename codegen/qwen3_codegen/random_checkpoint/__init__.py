"""Hard random checkpoints of a spec: any engine can be tried without downloading weights."""

from qwen3_codegen.random_checkpoint.first_layers import first_layers
from qwen3_codegen.random_checkpoint.writer import write_random_checkpoint

__all__ = ["first_layers", "write_random_checkpoint"]
