"""The whole of it: an engine is led through a script, and every value is judged."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.verification.inner_parts import with_norms
from qwen3_codegen.verification.layer_stage import check_values
from qwen3_codegen.verification.limits import RELATIVE_BOUND
from qwen3_codegen.verification.logit_stage import check_greedy, check_logits, largest_difference
from qwen3_codegen.verification.measure import Array
from qwen3_codegen.verification.observed import Observations, Reference
from qwen3_codegen.verification.op_stage import check_ops, num_op_checks
from qwen3_codegen.verification.report import Check, Report
from qwen3_codegen.verification.script import NUM_SEQUENCES, Played, Script, greedy, play
from qwen3_codegen.verification.subject import Subject
from qwen3_codegen.verification.tensor_dump import write_dump
from qwen3_runtime.engine.batch import FloatRows
from qwen3_runtime.engine.capacity import Limits

__all__ = ["Progress", "Request", "default_prompt_len", "engine_limits", "verify_engine"]

_SHORTEST_PROMPT = 32
_LONGEST_DEFAULT_PROMPT = 264
"""Windows up to 256 tokens are seen without being asked for."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0: unknown)."""

MakeReferences = Callable[[Played[Mapping[str, Array]]], Iterable[Reference]]
"""Given what the engine showed, gives the references to compare with, one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to do with an engine."""

    script: Script
    num_greedy_tokens: int
    dump_tensors: Path | None = None


def default_prompt_len(graph: Graph, num_greedy_tokens: int) -> int:
    """Returns tokens enough to look past the windows of a model, unless they are long."""
    windows = [window + 8 for window in _windows(graph) if window + 8 <= _LONGEST_DEFAULT_PROMPT]
    longest = graph.max_position_embeddings - num_greedy_tokens - 8
    return max(1, min(longest, max([_SHORTEST_PROMPT, *windows])))


def engine_limits(request: Request) -> Limits:
    """Returns the limits an engine needs for a request."""
    return Limits(
        max_model_len=request.script.max_len + request.num_greedy_tokens,
        max_num_seqs=NUM_SEQUENCES,
        max_num_batched_tokens=request.script.max_num_batched_tokens,
    )


def verify_engine(
    subject: Subject,
    request: Request,
    read: Callable[[str], Array],
    references: MakeReferences,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Verifies an engine op by op, layer by layer, and by its logits and greedy tokens.

    Args:
        subject: The engine.
        request: Tokens and lengths.
        read: Gives a checkpoint's tensor by name.
        references: What to compare layers and logits with.
        progress: Told while it runs.

    Raises:
        CodegenError: A build failed, or a reference cannot be had.
        RuntimeFault: The checkpoint does not fit, or a step failed.
    """
    started = time.monotonic()
    report = Report(subject=subject.facts)
    limits = engine_limits(request)
    subject.check_fit(limits)
    progress("the engine as it is used", 0, 0)
    logits, tokens = _use(subject, request, limits)
    progress("the engine with every value in sight", 0, 0)
    engine = subject.traced(limits)
    played = play(engine, request.script, engine.trace)
    del engine
    gc.collect()
    traced = _traced_logits(subject, played)
    is_same = all(np.array_equal(a, b) for a, b in zip(traced, logits, strict=True))
    report.notes += _notes(subject, request, traced, logits)
    if request.dump_tensors is not None:
        write_dump(request.dump_tensors, played, subject.graph, subject.facts)
    _run_ops(subject, limits, read, played, report, progress)
    assert limits.max_model_len is not None
    played = with_norms(subject.graph, played, limits.max_model_len)
    for reference in references(played):
        progress(reference.title, 0, 0)
        report.references.append(reference.title)
        observations = reference.observe(request.script.token_ids)
        report.notes += observations.notes
        inside = list(check_values(subject.graph, played, observations, reference.title))
        # Values of the traced engine excuse no op of the ordinary one where the two differ.
        unmatched = {each.name for each in observations.unmatched}
        compared = {
            check.name: not check.failed
            for check in inside
            if is_same and check.name not in unmatched
        }
        report.checks += inside
        report.checks += _check_results(
            subject, request, logits, tokens, reference, observations, compared
        )
    report.checks.sort(key=lambda check: list(type(check.stage)).index(check.stage))
    report.seconds = time.monotonic() - started
    return report


def _use(
    subject: Subject, request: Request, limits: Limits
) -> tuple[list[FloatRows], list[list[int]]]:
    """Logits of the script and greedy tokens of the ordinary engine."""
    engine = subject.ordinary(limits)
    played = play(engine, request.script, engine.forward)
    logits = played.by_sequence(lambda rows: rows)
    tokens = greedy(engine, _prompts(request.script), request.num_greedy_tokens)
    return logits, tokens


def _prompts(script: Script) -> list[tuple[int, ...]]:
    return [each.token_ids[: each.prompt_len] for each in script.sequences]


def _run_ops(
    subject: Subject,
    limits: Limits,
    read: Callable[[str], Array],
    played: Played[Mapping[str, Array]],
    report: Report,
    progress: Progress,
) -> None:
    assert limits.max_model_len is not None
    total = num_op_checks(subject.graph)
    checks = check_ops(subject, read, limits.max_model_len, played)
    for done, check in enumerate(checks, start=1):
        progress("op by op", done, total)
        report.checks.append(check)


def _check_results(
    subject: Subject,
    request: Request,
    logits: list[FloatRows],
    tokens: list[list[int]],
    reference: Reference,
    observations: Observations,
    compared: Mapping[str, bool],
) -> list[Check]:
    dtype = subject.graph.dtype
    if not observations.logits:
        return []
    title = reference.title
    checks = list(
        check_logits(subject.graph, subject.lowering, logits, observations, title, compared)
    )
    prompts = _prompts(request.script)
    whole = [[*prompt, *new] for prompt, new in zip(prompts, tokens, strict=True)]
    expected = reference.logits(whole)
    if expected is None:
        return checks
    error = largest_difference(logits, observations.logits)
    if dtype is DType.F32:
        error = RELATIVE_BOUND * max(1.0, *(float(np.abs(rows).max()) for rows in expected))
    return [*checks, check_greedy(tokens, prompts, expected, error, title)]


def _traced_logits(subject: Subject, played: Played[Mapping[str, Array]]) -> list[Array]:
    name = f"epilogue.{subject.graph.epilogue.results[0]}"
    return played.by_sequence(lambda trace: trace[name])


def _notes(
    subject: Subject, request: Request, traced: list[Array], logits: list[FloatRows]
) -> list[str]:
    notes = []
    if (difference := largest_difference(traced, logits)) > 0:
        notes.append(
            "logits of the traced and the ordinary engine differ, by at most "
            f"{difference:.2g}: ops were checked in the traced one"
        )
    length = request.script.max_len
    if hidden := sorted(window for window in _windows(subject.graph) if window >= length - 1):
        notes.append(
            f"a window of {', '.join(map(str, hidden))} tokens is longer than the {length} tokens "
            "that were run, so its size was not seen; --prompt-len makes them more"
        )
    return notes


def _windows(graph: Graph) -> set[int]:
    found = {node.attributes.get("window") for region in graph.layer_kinds for node in region.nodes}
    return {window for window in found if isinstance(window, int)}
