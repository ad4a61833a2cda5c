"""One way to carry graphs out: a function per IR op, and what is the same in every such way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Graph, Node
from qwen3_codegen.ir.ops import OpDef, ops_of
from qwen3_codegen.plan.context import Lowered, RegionContext
from qwen3_codegen.plan.records import Action, TensorRef

NodeLowering: TypeAlias = Callable[[Node, RegionContext], Lowered]
"""Node in, definitions and actions out; LoweringError where the device lacks what it needs."""


_INTERPRETER = "`qwen3-codegen generate --engine interpreter` runs every op and compiles nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLowering:
    """What the planner asks of a lowering."""

    name: str
    """As the op table and device files spell it."""
    ops: Mapping[str, NodeLowering]
    """The ops it carries out; every other op is refused by name."""
    copy: Callable[[Node, RegionContext, TensorRef, str], Action]
    """Copies the value of that name; the node is what needs it, for messages."""
    own: NodeLowering | None = None
    """Carries out ops of the user's own that have a kernel; None refuses them all."""

    def find(self, op: OpDef) -> NodeLowering | None:
        """Returns what carries an op out, None when nothing does."""
        return self.own if op.kernel is not None else self.ops.get(op.name)

    def refuse_unknown_ops(self, graph: Graph) -> None:
        """Refuses a graph with ops that this lowering does not carry out, naming all of them.

        Raises:
            LoweringError: There is such an op; the place is that of the first one.
        """
        unknown: dict[str, Node] = {}
        table = ops_of(graph)
        for region in graph.regions():
            for node in region.nodes:
                if self.find(table[node.op]) is None:
                    unknown.setdefault(node.op, node)
        if not unknown:
            return
        reasons = [f"{op}: {table[op].lowerings[self.name].refusal}" for op in sorted(unknown)]
        raise LoweringError(
            f"the {self.name} lowering cannot carry out {', '.join(sorted(unknown))}",
            where=next(iter(unknown.values())).location,
            got="; ".join(reasons),
            expected=", ".join(sorted(self.ops)),
            hint=self._hint([table[op] for op in unknown]),
        )

    def _hint(self, unknown: list[OpDef]) -> str:
        """What runs these ops: not every command has --engine, so the one that has is named."""
        has_kernels = all(
            op.kernel is not None or op.lowerings["native"].refusal is None for op in unknown
        )
        if self.name == "native" or not has_kernels:
            return _INTERPRETER
        return f"the native lowering (--dev cpu) carries them out; {_INTERPRETER}"
