"""Times of many answers as the figures people compare servers by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qwen3_codegen.bench.requests import AnswerTimes

__all__ = ["Distribution", "Report", "summarize"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and percentiles of times, in milliseconds; NaN-free: all 0 where there is no time."""

    mean: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Distribution:
        """Percentiles lie between neighbours in proportion, NumPy's ``linear``."""
        if not seconds:
            return cls(0.0, 0.0, 0.0, 0.0)
        p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
        return cls(*(float(value) * 1e3 for value in (np.mean(seconds), p50, p95, p99)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a load showed; the names are those of vLLM's benchmark."""

    num_requests: int
    num_failed: int
    duration_s: float
    """From the first request to the end of the last answer."""
    total_prompt_tokens: int
    total_cached_tokens: int
    """Of the prompts, found in the server's cache."""
    total_output_tokens: int
    request_throughput: float
    """Answers per second."""
    output_throughput: float
    """Generated tokens per second."""
    total_token_throughput: float
    """Tokens of prompts and answers per second."""
    ttft_ms: Distribution
    """Time to first token: from sending a request to its first text."""
    tpot_ms: Distribution
    """Time per output token: of each answer, (end - first) / (tokens - 1)."""
    itl_ms: Distribution
    """Inter-token latency: gaps between neighbouring events, of all answers together."""
    e2e_ms: Distribution
    """From sending a request to the end of its answer."""
    errors: tuple[str, ...] = ()
    """What failed requests were told, each once."""

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        return asdict(self)


def summarize(answers: Sequence[AnswerTimes]) -> Report:
    """Returns the figures of answers; those that failed count as failed and nowhere else."""
    good = [answer for answer in answers if answer.error is None and answer.chunks]
    failed = [answer.error or "an answer without text" for answer in answers if answer not in good]
    duration = 0.0
    if good:
        duration = max(a.ended for a in good) - min(a.started for a in good)
    prompt, output = (
        sum(getattr(answer, name) for answer in good)
        for name in ("num_prompt_tokens", "num_output_tokens")
    )
    per_second = 1.0 / duration if duration > 0 else 0.0
    return Report(
        num_requests=len(answers),
        num_failed=len(failed),
        duration_s=duration,
        total_prompt_tokens=prompt,
        total_cached_tokens=sum(answer.num_cached_tokens for answer in good),
        total_output_tokens=output,
        request_throughput=len(good) * per_second,
        output_throughput=output * per_second,
        total_token_throughput=(prompt + output) * per_second,
        ttft_ms=Distribution.of([answer.chunks[0] - answer.started for answer in good]),
        tpot_ms=Distribution.of(
            [
                (answer.chunks[-1] - answer.chunks[0]) / (answer.num_output_tokens - 1)
                for answer in good
                if answer.num_output_tokens > 1
            ]
        ),
        itl_ms=Distribution.of(
            [
                later - earlier
                for answer in good
                for earlier, later in zip(answer.chunks, answer.chunks[1:], strict=False)
            ]
        ),
        e2e_ms=Distribution.of([answer.ended - answer.started for answer in good]),
        errors=tuple(dict.fromkeys(failed)),
    )
