"""What serving costs is told from what its engine takes by stretches of the same answers."""

from __future__ import annotations

import json
from itertools import accumulate

from qwen3_runtime.engine.core import EngineRequest
from qwen3_runtime.sampling import SamplingParams
from tests.engine.toy_engine import ToyEngine, answer
from tests.serving.stretches import STRETCH, UNSETTLED, CoreInTurns, read_runs

PROMPTS = [[1, 2, 3], [4, 5]]


def request(name: str, prompt: list[int], max_tokens: int) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        params=SamplingParams(temperature=0.0),
        max_tokens=max_tokens,
    )


def test_answers_come_in_turns_and_stay_the_same(tmp_path):
    log = tmp_path / "steps.jsonl"
    core = CoreInTurns(ToyEngine(), log=log)
    for index, prompt in enumerate(PROMPTS):
        core.add(request(str(index), prompt, 4 * STRETCH))
    told = []
    while core.has_work:
        told.append(core.step())
    core.check_integrity()

    each = len(PROMPTS)
    turn = [each] * STRETCH + [STRETCH * each]
    assert [len(outputs) for outputs in told] == 2 * turn
    for index, prompt in enumerate(PROMPTS):
        tokens = [o.token_id for step in told for o in step if o.request_id == str(index)]
        assert tokens == answer(prompt, 4 * STRETCH)
    (run,) = read_runs(log)
    assert (run.num_answers, run.num_full_steps) == (each, 4 * STRETCH - 1)
    assert len(list(run.pairs())) == 2
    assert 0 < sum(map(sum, run.pairs())) < run.seconds


def test_nobody_waits_for_the_end_of_a_silence(tmp_path):
    """A second answer comes shortly before a silence is due, and ends after the first."""
    core = CoreInTurns(ToyEngine(), log=tmp_path / "steps.jsonl")
    core.add(request("0", PROMPTS[0], 2 * STRETCH))
    told = [core.step() for _ in range(STRETCH - 1)]
    core.add(request("1", PROMPTS[1], 3 * STRETCH))
    while core.has_work:
        told.append(core.step())
    assert [len(outputs) for outputs in told[: 2 * STRETCH - 1]] == [1] * (STRETCH - 1) + [
        2
    ] * STRETCH
    (run,) = read_runs(tmp_path / "steps.jsonl")
    assert list(run.pairs()) == []
    assert run.num_full_steps == STRETCH + 1


def test_only_settled_steps_of_all_answers_count(tmp_path):
    """One of two answers comes late; of a stretch, the first steps are those of another time."""
    log = tmp_path / "steps.jsonl"
    counts = [1] * 3 + [2] * 2 * STRETCH + [1] * 2
    silent = [False] * (3 + STRETCH) + [True] * STRETCH + [False] * 2
    seconds = [3.0] * 3 + 2 * ([5.0] * UNSETTLED + [1.0] * (STRETCH - UNSETTLED)) + [4.0] * 2
    ends = list(accumulate(seconds, initial=10.0))[1:]
    steps = list(zip(silent, counts, ends, strict=True))
    log.write_text(json.dumps([10.0, steps]) + "\n", encoding="ascii")

    (run,) = read_runs(log)
    assert list(run.pairs()) == [(STRETCH - UNSETTLED, STRETCH - UNSETTLED)]
    assert (run.num_full_steps, run.seconds_of_others) == (2 * STRETCH, 3 * 3.0 + 2 * 4.0)
    assert run.seconds == sum(seconds)
