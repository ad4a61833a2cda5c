"""Logits of every step, and greedy tokens, of the engine as it is used."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.verification.graph_order import GraphOrder
from qwen3_codegen.verification.limits import (
    GREEDY_BOUNDS,
    OWN_ERROR_FACTOR,
    RELATIVE_BOUND,
    cosine_limit,
)
from qwen3_codegen.verification.measure import Array, Measurement, measure
from qwen3_codegen.verification.observed import Observations
from qwen3_codegen.verification.report import Check, Stage, judged
from qwen3_runtime.engine.batch import FloatRows

__all__ = ["check_greedy", "check_logits", "largest_difference"]


def check_logits(
    graph: Graph,
    lowering: str,
    actual: Sequence[FloatRows],
    observations: Observations,
    against: str,
    compared: Mapping[str, bool],
) -> Iterator[Check]:
    """Yields the checks of logits of all tokens of all sequences.

    float32: the largest difference. Half precision: the cosine over all rows, and the mean
    difference beside that of the reference's own model in that dtype, where there is one.
    ``compared`` says of values before them whether they agree; where all do, the ops after those
    are to blame.
    """
    started = time.monotonic()
    dtype = graph.dtype
    rows, expected = np.concatenate(actual), np.concatenate(observations.logits)
    measured = measure(rows, expected)

    def check(name: str, measure_name: str, number: float, limit: float, fine: bool) -> Check:
        made = _check(name, against, measured, measure_name, number, limit, fine, started)
        return made if fine else _blaming(made, GraphOrder(graph), _logits_name(graph), compared)

    if dtype is DType.F32:
        limit = RELATIVE_BOUND * max(1.0, measured.scale)
        fine = measured.max_abs <= limit
        yield check("logits", "max_abs", measured.max_abs, limit, fine)
        return
    own = None
    if observations.own_logits is not None:
        own = measure(np.concatenate(observations.own_logits), expected)
    least = cosine_limit(lowering, None if own is None else own.cosine)
    yield check("logits, cosine", "cosine", measured.cosine, least, measured.cosine >= least)
    if own is not None:
        limit = OWN_ERROR_FACTOR * own.mean_abs
        fine = measured.mean_abs <= limit
        yield check("logits, mean difference", "mean_abs", measured.mean_abs, limit, fine)


def _logits_name(graph: Graph) -> str:
    return f"epilogue.{graph.epilogue.results[0]}"


def _blaming(check: Check, order: GraphOrder, name: str, compared: Mapping[str, bool]) -> Check:
    sound = [each for each, is_right in compared.items() if is_right]
    suspects = order.suspects(name, sound)
    if not suspects or not sound:
        return check
    first, *others = suspects
    unseen = [each.described for each in others if not each.makes <= compared.keys()]
    return replace(
        check,
        op=first.node.op,
        part=first.part,
        layer=first.layer,
        location=str(first.location),
        note=f"not seen before it: {', '.join(unseen[:4])}" if unseen else "",
    )


def check_greedy(
    actual: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    reference_logits: Sequence[FloatRows],
    error: float,
    against: str,
) -> Check:
    """Compares greedy tokens with the reference's argmax along the engine's own path.

    Args:
        actual: What the engine continued each prompt with.
        prompts: The prompts.
        reference_logits: Of every prompt and its continuation, [num_tokens, vocab_size].
        error: What a logit may be off by: the bound in float32, what was measured in half.
        against: The reference.
    """
    started = time.monotonic()
    gaps, different, total = [0.0], 0, 0
    for tokens, prompt, rows in zip(actual, prompts, reference_logits, strict=True):
        asked = rows[len(prompt) - 1 : len(prompt) - 1 + len(tokens)]
        chosen = asked[np.arange(len(tokens)), np.asarray(tokens)]
        behind = asked.max(axis=1) - chosen
        gaps.append(float(behind.max()))
        different += int((behind > 0).sum())
        total += len(tokens)
    gap, limit = max(gaps), GREEDY_BOUNDS * error
    fine = gap <= limit
    note = f"{total - different} of {total} tokens are the reference's"
    if fine and different:
        note += "; the others were too close to call"
    measured = Measurement(
        max_abs=gap, max_rel=math.nan, mean_abs=math.nan, cosine=math.nan, scale=math.nan
    )
    return _check("greedy tokens", against, measured, "max_abs", gap, limit, fine, started, note)


def _check(
    name: str,
    against: str,
    measured: Measurement,
    measure_name: str,
    number: float,
    limit: float,
    fine: bool,
    started: float,
    note: str = "",
) -> Check:
    return judged(
        measured,
        stage=Stage.LOGITS,
        name=name,
        against=against,
        measure=measure_name,
        number=number,
        limit=limit,
        passes=fine,
        seconds=time.monotonic() - started,
        note=note,
    )


def largest_difference(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """Returns the largest |difference| of two lists of rows."""
    return measure(np.concatenate(actual), np.concatenate(expected)).max_abs
