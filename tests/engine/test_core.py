"""The engine loop: what requests get, whatever shares their steps, and what is never lost."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_runtime.engine.core import EngineCore, EngineRequest, TokenOutput
from qwen3_runtime.errors import QueueFullError, RequestError
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.sampling.grammar import GrammarSpec
from tests.engine.toy_engine import BLOCK, ToyEngine, answer, next_token

GREEDY = SamplingParams(temperature=0.0)


def request(name: str, prompt, max_tokens: int = 5, **fields) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        params=fields.pop("params", GREEDY),
        max_tokens=max_tokens,
        **fields,
    )


def drain(core: EngineCore) -> dict[str, list[TokenOutput]]:
    """Steps to the end; checks after every step that nothing is lost."""
    outputs: dict[str, list[TokenOutput]] = {}
    while core.has_work:
        for output in core.step():
            outputs.setdefault(output.request_id, []).append(output)
        core.check_integrity()
    return outputs


def tokens_of(outputs: list[TokenOutput]) -> list[int | None]:
    return [output.token_id for output in outputs]


def prompt_of(length: int, seed: int = 1) -> list[int]:
    return [(seed * 13 + 7 * position) % 97 for position in range(length)]


@pytest.mark.parametrize("is_paged", [True, False])
def test_each_gets_what_it_gets_alone(is_paged):
    core = EngineCore(ToyEngine(groups=2, is_paged=is_paged))
    prompts = {str(n): prompt_of(length, n) for n, length in enumerate((1, 50, 8, 33, 16))}
    for name, prompt in prompts.items():
        core.add(request(name, prompt, 9))
    outputs = drain(core)
    for name, prompt in prompts.items():
        assert tokens_of(outputs[name]) == answer(prompt, 9)
        assert [output.finish_reason for output in outputs[name]] == [None] * 8 + ["length"]


def test_end_tokens_end():
    core = EngineCore(ToyEngine())
    prompt = prompt_of(20)
    third = answer(prompt, 3)[2]
    core.add(request("end", prompt, end_token_ids=frozenset([third])))
    core.add(request("stop", prompt, params=SamplingParams(temperature=0, stop_token_ids=[third])))
    outputs = drain(core)
    for name in ("end", "stop"):
        assert tokens_of(outputs[name]) == answer(prompt, 3)
        assert outputs[name][-1].finish_reason == "stop"


def test_no_end_before_the_fewest_tokens():
    core = EngineCore(ToyEngine())
    prompt = prompt_of(20)
    first = answer(prompt, 1)[0]
    ending = {"end_token_ids": frozenset([first])}
    core.add(request("free", prompt, 4, **ending))
    core.add(
        request("held", prompt, 4, params=SamplingParams(temperature=0, min_tokens=2), **ending)
    )
    outputs = drain(core)
    assert tokens_of(outputs["free"]) == [first]
    held = tokens_of(outputs["held"])
    assert first not in held[:2]
    assert len(held) >= 2


def test_a_stop_token_beyond_the_vocabulary_disturbs_nobody():
    core = EngineCore(ToyEngine())
    prompt, outside = prompt_of(20), ToyEngine.vocab_size
    core.add(request("other", prompt, 4))
    params = SamplingParams(temperature=0, min_tokens=2, stop_token_ids=[outside])
    core.add(request("held", prompt, 4, params=params))
    outputs = drain(core)
    for name in ("other", "held"):
        assert tokens_of(outputs[name]) == answer(prompt, 4)


def test_logprobs_of_answers_and_prompts():
    core = EngineCore(ToyEngine())
    prompt = prompt_of(50)
    params = SamplingParams(temperature=0, logprobs=2, prompt_logprobs=1)
    core.add(request("first", prompt, 3))
    drain(core)  # the prompt is known, and must be scored all the same
    core.add(request("scored", prompt, 3, params=params))
    outputs = drain(core)["scored"]
    assert tokens_of(outputs) == answer(prompt, 3)
    for output in outputs:
        assert output.logprobs.token_id == output.token_id == output.logprobs.top[0][0]
        assert output.logprobs.rank == 1
        assert len(output.logprobs.top) == 2
    scored = outputs[0].prompt_logprobs
    assert [each.token_id for each in scored] == prompt[1:]
    likeliest = [next_token(prompt[: index + 1]) for index in range(len(prompt) - 1)]
    assert [each.top[0][0] for each in scored] == likeliest
    assert all(output.prompt_logprobs is None for output in outputs[1:])


def test_a_prompt_may_be_scored_alone():
    core = EngineCore(ToyEngine())
    params = SamplingParams(prompt_logprobs=0)
    core.add(request("scored", prompt_of(40), 0, params=params))
    (output,) = drain(core)["scored"]
    assert (output.token_id, output.finish_reason) == (None, "length")
    assert len(output.prompt_logprobs) == 39


def test_a_prompt_that_gives_way_is_scored_once():
    core = EngineCore(ToyEngine(num_blocks=20, max_num_seqs=4, max_num_batched_tokens=16))
    params = SamplingParams(temperature=0, prompt_logprobs=0)
    for seed in range(4):
        core.add(request(str(seed), prompt_of(30, seed), 60, params=params))
    outputs = drain(core)
    assert core.status.num_preemptions > 0
    for seed in range(4):
        scored = outputs[str(seed)][0].prompt_logprobs
        assert [each.token_id for each in scored] == prompt_of(30, seed)[1:]


class EvenTokens:
    """A grammar of even numbers after a given token."""

    def __init__(self, spec: GrammarSpec) -> None:
        self.is_on = not spec.after_token_ids
        self.starts = set(spec.after_token_ids)

    def mask(self):
        return np.full(4, 0x55555555, np.uint32) if self.is_on else None

    def accept(self, token_id: int) -> None:
        assert token_id % 2 == 0 or not self.is_on
        self.is_on = self.is_on or token_id in self.starts


def test_answers_follow_their_grammar_and_others_do_not():
    core = EngineCore(ToyEngine(), compile_grammar=EvenTokens)
    prompt = prompt_of(20)
    free = answer(prompt, 8)
    even = GrammarSpec(kind="regex", text="")
    later = GrammarSpec(kind="regex", text="", after_token_ids=(free[3],))
    core.add(request("free", prompt, 8))
    core.add(request("even", prompt, 8, grammar=even))
    core.add(request("later", prompt, 8, grammar=later))
    outputs = {name: tokens_of(each) for name, each in drain(core).items()}
    assert outputs["free"] == free
    assert all(token % 2 == 0 for token in outputs["even"])
    assert outputs["later"][:4] == free[:4]
    assert all(token % 2 == 0 for token in outputs["later"][4:])


# ---- prompts that begin alike ---------------------------------------------------------------


class TornGrammar(EvenTokens):
    """Fails when it is asked for the third time."""

    def mask(self):
        self.num_asked = getattr(self, "num_asked", 0) + 1
        if self.num_asked == 3:
            raise RequestError("the grammar is torn")
        return super().mask()


def test_a_grammar_that_fails_ends_its_own_answer_alone():
    core = EngineCore(ToyEngine(), compile_grammar=TornGrammar)
    spec = GrammarSpec(kind="regex", text="")
    core.add(request("torn", prompt_of(9), grammar=spec))
    core.add(request("whole", prompt_of(9, seed=2)))
    outputs = drain(core)
    assert len(outputs["torn"]) == 3
    assert (outputs["torn"][-1].finish_reason, outputs["torn"][-1].token_id) == ("error", None)
    assert outputs["torn"][-1].error.message == "the grammar is torn"
    assert tokens_of(outputs["whole"]) == answer(prompt_of(9, seed=2), 5)
    core.check_integrity()


def test_a_known_beginning_is_not_computed_again():
    engine = ToyEngine()
    core = EngineCore(engine)
    prefix = prompt_of(5 * BLOCK)
    core.add(request("first", [*prefix, 1, 2, 3]))
    drain(core)
    before = engine.num_computed
    core.add(request("second", [*prefix, 4, 5]))
    outputs = drain(core)["second"]
    assert tokens_of(outputs) == answer([*prefix, 4, 5], 5)
    assert {output.num_cached_tokens for output in outputs} == {5 * BLOCK}
    assert engine.num_computed - before == 2 + 4


def test_of_a_prompt_known_to_its_end_one_token_is_computed_in_a_copy():
    engine = ToyEngine()
    core = EngineCore(engine)
    prompt = prompt_of(4 * BLOCK)
    core.add(request("first", prompt, 40))
    for _ in range(3):
        core.step()  # it runs on in its own blocks
    before = engine.num_computed
    core.add(request("second", prompt, 40))
    outputs = drain(core)
    assert tokens_of(outputs["second"]) == answer(prompt, 40)
    assert outputs["second"][0].num_cached_tokens == 4 * BLOCK - 1
    assert engine.num_computed - before < 1 + 40 + 40


def test_answers_are_found_too():
    engine = ToyEngine()
    core = EngineCore(engine)
    prompt = prompt_of(10)
    core.add(request("turn 1", prompt, 30))
    drain(core)
    longer = [*prompt, *answer(prompt, 30), 9, 9]
    core.add(request("turn 2", longer))
    outputs = drain(core)["turn 2"]
    assert tokens_of(outputs) == answer(longer, 5)
    assert outputs[0].num_cached_tokens == (39 // BLOCK) * BLOCK


def test_equal_prompts_that_come_together_are_computed_once():
    engine = ToyEngine()
    core = EngineCore(engine)
    prompt = prompt_of(100)
    for index in range(4):
        core.add(request(str(index), prompt, 3))
    outputs = drain(core)
    assert all(tokens_of(each) == answer(prompt, 3) for each in outputs.values())
    assert engine.num_computed <= 100 + 3 * (100 % BLOCK) + 4 * 3


def test_an_unrelated_request_does_not_wait_behind_one_whose_beginning_is_on_the_way():
    core = EngineCore(ToyEngine(max_num_batched_tokens=64))
    core.add(request("long", prompt_of(150), 1))
    core.step()
    core.add(request("same", prompt_of(150), 1))
    core.add(request("other", [5, 5, 5], 1))
    order = [output.request_id for _ in range(4) for output in core.step()]
    assert order == ["long", "other", "same"]


def test_what_others_wrote_to_the_cache_is_never_taken():
    engine = ToyEngine(num_blocks=20)
    core = EngineCore(engine)
    prompt = prompt_of(5 * BLOCK)
    core.add(request("first", prompt))
    drain(core)
    other = EngineCore(engine)
    other.add(request("stranger", prompt_of(120, seed=3)))
    drain(other)
    core.add(request("second", prompt))
    outputs = drain(core)["second"]
    assert tokens_of(outputs) == answer(prompt, 5)
    assert outputs[0].num_cached_tokens == 0


def test_one_other_token_makes_another_prompt():
    core = EngineCore(ToyEngine())
    prompt = prompt_of(4 * BLOCK)
    core.add(request("first", prompt))
    drain(core)
    changed = [prompt[0] + 1, *prompt[1:]]
    core.add(request("second", changed))
    outputs = drain(core)["second"]
    assert tokens_of(outputs) == answer(changed, 5)
    assert outputs[0].num_cached_tokens == 0


# ---- too little room ------------------------------------------------------------------------

shape = st.tuples(st.integers(0, 3), st.integers(1, 60), st.integers(1, 40), st.integers(0, 6))


@settings(deadline=None)
@given(
    shapes=st.lists(shape, min_size=1, max_size=12),
    num_blocks=st.integers(20, 30),
    groups=st.integers(1, 2),
    aborts=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 9),
)
def test_whatever_comes_nothing_is_lost_and_nobody_gets_anothers_tokens(
    shapes, num_blocks, groups, aborts, seed
):
    """Prompts with common beginnings come and go while blocks are short."""
    core = EngineCore(ToyEngine(num_blocks, groups=groups, max_num_seqs=4))
    beginnings = [prompt_of(length, seed) for length in (0, 3, 2 * BLOCK, 5 * BLOCK + 2)]
    prompts = [
        [*beginnings[beginning], *prompt_of(own, index % 3)]
        for index, (beginning, own, _, _) in enumerate(shapes)
    ]
    outputs: dict[str, list[TokenOutput]] = {str(index): [] for index in range(len(shapes))}
    clock = 0
    while core.has_work or clock <= 6:
        for index, (_, _, new, arrival) in enumerate(shapes):
            if arrival == clock:
                core.add(request(str(index), prompts[index], new))
        if core.has_work:
            for output in core.step():
                outputs[output.request_id].append(output)
        if clock > 6:
            core.abort({str(index) for index in aborts if index == clock - 7})
        core.check_integrity()
        clock += 1
        assert clock < 3000, "it hangs"
    for index, (_, _, new, _) in enumerate(shapes):
        got = tokens_of(outputs[str(index)])
        expected = answer(prompts[index], new)
        assert got == expected[: len(got)]
        assert len(got) == new or index in aborts
    assert core.status.num_free_blocks == num_blocks


def test_sequences_give_way_when_blocks_run_out():
    core = EngineCore(ToyEngine(num_blocks=20, max_num_seqs=4))
    prompts = [prompt_of(20, seed) for seed in range(4)]
    for index, prompt in enumerate(prompts):
        core.add(request(str(index), prompt, 60))
    outputs = drain(core)
    assert core.status.num_preemptions > 0
    for index, prompt in enumerate(prompts):
        assert tokens_of(outputs[str(index)]) == answer(prompt, 60)
        assert {output.num_cached_tokens for output in outputs[str(index)]} == {0}


def test_a_full_queue_refuses():
    core = EngineCore(ToyEngine(max_num_seqs=1), max_queue=2)
    core.add(request("running", [1], 50))
    core.step()
    for name in ("a", "b"):
        core.add(request(name, [1, 2]))
    with pytest.raises(QueueFullError, match="too many requests wait"):
        core.add(request("c", [1, 2]))
    assert set(drain(core)) == {"running", "a", "b"}


class SlowEngine(ToyEngine):
    """Takes a while for every step."""

    seconds = 0.02

    def forward(self, batch):
        time.sleep(self.seconds)
        return super().forward(batch)


def test_what_a_prompt_took_is_told_apart_from_its_waiting():
    core = EngineCore(SlowEngine(max_num_seqs=1))
    core.add(request("first", [1], 5))
    began = time.perf_counter()
    core.add(request("second", [1, 2], 2))
    outputs: dict[str, list[TokenOutput]] = {"first": [], "second": []}
    while not outputs["second"]:
        for output in core.step():
            outputs[output.request_id].append(output)
    waited = time.perf_counter() - began
    (second,) = outputs["second"]
    first, *later = outputs["first"]
    assert [output.prefill_seconds for output in later] == [0.0] * 4
    assert min(first.prefill_seconds, second.prefill_seconds) >= SlowEngine.seconds
    assert waited - second.prefill_seconds >= 5 * SlowEngine.seconds


def test_what_cannot_be_served_is_refused():
    core = EngineCore(ToyEngine(max_model_len=20))
    core.add(request("known", [1]))
    with pytest.raises(RequestError, match="in flight"):
        core.add(request("known", [2]))
    for prompt, max_tokens in (([], 3), ([1] * 18, 3)):
        with pytest.raises(RequestError, match="maximum context length is 20"):
            core.add(request("other", prompt, max_tokens))
    with pytest.raises(RequestError, match="logit_bias"):
        core.add(request("other", [1], params=SamplingParams(logit_bias={97: 1})))
    with pytest.raises(RequestError, match="a grammar needs a tokenizer"):
        core.add(request("other", [1], grammar=GrammarSpec(kind="regex", text="a")))
    assert set(drain(core)) == {"known"}


# ---- failures -------------------------------------------------------------------------------


def test_a_failing_step_ends_its_own_requests_and_no_others():
    engine = ToyEngine(max_num_seqs=2)
    core = EngineCore(engine)
    prompt = prompt_of(3 * BLOCK)
    core.add(request("a", prompt, 20))
    core.add(request("b", prompt_of(9, seed=4), 20))
    core.add(request("waiting", prompt, 6))
    for _ in range(4):
        core.step()
    engine.fails_at = {engine.num_steps + 1}
    failed = core.step()
    assert {output.request_id for output in failed} == {"a", "b"}
    for output in failed:
        assert output.finish_reason == "error"
        assert "the device is gone" in str(output.error)
    core.check_integrity()
    outputs = drain(core)
    assert tokens_of(outputs["waiting"]) == answer(prompt, 6)
    core.add(request("a", prompt, 6))
    assert tokens_of(drain(core)["a"]) == answer(prompt, 6)


def test_an_interrupted_step_leaves_no_block_behind():
    engine = ToyEngine()
    core = EngineCore(engine)
    prompt = prompt_of(2 * BLOCK)
    core.add(request("first", prompt))
    drain(core)

    def interrupt(batch):
        raise KeyboardInterrupt

    core.add(request("second", prompt))  # begins with the copy of a block
    forward, engine.forward = engine.forward, interrupt
    with pytest.raises(KeyboardInterrupt):
        core.step()
    engine.forward = forward
    core.abort(["second"])
    core.check_integrity()
    assert core.status.num_free_blocks == engine.num_blocks
