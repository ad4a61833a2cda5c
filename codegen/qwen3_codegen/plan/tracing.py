"""Copies of values for those who look into a step, in engines that are built with ``--trace``.

Names are the interpreter's: ``prologue.h``, ``layers.3.q_rms_norm``, ``epilogue.logits``; inside a
fused op ``layers.3.a.k_rope``. A value is copied in the step that defines it, behind the calls that
fill it: later ones may write over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qwen3_codegen.ir.graph import NUM_LOGIT_ROWS, Node, Region, Value
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.plan.records import (
    Action,
    CacheTraceCall,
    KernelCall,
    Origin,
    RotatedHeads,
    Step,
    TensorRef,
    TraceCall,
)


def trace_calls(
    values: Iterable[Value],
    outer: str | None,
    interleaved: Mapping[str, tuple[RotatedHeads, ...]],
) -> tuple[TraceCall, ...]:
    """Returns a copy of each value.

    Args:
        values: Parameters or results of one region.
        outer: The region's name; None is the layer at hand.
        interleaved: Of values with permuted heads, the columns.
    """
    return tuple(
        TraceCall(
            name=value.name,
            region=outer,
            value=TensorRef(Origin.VALUE, value.name),
            is_part=value.type.shape[0] == NUM_LOGIT_ROWS,
            interleaved=interleaved.get(value.name, ()),
        )
        for value in values
    )


def trace_inner(node: Node, actions: Iterable[Action]) -> tuple[Action, ...]:
    """Returns copies of what the last part of a fused op is given, behind the calls that make it.

    Args:
        node: The op; of one that is not fused there is nothing inside.
        actions: What it is carried out by: no other call writes over what these have written.
    """
    fusion = OPS[node.op].fusion if node.op in OPS else None
    if fusion is None:
        return ()
    (query,) = (
        call.arguments[1]
        for call in actions
        if isinstance(call, KernelCall) and call.kernel == "PagedAttention"
    )
    assert isinstance(query, TensorRef)
    name = node.output.name
    return (
        TraceCall(name=f"{name}.q_rope", region=None, value=query, is_part=False),
        CacheTraceCall(keys=f"{name}.k_rope", values=f"{name}.v_cache"),
    )


def trace_parameters(region: Region, values: Iterable[Value], outer: str | None) -> Step:
    """Returns the step that copies what a region is given, before anything is written over it."""
    names = ", ".join(value.name for value in region.parameters)
    text = f"{names} as it comes in"
    return Step(text, region.nodes[0].location, (), trace_calls(values, outer, {}))
