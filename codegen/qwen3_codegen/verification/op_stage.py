"""Op by op: every node's NumPy reference on the engine's own inputs.

Errors are not carried from node to node, so the first node that misses its limit is the first one
that is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby

from qwen3_codegen.ir.graph import Graph, Node, Region, Value
from qwen3_codegen.ir.interpreter import Interpreter, Replayed, places
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.verification.graph_order import PlacedNode
from qwen3_codegen.verification.limits import op_limit
from qwen3_codegen.verification.measure import Array, Measurement, measure, worst
from qwen3_codegen.verification.report import Check, Stage, judged
from qwen3_codegen.verification.script import Played

__all__ = ["check_ops", "num_op_checks"]

AGAINST = "op table, float64"


def num_op_checks(graph: Graph) -> int:
    """Returns how many checks ``check_ops`` yields."""
    return sum(len(region.nodes) for _, _, region in places(graph))


def check_ops(
    graph: Graph,
    lowering: str,
    read: Callable[[str], Array],
    max_model_len: int,
    played: Played[Mapping[str, Array]],
) -> Iterator[Check]:
    """Yields one check per node of every layer, over all steps.

    Args:
        graph: The one the engine was made of, after all passes; values in the dtype it keeps
        lowering: How the engine carries it out.
        read: Gives a checkpoint's tensor by name.
        max_model_len: The engine's, which chooses between rope tables.
        played: Traces of the engine.
    """
    interpreter = Interpreter(
        graph,
        read,
        max_model_len=max_model_len,
        max_num_seqs=len({owner for owners in played.owners for owner in owners}),
        keep_weights=False,
        as_stored=True,
    )
    sums = {place: _sums(region) for place, _, region in places(graph)}
    replayed = interpreter.replay(played.slotted(), played.results)
    started = time.monotonic()
    for (place, _), steps in groupby(replayed, key=lambda each: (each.place, id(each.node))):
        yield _check(list(steps), sums[place], lowering, played, started)
        started = time.monotonic()


def _check(
    steps: list[Replayed],
    sums: Mapping[str, int],
    lowering: str,
    played: Played[Mapping[str, Array]],
    started: float,
) -> Check:
    first = steps[0]
    node, place = first.node, first.place
    measured = {
        step.step: worst(
            measure(played.results[step.step][f"{place}.{value.name}"], expected)
            for value, expected in zip(node.outputs, step.results, strict=True)
        )
        for step in steps
    }
    total = worst(measured.values())
    stored_in = node.outputs[0].type.dtype
    limit = op_limit(node.op, stored_in, lowering, sums[node.outputs[0].name])
    missed = [step for step, each in measured.items() if each.max_rel > limit]
    return judged(
        total,
        stage=Stage.OPS,
        name=".".join([place, _names(node.outputs)]),
        against=AGAINST,
        measure="max_rel",
        number=total.max_rel,
        limit=limit,
        passes=not missed,
        seconds=time.monotonic() - started,
        placed=PlacedNode(place, first.layer, node),
        note=_which_steps(missed, measured),
    )


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
