"""What serving costs is told from what its engine takes by stretches of the same answers."""

from __future__ import annotations

import json

import pytest

from qwen3_runtime.engine.core import EngineRequest
from qwen3_runtime.sampling import SamplingParams
from tests.engine.toy_engine import ToyEngine, answer
from tests.serving.stretches import STRETCH, CoreInTurns, read_runs

PROMPTS = [[1, 2, 3], [4, 5]]


def test_answers_come_in_turns_and_stay_the_same(tmp_path):
    log = tmp_path / "steps.jsonl"
    core = CoreInTurns(ToyEngine(), log=log)
    for index, prompt in enumerate(PROMPTS):
        core.add(
            EngineRequest(
                request_id=str(index),
                prompt_token_ids=tuple(prompt),
                params=SamplingParams(temperature=0.0),
                max_tokens=4 * STRETCH,
            )
        )
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
    assert [stretch.is_served for stretch in run.stretches] == [True, False, True, False]
    assert len(list(run.pairs())) == 2
    assert run.num_steps == 4 * STRETCH
    assert 0 < sum(s.seconds_per_step for s in run.stretches) * STRETCH < 2 * run.seconds


def test_only_whole_pairs_of_settled_steps_count(tmp_path):
    """One of two answers comes late, and the last stretch is cut short."""
    log = tmp_path / "steps.jsonl"
    ends = [float(index) for index in range(4 * STRETCH)]
    ends += [ends[-1] + 2.0 * (index + 1) for index in range(STRETCH)]
    counts = [1] * (STRETCH + 1) + [2] * (4 * STRETCH - 1)
    steps = [*zip(counts, ends, strict=True), (2, ends[-1] + 1.0)]
    log.write_text(json.dumps({"begun": -1.0, "steps": steps}) + "\n", encoding="ascii")

    (run,) = read_runs(log)
    assert run.seconds == ends[-1] + 2.0
    assert [stretch.num_answers for stretch in run.stretches] == [1, 1, 2, 2, 2]
    ((served, alone),) = run.pairs()
    assert served.is_served
    assert not alone.is_served
    assert served.seconds_per_step == alone.seconds_per_step == 1.0
    assert run.stretches[-1].seconds_per_step == pytest.approx(2.0)
