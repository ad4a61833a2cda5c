"""The op table: one row per op, in the order the op page lists them."""

from __future__ import annotations

from collections.abc import Mapping

from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.ops.attention import ATTENTION
from qwen3_codegen.ir.ops.definition import (
    Attribute,
    AttributeKind,
    Element,
    Lowering,
    OpDef,
    OpRuleError,
    OwnKernel,
    Role,
)
from qwen3_codegen.ir.ops.elementwise import ACTIVATION_OPS, ADD, MUL, SCALE, SWIGLU
from qwen3_codegen.ir.ops.linear import EMBEDDING, LINEAR
from qwen3_codegen.ir.ops.moe import MOE
from qwen3_codegen.ir.ops.norm import L2_NORM, LAYER_NORM, RMS_NORM
from qwen3_codegen.ir.ops.recurrent import CAUSAL_CONV1D, GATED_DELTA_NET
from qwen3_codegen.ir.ops.rope import ROPE
from qwen3_codegen.ir.ops.rotary_attention import ROTARY_ATTENTION
from qwen3_codegen.ir.ops.shape import CONCAT, GATHER_ROWS, RESHAPE, SPLIT

__all__ = [
    "ATTENTION_OPS",
    "OPS",
    "Attribute",
    "AttributeKind",
    "Element",
    "Lowering",
    "OpDef",
    "OpRuleError",
    "OwnKernel",
    "Role",
    "ops_of",
]

OPS: Mapping[str, OpDef] = {
    op.name: op
    for op in (
        EMBEDDING,
        LINEAR,
        RMS_NORM,
        LAYER_NORM,
        L2_NORM,
        ROPE,
        ATTENTION,
        ROTARY_ATTENTION,
        ADD,
        MUL,
        SCALE,
        *ACTIVATION_OPS,
        SWIGLU,
        RESHAPE,
        SPLIT,
        CONCAT,
        GATHER_ROWS,
        MOE,
        CAUSAL_CONV1D,
        GATED_DELTA_NET,
    )
}

ATTENTION_OPS = frozenset({ATTENTION.name, ROTARY_ATTENTION.name})
"""Ops that append to a cache of keys and values, in roles ``k`` and ``v``."""


def ops_of(graph: Graph) -> Mapping[str, OpDef]:
    """Returns the op table of a graph: the built-in rows, then those of the user's own ops."""
    return {**OPS, **graph.own_ops}
