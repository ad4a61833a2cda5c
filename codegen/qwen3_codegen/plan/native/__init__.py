"""The native lowering: IR ops as kernels of our own, instantiated for an engine's sizes."""

from qwen3_codegen.plan.lowering import GraphLowering
from qwen3_codegen.plan.native.lowerings import LOWERINGS, copy_value
from qwen3_codegen.plan.native.own_ops import lower_own

LOWERING = GraphLowering(name="native", ops=LOWERINGS, copy=copy_value, own=lower_own)

__all__ = ["LOWERING"]
