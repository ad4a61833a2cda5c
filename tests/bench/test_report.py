"""Figures of made-up times, worked out by hand or by NumPy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qwen3_codegen.bench import AnswerTimes, file_prompts, random_prompts, summarize
from qwen3_codegen.bench.load import arrival_times
from qwen3_codegen.bench.report import Distribution
from qwen3_codegen.errors import CodegenError


def answer(started: float, chunks: list[float], **fields: object) -> AnswerTimes:
    known = {
        "ended": chunks[-1] if chunks else started,
        "num_prompt_tokens": 10,
        "num_output_tokens": len(chunks),
        "num_cached_tokens": 4,
    }
    return AnswerTimes(started=started, chunks=tuple(chunks), **{**known, **fields})


def test_two_answers_by_hand():
    report = summarize(
        [
            answer(1.0, [1.5, 1.7, 2.1]),
            # Five tokens in two events: half a character was held back.
            answer(2.0, [2.1, 3.0], num_output_tokens=5, ended=3.5),
            AnswerTimes(started=0.0, error="HTTP 429: too many"),
        ]
    )
    assert (report.num_requests, report.num_failed) == (3, 1)
    assert report.errors == ("HTTP 429: too many",)
    assert report.duration_s == pytest.approx(2.5)
    assert (report.total_prompt_tokens, report.total_cached_tokens) == (20, 8)
    assert report.total_output_tokens == 8
    assert report.request_throughput == pytest.approx(0.8)
    assert report.output_throughput == pytest.approx(3.2)
    assert report.total_token_throughput == pytest.approx(11.2)
    assert report.ttft_ms.mean == pytest.approx(300)
    assert report.tpot_ms.mean == pytest.approx((0.6 / 2 + 0.9 / 4) / 2 * 1e3)
    assert report.itl_ms.p50 == pytest.approx(400)  # of 0.2, 0.4 and 0.9
    assert report.e2e_ms.mean == pytest.approx(1300)
    assert json.loads(json.dumps(report.to_json()))["ttft_ms"]["mean"] == pytest.approx(300)


def test_percentiles_lie_between_neighbours():
    times = np.random.default_rng(3).exponential(size=57)
    found = Distribution.of(times.tolist())
    ordered = np.sort(times)
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        place = share * (len(times) - 1)
        below = math.floor(place)
        value = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
        assert getattr(found, name) == pytest.approx(value * 1e3)
        assert getattr(found, name) == pytest.approx(np.percentile(times, share * 100) * 1e3)
    assert found.mean == pytest.approx(times.mean() * 1e3)


def test_nothing_to_measure():
    report = summarize([AnswerTimes(started=0.0, error="gone"), answer(0.0, [])])
    assert (report.num_failed, report.output_throughput, report.ttft_ms.p99) == (2, 0.0, 0.0)
    assert report.errors == ("gone", "an answer without text")


def test_random_prompts_repeat_and_share():
    prompts = random_prompts(5, 30, vocab_size=97, shared_prefix_len=12, seed=7)
    assert prompts == random_prompts(5, 30, vocab_size=97, shared_prefix_len=12, seed=7)
    assert all(len(prompt) == 30 and max(prompt) < 97 for prompt in prompts)
    assert len({tuple(prompt[:12]) for prompt in prompts}) == 1
    assert len({tuple(prompt[12:]) for prompt in prompts}) == 5
    assert prompts != random_prompts(5, 30, vocab_size=97, shared_prefix_len=12, seed=8)
    with pytest.raises(CodegenError, match="longer than the prompts"):
        random_prompts(1, 5, vocab_size=97, shared_prefix_len=6)


def test_prompts_of_a_file_are_used_in_turn(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('first\n\n{"prompt": "second"}\n{"prompt": [1, 2]}\n', encoding="utf-8")
    assert file_prompts(file, 4) == ["first", "second", [1, 2], "first"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n", "no prompt in this file"),
        ('{"text": "a"}', r"prompts\.jsonl:1: this line is no JSON object"),
        ('a\n{"prompt": [true]}', r"prompts\.jsonl:2: a prompt is text or a list"),
    ],
)
def test_files_without_prompts(tmp_path, text, expected):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CodegenError, match=expected):
        file_prompts(file, 1)


def test_arrivals():
    assert arrival_times(3, math.inf, 0) == [0.0, 0.0, 0.0]
    times = arrival_times(2001, 4.0, 1)
    gaps = np.diff(times)
    assert times[0] == 0.0
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.1)
    assert gaps.std() == pytest.approx(1 / 4, rel=0.1)  # an exponential's is its mean
