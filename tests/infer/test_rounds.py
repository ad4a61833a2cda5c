"""Sequences held between rounds, on an engine whose tokens tell what its cache really held."""

from __future__ import annotations

import math
import random

import pytest

from qwen3_runtime.errors import EngineError, RequestError
from qwen3_runtime.infer.rounds import Rounds, Turn
from qwen3_runtime.sampling import SamplingParams
from tests.engine.toy_engine import BLOCK, VOCAB, ToyEngine, answer, next_token

GREEDY = SamplingParams(temperature=0.0)
PAGED = pytest.mark.parametrize("is_paged", [True, False], ids=["paged", "contiguous"])


def prompt(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(VOCAB) for _ in range(length)]


def take_rounds(rounds: Rounds, prompts, count: int) -> list[list[int]]:
    """Answers prompts in ``count`` rounds, all held from round to round."""
    held = [rounds.hold() for _ in prompts]
    texts = [list(ids) for ids in prompts]
    cached = [0] * len(prompts)
    for _ in range(count):
        turns = [
            Turn(sequence, start, text[start:], GREEDY)
            for sequence, start, text in zip(held, cached, texts, strict=True)
        ]
        cached = [len(text) for text in texts]
        for text, token in zip(texts, rounds.infer(turns), strict=True):
            text.append(token)
        rounds.check_integrity()
    for sequence in held:
        rounds.drop(sequence)
    rounds.check_integrity()
    return [text[len(ids) :] for text, ids in zip(texts, prompts, strict=True)]


@PAGED
def test_nothing_is_computed_twice(is_paged):
    engine = ToyEngine(is_paged=is_paged)
    prompts = [prompt(5, 1), prompt(21, 2), prompt(1, 3)]
    found = take_rounds(Rounds(engine), prompts, 6)
    assert found == [answer(ids, 6) for ids in prompts]
    assert engine.num_computed == sum(len(ids) + 5 for ids in prompts)
    assert engine.num_steps == 6


@PAGED
def test_a_long_prompt_takes_several_steps_of_one_round(is_paged):
    engine = ToyEngine(is_paged=is_paged, max_num_batched_tokens=16)
    rounds = Rounds(engine)
    long, short = prompt(50, 1), prompt(3, 2)
    assert take_rounds(rounds, [long, short], 1) == [answer(long, 1), answer(short, 1)]
    assert engine.num_steps == math.ceil(53 / 16)


@PAGED
def test_prompts_join_answers_on_their_way(is_paged):
    rounds = Rounds(ToyEngine(is_paged=is_paged))
    first, second = prompt(9, 1), prompt(12, 2)
    one, two = rounds.hold(), rounds.hold()
    (token,) = rounds.infer([Turn(one, 0, first, GREEDY)])
    tokens = rounds.infer([Turn(two, 0, second, GREEDY), Turn(one, 9, [token], GREEDY)])
    assert [token, *tokens] == [answer(first, 1)[0], answer(second, 1)[0], answer(first, 2)[1]]


@PAGED
def test_more_sequences_than_slots_lose_nothing(is_paged):
    engine = ToyEngine(is_paged=is_paged, num_blocks=60, max_num_seqs=3)
    prompts = [prompt(4 + 3 * n, n) for n in range(7)]
    assert take_rounds(Rounds(engine), prompts, 5) == [answer(ids, 5) for ids in prompts]


@pytest.mark.parametrize("num_blocks", [20, 22, 27, 30])
def test_sequences_give_way_where_blocks_are_few(num_blocks):
    engine = ToyEngine(num_blocks=num_blocks, max_num_seqs=5)
    prompts = [prompt(length, length) for length in (60, 11, 45, 37, 52)]
    assert take_rounds(Rounds(engine), prompts, 12) == [answer(ids, 12) for ids in prompts]
    assert engine.num_computed > sum(len(ids) + 11 for ids in prompts), "room enough for all"


@pytest.mark.parametrize("length", [3 * BLOCK, 3 * BLOCK + 1, BLOCK - 1])
def test_equal_beginnings_are_shared_and_never_written_to(length):
    engine = ToyEngine()
    rounds = Rounds(engine)
    ids = prompt(length, 4)
    held = [rounds.hold() for _ in range(4)]
    tails = [[], [], [7], [8, 9]]
    for sequence, tail in zip(held, tails, strict=True):
        (token,) = rounds.infer([Turn(sequence, 0, [*ids, *tail], GREEDY)])
        assert token == next_token([*ids, *tail])
    assert engine.num_computed <= length + sum(BLOCK + len(tail) for tail in tails)
    for own in range(5):
        turns = [
            Turn(sequence, len(sequence.token_ids), [own + n], GREEDY)
            for n, sequence in enumerate(held)
        ]
        found = rounds.infer(turns)
        assert found == [next_token(sequence.token_ids) for sequence in held]
        rounds.check_integrity()


@PAGED
@pytest.mark.parametrize("position", [0, 1, BLOCK, 13, 20])
def test_a_sequence_goes_on_from_an_earlier_position(is_paged, position):
    rounds = Rounds(ToyEngine(is_paged=is_paged))
    other, sequence = rounds.hold(), rounds.hold()
    ids = prompt(20, 5)
    rounds.infer([Turn(sequence, 0, ids, GREEDY), Turn(other, 0, ids, GREEDY)])
    changed = [*ids[:position], 50, 51]
    (token,) = rounds.infer([Turn(sequence, position, [50, 51], GREEDY)])
    assert token == next_token(changed)
    assert sequence.token_ids == changed
    (token,) = rounds.infer([Turn(other, 20, [3], GREEDY)])
    assert token == next_token([*ids, 3])
    rounds.check_integrity()


@PAGED
def test_a_failed_round_can_be_tried_again(is_paged):
    engine = ToyEngine(is_paged=is_paged, max_num_batched_tokens=16)
    rounds = Rounds(engine)
    bystander, sequence = rounds.hold(), rounds.hold()
    rounds.infer([Turn(bystander, 0, [1, 2, 3], GREEDY)])
    ids = prompt(40, 6)
    engine.fails_at = {engine.num_steps + 2}
    with pytest.raises(ValueError, match="the device is gone"):
        rounds.infer([Turn(sequence, 0, ids, GREEDY)])
    rounds.check_integrity()
    num_computed = engine.num_computed
    assert rounds.infer([Turn(bystander, 3, [4], GREEDY)]) == [next_token([1, 2, 3, 4])]
    assert engine.num_computed == num_computed + 1, "the failed round went on unasked"
    turns = [Turn(sequence, 0, ids, GREEDY), Turn(bystander, 4, [5], GREEDY)]
    assert rounds.infer(turns) == [next_token(ids), next_token([1, 2, 3, 4, 5])]


def test_a_failed_round_leaves_no_copy_behind():
    engine = ToyEngine()
    rounds = Rounds(engine)
    ids = prompt(2 * BLOCK)
    first, second, third = (rounds.hold() for _ in range(3))
    rounds.infer([Turn(first, 0, ids, GREEDY)])
    engine.fails_at = {2}
    with pytest.raises(ValueError, match="the device is gone"):
        rounds.infer([Turn(second, 0, ids, GREEDY)])  # its last block would have been a copy
    rounds.drop(second)
    rounds.check_integrity()
    assert rounds._scheduler._copies == []
    (token,) = rounds.infer([Turn(third, 0, prompt(30, 9), GREEDY)])
    assert token == next_token(prompt(30, 9))


def use(rounds: Rounds, sequence, *tokens: int) -> None:
    (token,) = rounds.infer([Turn(sequence, len(sequence.token_ids), tokens, GREEDY)])
    assert token == next_token(sequence.token_ids)
    rounds.check_integrity()


def test_those_unused_the_longest_give_way():
    engine = ToyEngine(num_blocks=20, max_num_batched_tokens=64)
    rounds = Rounds(engine)
    a, b, c, d = (rounds.hold() for _ in range(4))
    for seed, sequence in enumerate((a, b, c)):
        use(rounds, sequence, *prompt(45, seed))
    use(rounds, a, 1)
    use(rounds, d, *prompt(30, 9))
    num_computed = engine.num_computed
    for sequence in (a, c, d):
        use(rounds, sequence, 2)
    assert engine.num_computed == num_computed + 3
    use(rounds, b, 2)
    assert engine.num_computed >= num_computed + 3 + 46 - 5 * BLOCK


def test_those_of_the_round_give_way_last():
    engine = ToyEngine(num_blocks=20)
    rounds = Rounds(engine)
    first, idle, second = (rounds.hold() for _ in range(3))
    for seed, (sequence, num_blocks) in enumerate([(second, 6), (idle, 6), (first, 8)]):
        use(rounds, sequence, *prompt(num_blocks * BLOCK, seed))
    num_computed = engine.num_computed
    turns = [Turn(each, len(each.token_ids), [7], GREEDY) for each in (first, second)]
    assert rounds.infer(turns) == [next_token(each.token_ids) for each in (first, second)]
    assert engine.num_computed == num_computed + 2


def test_what_gave_way_is_computed_again_only_when_it_is_used():
    engine = ToyEngine(num_blocks=20)
    rounds = Rounds(engine)
    growing, idle = rounds.hold(), rounds.hold()
    use(rounds, idle, *prompt(70, 1))
    use(rounds, growing, *prompt(80, 2))
    for token in range(40):
        use(rounds, growing, token)
    assert engine.num_computed == 70 + 80 + 40
    rounds.drop(growing)
    other = rounds.hold()
    use(rounds, other, 5)
    assert engine.num_computed == 70 + 80 + 40 + 1
    use(rounds, idle, 6)


def test_what_does_not_fit_is_refused_before_anything_is_computed():
    engine = ToyEngine()
    rounds = Rounds(engine)
    sequence, other = rounds.hold(), rounds.hold()
    fine = Turn(other, 0, [1], GREEDY)
    with pytest.raises(RequestError, match="position 1, 0 tokens in the cache"):
        rounds.infer([fine, Turn(sequence, 1, [1], GREEDY)])
    with pytest.raises(RequestError, match="maximum context length is 160 tokens"):
        rounds.infer([fine, Turn(sequence, 0, [1] * 161, GREEDY)])
    assert (engine.num_steps, other.token_ids) == (0, [])


def test_an_engine_without_room_for_one_sequence_says_so():
    rounds = Rounds(ToyEngine(num_blocks=2))
    with pytest.raises(EngineError, match="no room for a single sequence"):
        rounds.infer([Turn(rounds.hold(), 0, prompt(30), GREEDY)])


def likelihood(ids: list[int]) -> float:
    """Of the toy engine's logits: 5 for the token it says, 0 for all others."""
    total = math.log(math.exp(5) + VOCAB - 1)
    hits = sum(next_token(ids[:end]) == ids[end] for end in range(1, len(ids)))
    return 5 * hits - (len(ids) - 1) * total


@PAGED
def test_likelihoods_beside_held_sequences(is_paged):
    engine = ToyEngine(is_paged=is_paged, max_num_seqs=2, num_blocks=22)
    rounds = Rounds(engine)
    held = rounds.hold()
    (first,) = rounds.infer([Turn(held, 0, [5, 6, 7], GREEDY)])
    texts = [[*prompt(n, n), *answer(prompt(n, n), 9)] for n in (40, 12, 33, 70, 1)]
    expected = sum(map(likelihood, texts))
    num_computed = engine.num_computed
    assert rounds.log_likelihood(texts) == pytest.approx(expected, rel=1e-6)
    assert engine.num_computed - num_computed == sum(len(ids) - 1 for ids in texts)
    rounds.check_integrity()
    (second,) = rounds.infer([Turn(held, 3, [first], GREEDY)])
    assert [first, second] == answer([5, 6, 7], 2)
