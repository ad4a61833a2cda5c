"""The portable lowering: IR ops as calls of InfiniCore operators, on any device."""

from qwen3_codegen.plan.context import GraphLowering
from qwen3_codegen.plan.portable.lowerings import copy_value, lower_node, refuse_unknown_ops

LOWERING = GraphLowering(
    refuse_unknown_ops=refuse_unknown_ops, lower_node=lower_node, copy=copy_value
)

__all__ = ["LOWERING"]
