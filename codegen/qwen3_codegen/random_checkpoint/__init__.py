"""Hard random checkpoints of a spec: any engine can be tried without downloading weights."""

from qwen3_codegen.random_checkpoint.first_layers import first_layers, layers_of_every_kind
from qwen3_codegen.random_checkpoint.writer import write_random_checkpoint

__all__ = ["first_layers", "layers_of_every_kind", "write_random_checkpoint"]
