"""Masks, biases, penalties and log-probabilities: compiled, in NumPy, and as the field has them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from qwen3_runtime.errors import EngineError
from qwen3_runtime.sampling import Draw, Sampler, SamplingParams, reference, sampler_for

VOCAB = 71
Array = np.ndarray[Any, Any]


class CompiledKernels:
    """The C++ functions behind the arrays that ``SamplingKernels`` takes."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self.loaded = loaded

    def sample_rows(self, logits: Array, *parameters: Array) -> Array:
        return reference.sample_rows(logits, *parameters)

    def adjust_rows(
        self,
        logits: Array,
        masks: Array,
        mask_rows: Array,
        bias_ids: Array,
        bias_values: Array,
        bias_ends: Array,
        context: Array,
        context_ends: Array,
        prompt_lens: Array,
        penalties: Array,
    ) -> None:
        bias, tokens = 0, 0
        for row, values in enumerate(logits):
            mask = masks[mask_rows[row]] if mask_rows[row] >= 0 else np.zeros(0, np.uint32)
            ids, added = bias_ids[bias : bias_ends[row]], bias_values[bias : bias_ends[row]]
            seen = context[tokens : context_ends[row]]
            bias, tokens = bias_ends[row], context_ends[row]
            sizes = [mask, len(mask), ids, added, len(ids), seen, len(seen), int(prompt_lens[row])]
            self._call("adjust_row", values, VOCAB, *sizes, penalties[row])

    def logprob_rows(self, logits: Array, tokens: Array, num_top: int) -> tuple[Array, ...]:
        count = len(logits)
        found = (
            np.empty(count, np.float32),
            np.empty(count, np.int32),
            np.empty((count, num_top), np.int32),
            np.empty((count, num_top), np.float32),
        )
        self._call("logprob_rows", logits, count, logits.shape[1], tokens, num_top, *found)
        return found

    def _call(self, name: str, *arguments: Any) -> None:
        error = ctypes.create_string_buffer(256)
        converted = [
            argument.ctypes.data_as(ctypes.c_void_p)
            if isinstance(argument, np.ndarray)
            else ctypes.c_size_t(argument)
            for argument in arguments
        ]
        if getattr(self.loaded, name)(*converted, error, ctypes.c_size_t(len(error))):
            raise EngineError(error.value.decode())


@pytest.fixture(params=["compiled", "reference"])
def sampler(request: pytest.FixtureRequest) -> Sampler:
    if request.param == "reference":
        return sampler_for(object())
    return Sampler(CompiledKernels(request.getfixturevalue("library")))


pytestmark = pytest.mark.compile


def greedy(sampler: Sampler, logits: Array, context: list[int] | None = None, **fields: Any) -> int:
    """The likeliest token after a request's changes; ``draw`` fields and parameters mixed."""
    own = {name: fields.pop(name) for name in ("banned", "mask") if name in fields}
    prompt_len = fields.pop("prompt_len", 0)
    params = SamplingParams(temperature=0, **fields)
    draw = Draw(params, 0, context or [], prompt_len, **own)
    (token,) = sampler.sample(np.asarray([logits], np.float32), [draw])
    return token


def rising(**changes: float) -> Array:
    """Logits 0.00, 0.01, ... with some changed by name t<id>."""
    logits = np.arange(VOCAB, dtype=np.float32) / 100
    for name, value in changes.items():
        logits[int(name[1:])] = value
    return logits


def test_a_bias_is_added(sampler: Sampler) -> None:
    assert greedy(sampler, rising()) == VOCAB - 1
    assert greedy(sampler, rising(), logit_bias={3: 5.0}) == 3
    assert greedy(sampler, rising(), logit_bias={VOCAB - 1: -100.0}) == VOCAB - 2
    assert greedy(sampler, rising(), logit_bias={"4": 9, 3: 5.0}) == 4


def test_banned_tokens_are_not_chosen(sampler: Sampler) -> None:
    assert greedy(sampler, rising(), banned=[VOCAB - 1, VOCAB - 2]) == VOCAB - 3
    with pytest.raises(EngineError, match="no token is possible"):
        greedy(sampler, rising(), banned=range(VOCAB))


def test_a_mask_leaves_its_own_and_nothing_beyond_its_words(sampler: Sampler) -> None:
    mask = np.zeros(3, np.uint32)
    mask[1] = 1 << 7 | 1 << 2
    assert greedy(sampler, rising(), mask=mask) == 39
    assert greedy(sampler, rising(), mask=np.array([0xFFFFFFFF], np.uint32)) == 31


def test_repetition_counts_prompt_and_answer_and_follows_the_sign(sampler: Sampler) -> None:
    logits = rising(t10=2.0, t11=1.5)
    assert greedy(sampler, logits, [10], prompt_len=1, repetition_penalty=1.5) == 11
    assert greedy(sampler, logits, [10], prompt_len=0, repetition_penalty=1.5) == 11
    below = np.full(VOCAB, -3.0, np.float32)
    below[:2] = (-1.0, -1.4)
    assert greedy(sampler, below, [0], prompt_len=1, repetition_penalty=1.5) == 1
    assert greedy(sampler, below, [1], prompt_len=1, repetition_penalty=0.5) == 1


def test_presence_and_frequency_count_the_answer_alone(sampler: Sampler) -> None:
    logits = rising(t10=2.0, t11=1.5)
    assert greedy(sampler, logits, [10], prompt_len=1, presence_penalty=2.0) == 10
    assert greedy(sampler, logits, [5, 10], prompt_len=1, presence_penalty=0.6) == 11
    assert greedy(sampler, logits, [5, 10, 10], prompt_len=1, frequency_penalty=0.2) == 10
    assert greedy(sampler, logits, [5, 10, 10, 10], prompt_len=1, frequency_penalty=0.2) == 11
    assert greedy(sampler, logits, [5, *[3] * 2], prompt_len=1, frequency_penalty=-2.0) == 3


def test_logits_are_left_alone_and_rows_do_not_mix(sampler: Sampler) -> None:
    logits = np.stack([rising()] * 3)
    before = logits.copy()
    plain = SamplingParams(temperature=0)
    biased = SamplingParams(temperature=0, logit_bias={2: 50.0})
    draws = [Draw(plain, 0, [1], 1), Draw(biased, 0, [1], 1), Draw(plain, 0, [1], 1)]
    assert sampler.sample(logits, draws) == [VOCAB - 1, 2, VOCAB - 1]
    np.testing.assert_array_equal(logits, before)


def test_compiled_and_reference_change_rows_alike(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(5)
    count = 60
    logits = (rng.standard_normal((count, VOCAB)) * 3).astype(np.float32)
    draws = []
    for row in range(count):
        params = SamplingParams(
            temperature=0.8,
            repetition_penalty=float(rng.choice([1.0, 1.3, 0.7])),
            presence_penalty=float(rng.choice([0.0, 0.4])),
            frequency_penalty=float(rng.choice([0.0, -0.3, 1.1])),
            logit_bias={int(token): 1.5 for token in rng.integers(0, VOCAB, row % 4)},
        )
        mask = rng.integers(0, 2**32, 3, np.uint32) if row % 3 == 0 else None
        context = rng.integers(0, VOCAB, row % 9).tolist()
        draws.append(
            Draw(params, row, context, len(context) // 2, [5] if row % 7 == 0 else [], mask)
        )
    rows = [logits.copy(), logits.copy()]
    Sampler(CompiledKernels(library))._adjust(rows[0], draws)
    sampler_for(object())._adjust(rows[1], draws)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != logits).any(-1).sum() > 40


# ---- min-p ----------------------------------------------------------------------------------


def test_min_p_keeps_what_is_likely_enough(sampler: Sampler) -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32)).repeat(400, 0)
    for min_p, possible in ((0.0, {0, 1, 2, 3}), (0.2, {0, 1, 2}), (0.5, {0, 1}), (1.0, {0})):
        params = SamplingParams(min_p=min_p)
        draws = [Draw(params, 9, [0] * position, 0) for position in range(400)]
        assert set(sampler.sample(logits, draws)) == possible


# ---- log-probabilities ----------------------------------------------------------------------


def test_logprobs_are_those_of_the_softmax(sampler: Sampler) -> None:
    rng = np.random.default_rng(2)
    logits = (rng.standard_normal((5, VOCAB)) * 4).astype(np.float32)
    logits[1, 3] = -np.inf
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    tokens = [int(row.argsort()[-1 - rank]) for rank, row in enumerate(logits)]
    found = sampler.logprobs(logits, tokens, [3, 0, 2, 5, 1])
    for row, (token, own, wanted) in enumerate(zip(tokens, found, [3, 0, 2, 5, 1], strict=True)):
        assert (own.token_id, own.rank, len(own.top)) == (token, row + 1, wanted)
        assert own.logprob == pytest.approx(expected[row, token], abs=1e-5)
        best = np.argsort(-logits[row], kind="stable")[:wanted]
        assert [id for id, _ in own.top] == best.tolist()
        assert [value for _, value in own.top] == pytest.approx(expected[row, best], abs=1e-5)


def test_equal_logits_are_ordered_by_token(sampler: Sampler) -> None:
    (found,) = sampler.logprobs(np.zeros((1, VOCAB), np.float32), [7], [4])
    assert [token for token, _ in found.top] == [0, 1, 2, 3]
    assert found.rank == 1


def test_no_number_is_refused(sampler: Sampler) -> None:
    logits = np.zeros((2, VOCAB), np.float32)
    logits[1, 4] = np.nan
    with pytest.raises(EngineError, match="row 1"):
        sampler.logprobs(logits, [0, 0], [1, 1])


# ---- transformers' words --------------------------------------------------------------------


@pytest.mark.reference
def test_penalties_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(3)
    logits = (rng.standard_normal((1, VOCAB)) * 3).astype(np.float32)
    context = rng.integers(0, VOCAB, 20).tolist()
    expected = processors.RepetitionPenaltyLogitsProcessor(1.3)(
        torch.tensor([context]), torch.from_numpy(logits.copy())
    )
    draw = Draw(SamplingParams(repetition_penalty=1.3), 0, context, 12)
    found = logits.copy()
    sampler_for(object())._adjust(found, [draw])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)
