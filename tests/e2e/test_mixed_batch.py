"""A sequence gets what it gets alone, whatever shares its batches and whoever had its slot."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3_codegen import SamplingParams
from qwen3_runtime.engine.batch import Batch
from tests.e2e.stepping import Arrival, ride
from tests.reference.models import assert_logits_match, logits_bound

pytestmark = pytest.mark.compile

GQA_AND_WINDOWS = ["qwen3-gqa-7x2", "qwen3-window-1", "qwen3-window-8", "phi3-window", "gemma3"]
MAX_MODEL_LEN = 200

every_case = pytest.mark.parametrize("id", GQA_AND_WINDOWS)


def arrivals_of(model, *shapes: tuple[int, int, int]) -> list[Arrival]:
    """(total length, prompt length, step of arrival) of each sequence."""
    return [
        Arrival(model.prompt(length=total, index=10 + index), prompt_len, step)
        for index, (total, prompt_len, step) in enumerate(shapes)
    ]


def num_decodes(batch: Batch) -> int:
    return int(((batch.query_lens == 1) & (batch.seq_lens > 1)).sum())


def num_prefills(batch: Batch) -> int:
    return int((batch.query_lens > 1).sum())


def assert_as_alone(engine, model, arrivals, logits) -> None:
    """Compares with a ride alone on the same engine, and with transformers."""
    for arrival, actual in zip(arrivals, logits, strict=True):
        alone = Arrival(arrival.token_ids, arrival.prompt_len)
        (expected,) = ride(engine, [alone]).logits
        assert np.abs(actual - expected).max() <= logits_bound(expected)
        assert_logits_match(actual, model.logits(arrival.token_ids))


@every_case
def test_prefills_of_several_lengths_together_with_decodes(id, reference, open_llm):
    model = reference(id)
    engine = open_llm(model.path, max_num_seqs=5, max_model_len=MAX_MODEL_LEN).engine
    arrivals = arrivals_of(
        model, (80, 60, 0), (9, 3, 0), (140, 130, 2), (30, 1, 2), (75, 64, 4), (70, 2, 0)
    )
    together = ride(engine, arrivals)
    mixed = [b for b in together.batches if num_prefills(b) >= 1 and num_decodes(b) >= 2]
    assert len(mixed) >= 2
    assert_as_alone(engine, model, arrivals, together.logits)


@every_case
@pytest.mark.parametrize("budget", [5, 48])
def test_prompts_in_chunks(id, budget, reference, open_llm):
    model = reference(id)
    engine = open_llm(
        model.path,
        max_num_seqs=3,
        max_model_len=MAX_MODEL_LEN,
        max_num_batched_tokens=budget,
    ).engine
    arrivals = arrivals_of(model, (133, 129, 0), (70, 50, 0), (20, 7, 3))
    together = ride(engine, arrivals)
    assert max(len(batch.token_ids) for batch in together.batches) == budget
    chunks = [b for b in together.batches if num_prefills(b) and num_decodes(b)]
    assert chunks, "no chunk shared a step with a decode"
    assert_as_alone(engine, model, arrivals, together.logits)


@every_case
def test_a_slot_is_reused_after_a_longer_sequence(id, reference, open_llm):
    model = reference(id)
    engine = open_llm(model.path, max_num_seqs=2, max_model_len=MAX_MODEL_LEN).engine
    arrivals = arrivals_of(
        model, (180, 178, 0), (150, 149, 0), (5, 3, 0), (66, 63, 0), (130, 1, 0), (8, 8, 0)
    )
    together = ride(engine, arrivals)
    assert all(len(slots) == 1 for slots in together.slots)
    assert len(set.union(*together.slots)) == 2
    assert_as_alone(engine, model, arrivals, together.logits)


def test_what_an_earlier_sequence_left_behind_never_matters(reference, open_llm):
    """Not even in the last bit."""
    model = reference("qwen3-window-8")
    llm = open_llm(model.path, max_num_seqs=1, max_model_len=MAX_MODEL_LEN)
    prompt = model.prompt(length=70, index=20)
    expected = llm.logits([prompt])
    for length in (199, 3, 128, 65):
        llm.logits([model.prompt(length=length, index=21)])
        np.testing.assert_array_equal(llm.logits([prompt])[0], expected[0])


def test_more_prompts_than_sequences_in_flight(reference, open_llm):
    model = reference("qwen3-window-8")
    llm = open_llm(model.path, max_num_seqs=3, max_num_batched_tokens=16)
    prompts = model.prompts() * 4
    outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True))
    assert [list(output.token_ids) for output in outputs] == [
        model.greedy(prompt)[:24] for prompt in prompts
    ]


def test_sampling_parameters_of_each_prompt(reference, open_llm):
    """Sequences of one batch end at different times, each for its own reason."""
    model = reference("qwen3-gqa-7x2")
    llm = open_llm(model.path)
    prompts = model.prompts()
    tokens = [model.greedy(prompt) for prompt in prompts]
    stop = tokens[1][9]
    outputs = llm.generate(
        prompts,
        [
            SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True),
            SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True, stop_token_ids=(stop,)),
            SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True),
        ],
    )
    until_stop = tokens[1].index(stop) + 1
    assert [list(output.token_ids) for output in outputs] == [
        tokens[0][:40],
        tokens[1][:until_stop],
        tokens[2][:2],
    ]
    assert [output.finish_reason for output in outputs] == ["length", "stop", "length"]


def test_one_engine_serves_many_requests(reference, open_llm):
    model = reference("qwen3-window-3")
    llm = open_llm(model.path)
    greedy = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
    rng = np.random.default_rng(7)
    for _ in range(60):
        indices = rng.integers(0, len(model.case.prompt_lens), size=rng.integers(1, 7))
        prompts = [model.prompt(index=int(index)) for index in indices]
        outputs = llm.generate(prompts, greedy)
        assert [list(o.token_ids) for o in outputs] == [model.greedy(p)[:5] for p in prompts]


@pytest.mark.network
def test_mixed_on_the_real_infinicore(reference, open_llm, real_infinicore):
    model = reference("qwen3-window-8")
    engine = open_llm(
        model.path,
        max_num_seqs=2,
        max_model_len=MAX_MODEL_LEN,
        max_num_batched_tokens=48,
        infinicore=real_infinicore,
    ).engine
    arrivals = arrivals_of(model, (180, 178, 0), (70, 50, 0), (30, 7, 3), (66, 63, 0))
    assert_as_alone(engine, model, arrivals, ride(engine, arrivals).logits)
