"""Perplexity is that of the logits, and that of transformers, whatever the windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qwen3_codegen import LLM
from qwen3_runtime.errors import EngineError, RequestError
from qwen3_runtime.perplexity import Window, measure_perplexity, sliding_windows
from tests.engine.toy_engine import ToyEngine

NUM_TOKENS = 61
SIZES = [(61, 61), (16, 8), (16, 16), (20, 7), (9, 1), (64, 32)]


@pytest.fixture(scope="module")
def model(reference):
    return reference("qwen3-window-3")


@pytest.fixture(scope="module")
def llm(model):
    with LLM(model.path, engine="interpreter", max_num_seqs=3, max_model_len=64) as opened:
        yield opened


def guide(model, ids: list[int], ctx_len: int, stride: int) -> float:
    """Hugging Face's loop, each window's loss weighed by the labels it really has."""
    total, count, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + ctx_len, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        labels = inputs.clone()
        labels[:, : -(end - previous_end)] = -100
        num_labels = int((labels[:, 1:] != -100).sum())
        if num_labels:
            with torch.inference_mode():
                loss = model.model(inputs, labels=labels).loss
            total, count = total + float(loss) * num_labels, count + num_labels
        previous_end = end
        if end == len(ids):
            break
    return math.exp(total / count)


@pytest.mark.parametrize(("ctx_len", "stride"), SIZES)
def test_it_is_that_of_transformers(llm, model, ctx_len, stride):
    ids = model.prompt(NUM_TOKENS)
    found = llm.perplexity(ids, ctx_len=ctx_len, stride=stride)
    assert found.perplexity == pytest.approx(guide(model, ids, ctx_len, stride), rel=1e-4)


@pytest.mark.parametrize(("ctx_len", "stride"), SIZES)
def test_it_is_that_of_the_logits(llm, model, ctx_len, stride):
    ids = model.prompt(NUM_TOKENS)
    told = []
    found = llm.perplexity(ids, ctx_len=ctx_len, stride=stride, on_progress=told.append)
    nll = []
    for window in sliding_windows(NUM_TOKENS, ctx_len, stride):
        (rows,) = llm.logits([ids[window.begin : window.end]])
        rows = rows.astype(np.float64)
        logprobs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        nll += [
            -logprobs[i - window.begin - 1, ids[i]] for i in range(window.first_scored, window.end)
        ]
    assert found.mean_nll == pytest.approx(np.mean(nll), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.mean_nll))
    assert found.num_scored_tokens == len(nll) == sum(told)
    assert found.num_windows == len(told)


@pytest.mark.parametrize(("ctx_len", "stride"), SIZES)
def test_every_token_with_context_is_scored_once(ctx_len, stride):
    windows = list(sliding_windows(NUM_TOKENS, ctx_len, stride))
    scored = [i for window in windows for i in range(window.first_scored, window.end)]
    without = range(0, NUM_TOKENS, stride) if stride == ctx_len else [0]
    assert scored == [i for i in range(NUM_TOKENS) if i not in without]
    assert all(w.begin < w.first_scored and w.end - w.begin <= ctx_len for w in windows)


def test_a_last_token_alone_is_no_window():
    assert list(sliding_windows(9, 4, 4)) == [Window(0, 4, 1), Window(4, 8, 5)]


def test_first_windows_only(llm, model):
    ids = model.prompt(NUM_TOKENS)
    first = llm.perplexity(ids, ctx_len=16, stride=8, max_windows=2)
    assert (first.num_windows, first.num_tokens) == (2, 24)
    assert first.mean_nll == llm.perplexity(ids[:24], ctx_len=16, stride=8).mean_nll


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ctx_len": 65}, "ctx_len is out of range"),
        ({"ctx_len": 1}, "ctx_len is out of range"),
        ({"ctx_len": 8, "stride": 9}, "no token is left out"),
    ],
)
def test_lengths_that_do_not_fit(llm, options, expected):
    with pytest.raises(RequestError, match=expected):
        llm.perplexity([1, 2, 3], **options)


def test_texts_that_cannot_be_scored(llm):
    with pytest.raises(RequestError, match="at least two tokens"):
        llm.perplexity([1])
    with pytest.raises(RequestError, match="outside the vocabulary"):
        llm.perplexity([1, llm.engine.vocab_size])
    with pytest.raises(RequestError, match="no tokenizer"):
        llm.perplexity("text")


def test_a_failing_step_leaves_the_engine_usable():
    engine = ToyEngine()
    engine.fails_at = {2}
    ids = [index % 90 for index in range(100)]
    with pytest.raises(EngineError, match="device is gone"):
        measure_perplexity(engine, ids, ctx_len=40)
    again = measure_perplexity(engine, ids, ctx_len=40)
    assert again == measure_perplexity(ToyEngine(), ids, ctx_len=40)
