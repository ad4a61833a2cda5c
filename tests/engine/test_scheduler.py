"""Continuous batching on a real engine, the interpreter: nobody's tokens are lost or mixed up."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_runtime.engine.batch import CacheGroup, FloatRows
from qwen3_runtime.engine.prefill import prompt_logits
from qwen3_runtime.engine.scheduler import ScheduledStep, Scheduler, Sequence
from qwen3_runtime.errors import RequestError
from tests.ir.tiny import hard_weights, tiny_graph

GRAPH = tiny_graph(attributes=({"window": None}, {"window": 3}))
READ = hard_weights(GRAPH).__getitem__


class SmallSteps(Interpreter):
    """The interpreter with a bound on the tokens of a step, checked at each."""

    def __init__(self, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        super().__init__(GRAPH, READ, max_model_len=64, max_num_seqs=max_num_seqs)
        self._tokens = max_num_batched_tokens
        self.steps: list[tuple[int, ...]] = []

    @property
    def max_num_batched_tokens(self) -> int:
        return self._tokens

    def forward(self, batch) -> FloatRows:
        self.steps.append(tuple(batch.query_lens.tolist()))
        assert 0 < len(batch.token_ids) <= self._tokens
        assert len(batch.query_lens) <= self.max_num_seqs
        assert len(batch.places) == len(self.cache_groups)
        return super().forward(batch)


def prompts(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(lengths)
    return [rng.integers(0, GRAPH.vocab_size, length).tolist() for length in lengths]


def alone(prompt: SequenceOf[int]) -> FloatRows:
    """Logits of one sequence in one step of its own."""
    (rows,) = prompt_logits(SmallSteps(1, 64), [prompt])
    return rows


def assert_rows_are_those_of_each_alone(actual, wanted) -> None:
    for rows, prompt in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(rows, alone(prompt), rtol=0, atol=1e-6)


# ---- whole prompts --------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 3, 7, 64])
def test_prompts_in_chunks(budget):
    wanted = prompts(9, 1, 20, 4)
    engine = SmallSteps(max_num_seqs=4, max_num_batched_tokens=budget)
    assert_rows_are_those_of_each_alone(prompt_logits(engine, wanted), wanted)
    assert sum(map(sum, engine.steps)) == 34


def test_more_sequences_than_slots():
    wanted = prompts(5, 2, 8, 3, 1, 6, 2)
    engine = SmallSteps(max_num_seqs=2, max_num_batched_tokens=6)
    assert_rows_are_those_of_each_alone(prompt_logits(engine, wanted), wanted)
    assert max(map(len, engine.steps)) == 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 13))
def test_any_lengths_slots_and_budgets(lengths, slots, budget):
    wanted = prompts(*lengths)
    engine = SmallSteps(max_num_seqs=slots, max_num_batched_tokens=budget)
    assert_rows_are_those_of_each_alone(prompt_logits(engine, wanted), wanted)


def test_no_prompts_take_no_step():
    engine = SmallSteps(2, 8)
    assert prompt_logits(engine, []) == []
    assert engine.steps == []


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([], "prompt 1: a prompt needs at least one token"),
        (
            [0] * 65,
            "prompt 1: maximum context length is 64 tokens\n"
            "  got:      65 tokens\n"
            "  hint:     a larger max_model_len, or a shorter prompt",
        ),
        (
            [3, 37],
            "prompt 1: a token id is outside the vocabulary\n  got:      37\n  expected: 0 to 36",
        ),
        (
            [-1],
            "prompt 1: a token id is outside the vocabulary\n  got:      -1\n  expected: 0 to 36",
        ),
    ],
)
def test_prompts_that_cannot_be_served(prompt, text):
    engine = SmallSteps(2, 8)
    with pytest.raises(RequestError) as caught:
        prompt_logits(engine, [[1, 2], prompt])
    assert str(caught.value) == text
    assert engine.steps == [], "nothing is run for the others either"


# ---- steps ----------------------------------------------------------------------------------


def run(scheduler: Scheduler, engine: SmallSteps) -> tuple[ScheduledStep, FloatRows]:
    step = scheduler.schedule()
    logits = engine.forward(step.batch)
    assert len(logits) == sum(len(share.logit_rows) for share in step.shares)
    scheduler.advance(step)
    return step, logits


def generate(
    engine: SmallSteps, wanted: SequenceOf[SequenceOf[int]], counts: SequenceOf[int]
) -> list[list[int]]:
    """Greedy continuations of some prompts, batched as they come."""
    scheduler = Scheduler(engine)
    sequences = [Sequence(list(prompt)) for prompt in wanted]
    for sequence in sequences:
        scheduler.add(sequence)
    left = dict(zip(map(id, sequences), counts, strict=True))
    while scheduler.has_work:
        step, logits = run(scheduler, engine)
        for share in step.shares:
            assert share.is_complete == (len(share.logit_rows) == 1)
            if share.is_complete:
                token = int(logits[share.logit_rows[0]].argmax())
                share.sequence.token_ids.append(token)
                left[id(share.sequence)] -= 1
                if left[id(share.sequence)] == 0:
                    scheduler.finish(share.sequence)
    assert all(sequence.slot is None for sequence in sequences)
    return [s.token_ids[len(p) :] for s, p in zip(sequences, wanted, strict=True)]


def test_prefills_join_running_decodes():
    wanted, counts = prompts(3, 11, 2, 7, 5), [6, 2, 9, 4, 1]
    engine = SmallSteps(max_num_seqs=3, max_num_batched_tokens=5)
    together = generate(engine, wanted, counts)
    for prompt, count, tokens in zip(wanted, counts, together, strict=True):
        assert tokens == generate(SmallSteps(1, 64), [prompt], [count])[0]
    assert any(1 in lens and max(lens) > 1 for lens in engine.steps), "a mixed step"


def test_decodes_come_before_what_is_left_of_prompts():
    engine = SmallSteps(max_num_seqs=3, max_num_batched_tokens=4)
    scheduler = Scheduler(engine)
    long, short = (Sequence(ids) for ids in prompts(20, 2))
    scheduler.add(short)
    scheduler.add(long)
    step, _ = run(scheduler, engine)
    assert [(s.sequence, s.num_tokens) for s in step.shares] == [(short, 2), (long, 2)]
    short.token_ids.append(5)
    step, logits = run(scheduler, engine)
    assert [(s.sequence, s.num_tokens) for s in step.shares] == [(short, 1), (long, 3)]
    assert [s.is_complete for s in step.shares] == [True, False]
    assert len(logits) == 1, "a prompt that goes on needs no logits"
    assert step.batch.seq_lens.tolist() == [3, 5]
    assert step.batch.positions.tolist() == [2, 2, 3, 4]


def test_first_come_first_served():
    engine = SmallSteps(max_num_seqs=1, max_num_batched_tokens=64)
    scheduler = Scheduler(engine)
    sequences = [Sequence(ids) for ids in prompts(3, 1, 2)]
    for sequence in sequences:
        scheduler.add(sequence)
    for sequence in sequences:
        step, _ = run(scheduler, engine)
        assert [share.sequence for share in step.shares] == [sequence]
        scheduler.finish(sequence)
    assert not scheduler.has_work


def test_rows_are_told_apart():
    engine = SmallSteps(max_num_seqs=3, max_num_batched_tokens=64)
    scheduler = Scheduler(engine)
    every, last = Sequence(prompts(4)[0], wants_all_logits=True), Sequence(prompts(3)[0])
    for sequence in (last, every):
        scheduler.add(sequence)
    step, logits = run(scheduler, engine)
    assert [share.logit_rows for share in step.shares] == [range(0, 1), range(1, 5)]
    assert step.batch.logit_rows.tolist() == [2, 3, 4, 5, 6]
    np.testing.assert_allclose(logits[0], alone(last.token_ids)[-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(logits[1:], alone(every.token_ids), rtol=0, atol=1e-6)


def test_is_complete_stays_what_it_was_when_tokens_are_added():
    scheduler = Scheduler(SmallSteps(1, 2))
    sequence = Sequence([1, 2, 3])
    scheduler.add(sequence)
    first = scheduler.schedule()
    scheduler.advance(first)
    second = scheduler.schedule()
    scheduler.advance(second)
    sequence.token_ids.append(4)
    assert [step.shares[0].is_complete for step in (first, second)] == [False, True]


def test_slots_come_back_whatever_the_state():
    scheduler = Scheduler(SmallSteps(max_num_seqs=2, max_num_batched_tokens=3))
    running, second, waiting = (Sequence(ids) for ids in prompts(9, 1, 1))
    for sequence in (running, second, waiting):
        scheduler.add(sequence)
    scheduler.schedule()
    assert waiting.slot is None
    assert {running.slot, second.slot} == {0, 1}
    scheduler.finish(waiting)
    scheduler.finish(running)
    scheduler.finish(running)  # twice does no harm
    scheduler.finish(Sequence([1]))  # nor one it never saw
    assert [sequence.slot for sequence in (running, waiting)] == [None, None]
    others = [Sequence([1]), Sequence([2])]
    for sequence in others:
        scheduler.add(sequence)
    scheduler.schedule()
    assert {second.slot, others[0].slot} == {0, 1}
    assert others[1].slot is None


def test_every_cache_group_gets_the_slots():
    class TwoGroups(SmallSteps):
        @property
        def cache_groups(self) -> tuple[CacheGroup, ...]:
            return super().cache_groups * 2

    scheduler = Scheduler(TwoGroups(2, 8))
    for ids in prompts(2, 3):
        scheduler.add(Sequence(ids))
    batch = scheduler.schedule().batch
    assert [places.slots.tolist() for places in batch.places] == [[0, 1], [0, 1]]
    assert all(array.dtype == np.int32 for array in (batch.token_ids, batch.places[1].slots))
