"""What serving costs is told from what its engine takes by stretches of the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen3_runtime.engine.core import EngineRequest
from qwen3_runtime.sampling import SamplingParams
from tests.engine.toy_engine import ToyEngine, answer
from tests.serving.ratios import ANSWER_LEN, Alone, loop_ratios
from tests.serving.stretches import STRETCH, UNSETTLED, CoreInTurns, Run, read_runs

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
    assert (run.num_answers, len(run.full_seconds)) == (each, 4 * STRETCH - 1)
    (compared,) = run.comparisons()
    assert 0 < sum(compared) < run.seconds


def test_nobody_waits_for_the_end_of_a_silence(tmp_path):
    """A second answer comes shortly before a silence is due, and ends after the first."""
    core = CoreInTurns(ToyEngine(), log=tmp_path / "steps.jsonl")
    core.add(request("0", PROMPTS[0], 2 * STRETCH))
    told = [core.step() for _ in range(STRETCH - 1)]
    core.add(request("1", PROMPTS[1], 3 * STRETCH))
    while core.has_work:
        told.append(core.step())
    one_by_one = [len(outputs) for outputs in told[: 2 * STRETCH - 1]]
    assert one_by_one == [1] * (STRETCH - 1) + [2] * STRETCH
    (run,) = read_runs(tmp_path / "steps.jsonl")
    assert list(run.comparisons()) == []
    assert len(run.full_seconds) == STRETCH


def steps_of(parts: list[tuple[int, int, bool, float]], begun: float) -> list[list[object]]:
    """Of each part: how many steps, of how many answers, whether silent, and seconds of each."""
    steps, ended = [], begun
    for count, num_answers, is_silent, seconds in parts:
        for _ in range(count):
            ended += seconds
            steps.append([is_silent, num_answers, ended])
    return steps


def late_run(tmp_path: Path, served: float, silent: float) -> Run:
    """One of two answers comes late; of a stretch, the first steps are those of another time."""
    settled = STRETCH - UNSETTLED
    parts = [(3, 1, False, 3.0), (1, 2, False, 7.0)]
    for is_silent, seconds in ((False, served), (True, silent), (False, served)):
        parts += [(UNSETTLED, 2, is_silent, 5.0), (settled, 2, is_silent, seconds)]
    parts += [(2, 1, False, 4.0)]
    # The latecomer's step is one of the first stretch.
    parts[2] = (UNSETTLED - 1, 2, False, 5.0)
    log = tmp_path / "steps.jsonl"
    log.write_text(json.dumps([10.0, steps_of(parts, 10.0)]) + "\n", encoding="ascii")
    (run,) = read_runs(log)
    return run


def test_only_settled_steps_of_all_answers_count(tmp_path):
    run = late_run(tmp_path, served=1.5, silent=1.0)
    settled = STRETCH - UNSETTLED
    assert list(run.comparisons()) == [(1.5 * settled, 1.0 * settled)]
    assert len(run.full_seconds) == 3 * STRETCH - 1
    assert run.seconds - sum(run.full_seconds) == 3 * 3.0 + 7.0 + 2 * 4.0


def test_the_ratio_is_of_all_a_batch_takes(tmp_path):
    """Full steps at what they take when served, all else as it was, over steps in silence."""
    run = late_run(tmp_path, served=1.5, silent=1.0)
    ratio, apart = loop_ratios([run.seconds + 6.0], [run], Alone(first=3.0, step=0.8), bound=1.5)
    took = 1.5 * (3 * STRETCH - 1) + (3 * 3.0 + 7.0 + 2 * 4.0) + 6.0
    assert ratio.value == pytest.approx(took / (ANSWER_LEN - 1 + 3.0))
    assert apart.value == pytest.approx(1 / 0.8)
    assert not apart.holds
