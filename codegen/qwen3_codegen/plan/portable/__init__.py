"""The portable lowering: IR ops as calls of InfiniCore operators, on any device."""

from qwen3_codegen.plan.lowering import GraphLowering
from qwen3_codegen.plan.portable.lowerings import LOWERINGS, copy_value

LOWERING = GraphLowering(name="portable", ops=LOWERINGS, copy=copy_value)

__all__ = ["LOWERING"]
