"""Layer by layer: every value a reference shows, in the order the engine computes them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

import numpy as np

from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.verification.graph_order import GraphOrder
from qwen3_codegen.verification.limits import value_limit
from qwen3_codegen.verification.measure import Array, measure
from qwen3_codegen.verification.observed import Observations, Observed, Unmatched
from qwen3_codegen.verification.report import Check, Stage, Status, judged
from qwen3_codegen.verification.script import Played

__all__ = ["check_values"]


def check_values(
    graph: Graph,
    played: Played[Mapping[str, Array]],
    observations: Observations,
    against: str,
) -> Iterator[Check]:
    """Yields a check per value and one per thing that only one side computes, in order.

    A value that is seen several times, such as what a layer leaves and the next one begins with, is
    checked once. The op a check names is the one that computes the value; where ops before it
    cannot be seen in the reference, the note names them.
    """
    order = GraphOrder(graph)
    logits = f"epilogue.{graph.epilogue.results[0]}"
    shown = {order.canonical(value.name): value for value in reversed(observations.values)}
    values = [value for name, value in shown.items() if name != logits]
    entries: list[tuple[float, Observed | Unmatched]] = [
        *((order.rank(value.name), value) for value in values),
        *((_rank(order, each.after), each) for each in observations.unmatched),
    ]
    compared: dict[str, bool] = {}
    for _, entry in sorted(entries, key=lambda each: each[0]):
        if isinstance(entry, Unmatched):
            yield _unmatched(entry, order, against)
            continue
        check = _check(graph, order, played, entry, against, compared)
        compared[order.canonical(entry.name)] = not check.failed
        yield check


def _rank(order: GraphOrder, after: str | None) -> float:
    return -0.5 if after is None else order.rank(after) + 0.5


def _unmatched(entry: Unmatched, order: GraphOrder, against: str) -> Check:
    """What the engine lacks has no line of its own: the one it would stand behind is named."""
    location, text = entry.location, entry.text
    before = order.producer(entry.after) if entry.after is not None else None
    if location is None and before is not None:
        location, text = str(before.location), f"{text}; its place is after {before.described}"
    return Check(
        stage=Stage.LAYERS,
        name=entry.name,
        layer=entry.layer,
        op=entry.op,
        part=entry.part,
        location=location,
        against=against,
        max_abs=math.inf,
        max_rel=math.inf,
        cosine=0.0,
        measured=math.inf,
        measure="max_abs",
        limit=0.0,
        status=Status.FAIL,
        seconds=0.0,
        note=text,
    )


def _check(
    graph: Graph,
    order: GraphOrder,
    played: Played[Mapping[str, Array]],
    value: Observed,
    against: str,
    compared: Mapping[str, bool],
) -> Check:
    """Compares a value; ``compared`` says of those before it whether they are right."""
    started = time.monotonic()
    actual = _flat(played.by_sequence(lambda trace: trace[value.name]))
    expected = _flat(value.rows)
    measured = measure(actual, expected)
    own = None if value.own is None else measure(_flat(value.own), expected).mean_abs
    magnitudes = np.abs(expected)
    scale = magnitudes.max() if graph.dtype.value == "float32" else magnitudes.mean()
    name, limit = value_limit(graph.dtype, float(scale), own)
    number = {"max_abs": measured.max_abs, "mean_abs": measured.mean_abs}[name]
    failed = not number <= limit
    shown = order.canonical(value.name)
    placed = order.producer(shown)
    note = value.source
    if failed:
        sound = [each for each, is_right in compared.items() if is_right]
        suspects = order.suspects(value.name, sound)
        placed = suspects[0] if suspects else placed
        # What is wrong before it has a line of its own.
        unseen = [each for each in suspects[1:] if not each.makes <= compared.keys()]
        if others := [each.described for each in unseen]:
            note += f"; not seen before it: {', '.join(others[:4])}"
    return judged(
        measured,
        stage=Stage.LAYERS,
        name=shown if placed is None or not failed else placed.shown,
        against=against,
        measure=name,
        number=number,
        limit=limit,
        passes=not failed,
        seconds=time.monotonic() - started,
        placed=placed,
        note=note,
    )


def _flat(parts: object) -> Array:
    """All sequences one after the other, a row per token."""
    return np.concatenate([rows.reshape(len(rows), -1) for rows in parts])  # type: ignore[attr-defined]
