"""The native lowering: IR ops as kernels of our own, instantiated for an engine's sizes."""

from qwen3_codegen.plan.context import GraphLowering
from qwen3_codegen.plan.native.lowerings import copy_value, lower_node, refuse_unknown_ops

LOWERING = GraphLowering(
    refuse_unknown_ops=refuse_unknown_ops, lower_node=lower_node, copy=copy_value
)

__all__ = ["LOWERING"]
