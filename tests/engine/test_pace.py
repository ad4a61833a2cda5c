"""Long prompts are cut so that streams which run go on in about their own time."""

from __future__ import annotations

import pytest

from qwen3_runtime.engine import pace as pace_module
from qwen3_runtime.engine.core import EngineCore
from qwen3_runtime.engine.pace import Pace
from qwen3_runtime.engine.scheduler import Scheduler, Sequence
from tests.engine.test_core import drain, prompt_of, request, tokens_of
from tests.engine.toy_engine import BLOCK, ToyEngine, answer


def scheduled(num_decodes: int, num_prompt_tokens: int):
    """A step of so many tokens of each kind."""
    scheduler = Scheduler(ToyEngine(max_num_batched_tokens=160))
    for index in range(num_decodes):
        scheduler.add(Sequence([index]))
    if num_prompt_tokens:
        scheduler.add(Sequence([9] * num_prompt_tokens))
    return scheduler.schedule()


@pytest.fixture
def clock(monkeypatch):
    """Time passes only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: now[0])

    def pass_time(pace: Pace, step, seconds: float) -> None:
        with pace.measured(step):
            now[0] += seconds

    return pass_time


def test_a_chunk_takes_no_longer_than_the_streams_are_used_to(clock):
    pace = Pace()
    clock(pace, scheduled(4, 0), 1.0)
    clock(pace, scheduled(4, 16), 1.0 + 0.5)
    assert pace.max_prompt_tokens == 24  # which take 0.75 s beside 1 s, 1.75 times as long


def test_prompts_by_themselves_say_nothing(clock):
    """They are long and few; tokens of a chunk beside others cost more."""
    pace = Pace()
    clock(pace, scheduled(4, 0), 0.010)
    clock(pace, scheduled(0, 100), 0.001)
    assert pace.max_prompt_tokens == 16


def test_chunks_grow_step_by_step(clock):
    pace = Pace()
    clock(pace, scheduled(4, 0), 1.0)
    sizes = []
    for _ in range(4):
        sizes.append(pace.max_prompt_tokens)
        clock(pace, scheduled(4, sizes[-1]), 1.0 + 0.001)
    assert sizes == [16, 32, 64, 128]


def test_dearer_tokens_are_noticed_at_once_and_cheaper_ones_slowly(clock):
    pace = Pace()
    clock(pace, scheduled(4, 0), 0.100)
    for _ in range(20):
        clock(pace, scheduled(4, 50), 0.100 + 0.050)
    assert pace.max_prompt_tokens in (74, 75)
    clock(pace, scheduled(4, 50), 0.100 + 0.150)
    assert pace.max_prompt_tokens in (24, 25)
    clock(pace, scheduled(4, 50), 0.100 + 0.050)
    assert 40 < pace.max_prompt_tokens < 70


def test_the_short_end_of_a_prompt_says_little(clock):
    pace = Pace()
    clock(pace, scheduled(4, 0), 0.100)
    for _ in range(20):
        clock(pace, scheduled(4, 50), 0.100 + 0.050)
    clock(pace, scheduled(4, 2), 0.100 + 0.020)
    assert pace.max_prompt_tokens > 60


@pytest.mark.parametrize("before", [0, 20], ids=["the first one", "a later one"])
def test_a_late_step_is_forgotten(clock, before):
    """However small chunks become after it, they tell what tokens cost now."""
    pace = Pace()
    clock(pace, scheduled(4, 0), 0.100)
    sizes = [16]
    for step in range(60):
        late = 2.0 if step == before else 0.0
        clock(pace, scheduled(4, sizes[-1]), 0.100 + sizes[-1] * 0.001 + late)
        sizes.append(pace.max_prompt_tokens)
    assert sizes[before + 1] == 4
    assert sizes[-1] > 65


@pytest.mark.parametrize(("before", "now"), [(1, 7), (7, 1)])
def test_a_crowd_that_came_or_left_is_noticed(clock, before, now):
    """Prompts may go on and on, so that no step without one would ever be seen."""

    def seconds(num_decodes: int) -> float:
        return 0.010 + 0.010 * num_decodes

    pace = Pace()
    clock(pace, scheduled(before, 0), seconds(before))
    sizes = []
    for _ in range(100):
        sizes.append(pace.max_prompt_tokens)
        clock(pace, scheduled(now, sizes[-1]), seconds(now) + 0.002 * sizes[-1])
    fitting = 0.75 * seconds(now) / 0.002
    assert 0.8 * fitting <= sizes[-1] <= fitting + 1
    assert sizes.count(0) == 3


def test_nothing_measured_is_soon_measured():
    """Where prompts were there from the first step on."""
    core = EngineCore(ToyEngine(num_blocks=400, max_model_len=1200))
    core.add(request("a", prompt_of(3), 100))
    core.step()
    core.add(request("b", prompt_of(700, seed=1), 4))
    drain(core)
    assert core._pace._decode_seconds is not None


def test_a_slow_prompt_still_goes_on(clock):
    pace = Pace()
    clock(pace, scheduled(4, 0), 0.001)
    clock(pace, scheduled(4, 10), 10.0)
    assert pace.max_prompt_tokens == 4


def test_only_prompts_beside_others_are_bounded():
    engine = ToyEngine(max_num_batched_tokens=32)
    scheduler = Scheduler(engine)
    scheduler.add(Sequence(prompt_of(100)))
    step = scheduler.schedule(max_prompt_tokens=10)
    assert step.shares[0].num_tokens == 32
    scheduler.advance(step)
    scheduler.add(Sequence([1]))
    scheduler.add(Sequence(prompt_of(50, seed=2)))
    step = scheduler.schedule(max_prompt_tokens=10)
    assert [share.num_tokens for share in step.shares] == [1, 10]
    step = scheduler.schedule(max_prompt_tokens=0)
    assert [share.num_tokens for share in step.shares] == [1]


def test_a_stream_that_finds_no_block_holds_up_no_prompt():
    """The prompt came first and has all the blocks; nobody would ever go on."""
    scheduler = Scheduler(ToyEngine(num_blocks=96 // BLOCK + 1, max_num_batched_tokens=BLOCK + 1))
    prompt, stream = Sequence(prompt_of(96)), Sequence([1])
    scheduler.add(prompt)
    scheduler.advance(scheduler.schedule())
    scheduler.add(stream)
    while len(stream.token_ids) <= BLOCK:
        scheduler.advance(scheduler.schedule(max_prompt_tokens=1))
        stream.token_ids.append(2)
    assert prompt.num_new_tokens > 1
    step = scheduler.schedule(max_prompt_tokens=0)
    assert [share.sequence for share in step.shares] == [prompt]


def test_chunks_of_any_size_give_the_same_tokens():
    core = EngineCore(ToyEngine(max_num_batched_tokens=64))
    prompts = [prompt_of(90, seed) for seed in range(3)]
    outputs = []
    for index, prompt in enumerate(prompts):
        core.add(request(str(index), prompt, 8))
        outputs += [output for _ in range(3) for output in core.step()]
    outputs += [output for each in drain(core).values() for output in each]
    for index, prompt in enumerate(prompts):
        own = [output for output in outputs if output.request_id == str(index)]
        assert tokens_of(own) == answer(prompt, 8)
