"""Op by op: every node's NumPy reference on the engine's own inputs.

Errors are not carried from node to node, so the first node that misses its limit is the first one
that is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph, Node, Region, Value
from qwen3_codegen.ir.interpreter import Interpreter, Replayed, places
from qwen3_codegen.ir.ops import ATTENTION_OPS, OPS
from qwen3_codegen.ir.ops.rotary_attention import ROTARY_ATTENTION
from qwen3_codegen.verification.graph_order import PlacedNode
from qwen3_codegen.verification.inner_parts import (
    Heads,
    inner_parts,
    is_scaled,
    last_part,
    norm_of,
)
from qwen3_codegen.verification.limits import UNIT, op_limit
from qwen3_codegen.verification.measure import Array, Measurement, measure, worst
from qwen3_codegen.verification.report import Check, Stage, judged
from qwen3_codegen.verification.script import Played
from qwen3_codegen.verification.subject import Subject

__all__ = ["check_ops", "num_op_checks"]

AGAINST = "op table, float64"

_PART_OPS: Mapping[tuple[str, bool], tuple[str, ...]] = {
    ("q_rope", True): ("rms_norm", "rope"),
    ("k_rope", True): ("rms_norm", "rope"),
    ("q_rope", False): ("rope",),
    ("k_rope", False): ("rope",),
    ("v_cache", False): ("reshape",),
}
"""Ops whose limits an inner value may take, by whether it went through a norm."""

_CACHED = ("k_rope", "v_cache")
"""Inner values that are shown as the cache keeps them."""


def num_op_checks(graph: Graph) -> int:
    """Returns how many checks ``check_ops`` yields, if the engine shows all it can."""
    nodes = [node for _, _, region in places(graph) for node in region.nodes]
    return sum(1 + len(inner_parts(node)) for node in nodes)


def check_ops(
    subject: Subject,
    read: Callable[[str], Array],
    max_model_len: int,
    played: Played[Mapping[str, Array]],
) -> Iterator[Check]:
    """Yields one check per node of every layer, over all steps; of a fused one, one per part.

    Args:
        subject: The engine.
        read: Gives a checkpoint's tensor by name.
        max_model_len: The engine's, which chooses between rope tables.
        played: Traces of the engine.
    """
    graph = subject.graph
    interpreter = Interpreter(
        graph,
        read,
        max_model_len=max_model_len,
        max_num_seqs=len({owner for owners in played.owners for owner in owners}),
        keep_weights=False,
        as_stored=True,
    )
    sums = {place: _sums(region) for place, _, region in places(graph)}
    judge = _Judge(graph, subject.lowering, subject.cache_dtype, played)
    replayed = interpreter.replay(played.slotted(), played.results, subject.row_dtype)
    for (place, _), steps in groupby(replayed, key=lambda each: (each.place, id(each.node))):
        judge.started = time.monotonic()
        same_node = list(steps)
        num_terms = sums[place][same_node[0].node.outputs[0].name]
        if same_node[0].inner:
            yield from judge.parts(same_node, num_terms)
        yield judge.whole(same_node, num_terms)


@dataclass(slots=True)
class _Judge:
    """Compares what an engine showed of a node with what it should be, over all steps."""

    graph: Graph
    lowering: str
    cache_dtype: DType
    played: Played[Mapping[str, Array]]
    started: float = 0.0

    def whole(self, steps: list[Replayed], num_terms: int) -> Check:
        """Judges a node's results; of a fused node those of its last part, if the rest is shown."""
        first = steps[0]
        node, place = first.node, first.place
        part = last_part(node) if first.inner else None
        measured = {
            step.step: worst(
                measure(self._shown(step.step, f"{place}.{value.name}"), expected)
                for value, expected in zip(node.outputs, step.results, strict=True)
            )
            for step in steps
        }
        placed = PlacedNode(place, first.layer, node, part)
        op, dtype = part or node.op, node.outputs[0].type.dtype
        coarser = _coarser(dtype, self.cache_dtype)
        if node.op in ATTENTION_OPS and not first.inner and coarser is not dtype:
            # Keys and values are not given as rounded, which moves scores.
            op, dtype = ROTARY_ATTENTION.name, coarser
        limit = op_limit(op, dtype, self.lowering, num_terms)
        check = self._judged(placed, measured, limit)
        return replace(check, name=".".join([place, _names(node.outputs)]))

    def parts(self, steps: list[Replayed], num_terms: int) -> Iterator[Check]:
        """Judges what the last part of a fused node is given.

        Heads that are wrong after norm and rotation are the fault of one of them; the other is not
        judged then. Values come first: where they are not what they were, keys were not written.
        """
        first = steps[0]
        for name in sorted(first.inner, key=lambda name: name != "v_cache"):
            norm = norm_of(first.node, name)
            placed = PlacedNode(first.place, first.layer, first.node, name)
            heads = [self._heads(step, placed, name) for step in steps]
            dtype = first.node.outputs[0].type.dtype
            limit = sum(
                op_limit(op, dtype, self.lowering, num_terms)
                for op in _PART_OPS[name, norm is not None]
            )
            if name in _CACHED and _coarser(dtype, self.cache_dtype) is not dtype:
                limit += UNIT[self.cache_dtype]
            check = self._judged(placed, {each.step: each.whole() for each in heads}, limit)
            if norm is not None:
                placed = replace(placed, part=norm)
                by_norm = self._judged(placed, {each.step: each.norm() for each in heads}, limit)
                if not by_norm.failed:
                    yield by_norm
                elif check.failed and not is_scaled(heads, limit):
                    yield by_norm
                    continue
            yield check

    def _heads(self, step: Replayed, placed: PlacedNode, name: str) -> Heads:
        table = self.graph.rope_tables[str(step.node.attributes["table"])]
        return Heads(
            step=step.step,
            actual=self._shown(step.step, placed.shown),
            expected=step.inner[name],
            positions=self.played.batches[step.step].positions,
            rotary_dim=table.rotary_dim,
        )

    def _shown(self, step: int, name: str) -> Array:
        return self.played.results[step][name]

    def _judged(
        self, placed: PlacedNode, measured: Mapping[int, Measurement], limit: float
    ) -> Check:
        total = worst(measured.values())
        missed = [step for step, each in measured.items() if each.max_rel > limit]
        return judged(
            total,
            stage=Stage.OPS,
            name=placed.shown,
            against=AGAINST,
            measure="max_rel",
            number=total.max_rel,
            limit=limit,
            passes=not missed,
            seconds=time.monotonic() - self.started,
            placed=placed,
            note=_which_steps(missed, measured),
        )


def _coarser(one: DType, other: DType) -> DType:
    return max(one, other, key=lambda dtype: UNIT[dtype])


def _names(outputs: tuple[Value, ...]) -> str:
    return ", ".join(value.name for value in outputs)


def _which_steps(missed: list[int], measured: Mapping[int, Measurement]) -> str:
    if not missed or len(missed) == len(measured):
        return ""
    return f"in steps {', '.join(map(str, missed))} of 0 to {len(measured) - 1}"


def _sums(region: Region) -> dict[str, int]:
    """Terms of the longest sum of each node, by its first result: a row of its data.

    Of an op of the user's own, that is the longest row of any input.
    """
    types = {value.name: value.type for value in region.values()}

    def terms(node: Node) -> int:
        roles = ("x", "q") if node.op in OPS else node.inputs
        rows = [types[name].shape[-1] for role, name in node.inputs.items() if role in roles]
        return max((size for size in rows if isinstance(size, int)), default=1)

    return {node.outputs[0].name: terms(node) for node in region.nodes}
