"""The passes in order, and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.passes.canonicalize import canonicalize
from qwen3_codegen.passes.eliminate_dead_values import eliminate_dead_values
from qwen3_codegen.passes.fold_constants import fold_constants
from qwen3_codegen.passes.fuse_gate_up import fuse_gate_up
from qwen3_codegen.passes.fuse_qkv import fuse_qkv
from qwen3_codegen.passes.fuse_residual import fuse_residual
from qwen3_codegen.passes.fuse_rotary_attention import fuse_rotary_attention
from qwen3_codegen.passes.fuse_swiglu import fuse_swiglu
from qwen3_codegen.passes.merge_layer_kinds import merge_layer_kinds

__all__ = ["PIPELINE", "PIPELINES", "Pass", "run_pipeline"]


@dataclass(frozen=True, slots=True)
class Pass:
    """A named step from graph to graph."""

    name: str
    run: Callable[[Graph], Graph]

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (self.run.__doc__ or "").splitlines()[0]


def _passes(*functions: Callable[[Graph], Graph]) -> tuple[Pass, ...]:
    return tuple(Pass(run.__name__, run) for run in functions)


PIPELINE = _passes(
    canonicalize,
    fold_constants,
    merge_layer_kinds,
    fuse_residual,
    fuse_qkv,
    fuse_gate_up,
    fuse_swiglu,
    eliminate_dead_values,
)
"""The passes of the portable lowering. Constants first, so that a scale is an alpha by the time
residuals and projections are fused."""

NATIVE_PIPELINE = _passes(
    canonicalize,
    fold_constants,
    merge_layer_kinds,
    fuse_residual,
    fuse_swiglu,
    fuse_rotary_attention,
    eliminate_dead_values,
)
"""The passes of the native lowering. Projections stay apart: their weights are read where the
checkpoint has them."""

PIPELINES = {"native": NATIVE_PIPELINE, "portable": PIPELINE}
"""The passes of each lowering."""


def run_pipeline(
    graph: Graph,
    dump: Callable[[str, Graph], None] | None = None,
    *,
    passes: tuple[Pass, ...] = PIPELINE,
) -> Graph:
    """Runs passes in order and verifies the graph after each.

    Args:
        graph: A verified graph from the frontend.
        dump: Called with ``frontend`` and the graph, then with each pass's name and result.
        passes: What to run.

    Raises:
        VerifyError: A pass broke the graph, which is a fault of the pass.
    """
    if dump is not None:
        dump("frontend", graph)
    for step in passes:
        graph = step.run(graph)
        verify(graph)
        if dump is not None:
            dump(step.name, graph)
    return graph
