"""Limits an engine is created with: what fits is computed, what does not is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qwen3_runtime.engine.batch import CacheGroup
from qwen3_runtime.engine.capacity import Limits, plan_capacity
from qwen3_runtime.errors import EngineError

FULL = CacheGroup(
    name="full",
    kind="contiguous",
    layers=(0, 1, 2),
    num_key_value_heads=2,
    head_dim=8,
    window=None,
    dtype="float32",
)
HALF = replace(FULL, name="window_4", layers=(3,), window=4, dtype="bfloat16")
PER_TOKEN = 3 * 2 * 2 * 8 * 4 + 1 * 2 * 2 * 8 * 2
"""Layers, keys and values, heads, head_dim, bytes."""


def test_the_longest_context_that_fits_is_taken():
    budget = PER_TOKEN * 2 * 200
    capacity = plan_capacity([FULL, HALF], 4096, Limits(max_num_seqs=2, kv_cache_memory=budget))
    assert capacity.max_model_len == 192, "whole buckets of 64"
    assert capacity.kv_cache_bytes == PER_TOKEN * 2 * 192
    longer = Limits(max_num_seqs=2, kv_cache_memory=2 * budget)
    assert plan_capacity([FULL, HALF], 100, longer).max_model_len == 100


def test_a_context_takes_whole_buckets():
    capacity = plan_capacity([FULL], 4096, Limits(max_num_seqs=3, max_model_len=65))
    assert capacity.kv_cache_bytes == FULL.bytes_per_token * 3 * 128


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        (Limits(max_num_seqs=1, max_model_len=64), 64),
        (Limits(max_num_seqs=16, max_model_len=64), 512),
        (Limits(max_num_seqs=600, max_model_len=64), 600),
        (Limits(max_num_seqs=16, max_model_len=64, max_num_batched_tokens=7), 7),
    ],
    ids=["tiny", "usual", "one token per sequence", "asked for"],
)
def test_tokens_of_a_step(limits, tokens):
    assert plan_capacity([FULL], 4096, limits).max_num_batched_tokens == tokens


@pytest.mark.parametrize("name", ["max_model_len", "max_num_seqs", "max_num_batched_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", 2**31, 2**62, 2**70])
def test_limits_no_engine_can_have(name, value):
    """2**62 rows of four bytes once wrapped around to a buffer of none."""
    given = {"max_num_seqs": 1, "max_model_len": 64, name: value}
    with pytest.raises(EngineError, match=f"^{name} (must be positive|is too large)"):
        plan_capacity([FULL], 2**31 - 1, Limits(**given))


def test_a_context_beyond_the_model():
    with pytest.raises(EngineError, match="beyond what the model was made for") as caught:
        plan_capacity([FULL], 100, Limits(max_model_len=101))
    assert caught.value.expected == "at most max_position_embeddings = 100"


def test_a_budget_that_is_too_small():
    needed = FULL.bytes_per_token * 64
    limits = Limits(max_num_seqs=1, max_model_len=10, kv_cache_memory=needed - 1)
    with pytest.raises(EngineError, match="do not fit kv_cache_memory"):
        plan_capacity([FULL], 4096, limits)
    with pytest.raises(EngineError, match="no sequence fits"):
        plan_capacity([FULL], 4096, Limits(max_num_seqs=1, kv_cache_memory=needed - 1))
    fitting = Limits(max_num_seqs=1, kv_cache_memory=needed)
    assert plan_capacity([FULL], 4096, fitting).max_model_len == 64
