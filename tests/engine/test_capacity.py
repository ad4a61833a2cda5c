"""How long and how many sequences may be: numbers counted by hand, and every refusal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_runtime.engine import capacity as module
from qwen3_runtime.engine.batch import CacheGroup
from qwen3_runtime.engine.capacity import Capacity, Limits, MemoryNeeds, plan_capacity
from qwen3_runtime.errors import EngineError


def group(layers: int = 2, heads: int = 2, head_dim: int = 8, dtype: str = "float32") -> CacheGroup:
    return CacheGroup(
        name="full",
        kind="contiguous",
        layers=tuple(range(layers)),
        num_key_value_heads=heads,
        head_dim=head_dim,
        window=None,
        dtype=dtype,
    )


def paged() -> CacheGroup:
    return dataclasses.replace(group(), kind="paged", block_size=32)


def plan(
    longest: int = 1000,
    groups: tuple[CacheGroup, ...] = (group(),),
    needs: MemoryNeeds | None = MemoryNeeds(),  # noqa: B008 # frozen
    **limits: int,
) -> Capacity:
    return plan_capacity(groups, longest, Limits(**limits), needs)


def refusal(**arguments: object) -> str:
    with pytest.raises(EngineError) as caught:
        plan(**arguments)
    return str(caught.value)


def test_bytes_of_a_token():
    assert group().bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert group(dtype="bfloat16").bytes_per_token == 2 * 2 * 2 * 8 * 2


def test_a_wanted_length_is_padded_to_64_in_memory():
    found = plan(max_model_len=65, max_num_seqs=3)
    assert found == Capacity(
        max_model_len=65,
        max_num_seqs=3,
        max_num_batched_tokens=3 * 65,
        kv_cache_bytes=256 * 3 * 128,
    )


def test_without_a_wanted_length_the_budget_decides():
    found = plan(kv_cache_memory=256 * 4 * 200, max_num_seqs=4)
    assert found.max_model_len == 192
    assert found.kv_cache_bytes == 256 * 4 * 192


def test_the_model_bounds_the_length_where_memory_does_not():
    assert plan(kv_cache_memory=1 << 30, max_num_seqs=1).max_model_len == 1000


def test_groups_add_up():
    found = plan(groups=(group(), group(layers=1)), max_model_len=64, max_num_seqs=1)
    assert found.kv_cache_bytes == (256 + 128) * 64


def test_a_model_without_a_cache_is_bounded_by_itself_alone():
    found = plan(groups=(), max_num_seqs=2)
    assert (found.max_model_len, found.kv_cache_bytes) == (1000, 0)


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"max_model_len": 10, "max_num_seqs": 2}, 20),
        ({"max_model_len": 1000, "max_num_seqs": 2}, 512),
        ({"max_model_len": 64, "max_num_seqs": 600}, 600),
        ({"max_model_len": 64, "max_num_batched_tokens": 7}, 7),
    ],
)
def test_tokens_of_a_step(limits, tokens):
    assert plan(**limits).max_num_batched_tokens == tokens


def test_the_default_budget_is_a_quarter_of_free_memory_up_to_2_gib(monkeypatch):
    for free, budget in ((1 << 20, 1 << 18), (1 << 40, 2 << 30)):
        monkeypatch.setattr(module, "available_memory", lambda free=free: free)
        length = plan(longest=1 << 40, max_num_seqs=1).max_model_len
        assert length == budget // 256 // 64 * 64


def test_an_explicit_length_may_exceed_the_default_budget(monkeypatch):
    needed = 256 * 16 * 1024
    monkeypatch.setattr(module, "available_memory", lambda: needed)
    assert plan(max_model_len=1000).kv_cache_bytes == needed


def test_more_than_the_free_memory_is_refused(monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: 256 * 16 * 1024 - 1)
    message = refusal(max_model_len=1000)
    assert "16 sequences of 1000 tokens" in message
    assert "a smaller max_model_len or max_num_seqs" in message


# 100 tokens of one sequence, padded: 128 positions of 256 bytes.
KEYS = 128 * 256
NEEDS = MemoryNeeds(
    weights=1_000_000,
    logits=20_000,
    attention_scratch=3_000,
    activations_per_token=500,
    rope_per_position=16,
    mask_per_token_and_position=8,
)
TOTAL = 1_000_000 + 20_000 + (3_000 + 500 * 50) + 16 * 100 + 8 * 50 * 128 + KEYS


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: size)


def plan_whole(**changes: object) -> Capacity:
    wanted = {"max_model_len": 100, "max_num_seqs": 1, "max_num_batched_tokens": 50}
    return plan(**{"needs": NEEDS, **wanted, **changes})


def test_all_parts_of_an_engine_count(monkeypatch):
    free(monkeypatch, TOTAL)
    assert plan_whole().kv_cache_bytes == KEYS
    free(monkeypatch, TOTAL - 1)
    with pytest.raises(EngineError) as caught:
        plan_whole()
    assert str(caught.value) == (
        "the engine does not fit the free memory\n"
        "  got:      1.1 MB: 1.0 MB weights, 0.1 MB masks, 32768 bytes keys and values, "
        "28000 bytes activations, 20000 bytes logits, 1600 bytes rotary tables; "
        "for 1 sequence of 100 tokens, 50 tokens a step\n"
        "  expected: at most 1.1 MB\n"
        "  hint:     a smaller max_model_len or max_num_batched_tokens"
    )


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"max_num_batched_tokens": 100_000}, "a smaller max_model_len or max_num_batched_tokens"),
        ({"max_num_seqs": 1000}, "a smaller max_model_len or max_num_seqs"),
        ({"needs": MemoryNeeds(weights=3_000_000)}, "a smaller model, or a dtype of fewer bits"),
        (
            {"needs": MemoryNeeds(activations_per_token=100_000)},
            "a smaller max_num_batched_tokens",
        ),
        (
            {"groups": (paged(),), "kv_cache_memory": 2_500_000, "max_num_seqs": 1000},
            "a smaller max_model_len or kv_cache_memory",
        ),
    ],
)
def test_the_options_that_would_help_are_named(monkeypatch, changes, hint):
    free(monkeypatch, 2_000_000)
    with pytest.raises(EngineError, match="does not fit the free memory") as caught:
        plan_whole(**changes)
    assert caught.value.hint == hint


def test_a_device_with_memory_of_its_own_is_not_measured_by_this_machine_s(monkeypatch):
    free(monkeypatch, 1000)
    assert plan_whole(needs=None).kv_cache_bytes == KEYS


@pytest.mark.parametrize("groups", ["contiguous", "paged"])
def test_a_length_by_default_leaves_room_for_the_rest(monkeypatch, groups):
    """Weights that take all but a little: the quarter for keys and values must give way."""
    free(monkeypatch, 4_000_000)
    needs = MemoryNeeds(weights=3_500_000, rope_per_position=100, mask_per_token_and_position=1)
    found = plan(
        longest=1 << 20,
        groups=(group(),) if groups == "contiguous" else (paged(),),
        needs=needs,
        max_num_seqs=1,
    )
    taken = sum(needs.parts(found).values())
    per_unit = 64 * (256 + 100 + 512)
    assert 4_000_000 - per_unit < taken <= 4_000_000


def test_blocks_beside_slots(monkeypatch):
    """Every sequence has a slot of its longest; what is left of the budget becomes blocks."""
    free(monkeypatch, 1 << 40)
    slots, blocks = group(), paged()
    lengths, seqs = 128, 4
    per_slot, per_block = 128 * slots.bytes_per_token, 32 * blocks.bytes_per_token
    least = seqs * per_slot + 4 * per_block
    both = {"groups": (slots, blocks), "max_model_len": lengths, "max_num_seqs": seqs}
    found = plan(kv_cache_memory=least + 3 * per_block + 5, **both)
    assert found.num_blocks == 4 + 3
    assert found.kv_cache_bytes == least + 3 * per_block
    assert plan(kv_cache_memory=1 << 30, **both).num_blocks == 4 * seqs, "no more than there can be"
    with pytest.raises(EngineError, match="do not fit kv_cache_memory"):
        plan(kv_cache_memory=least - 1, **both)


@pytest.mark.parametrize("name", ["max_num_seqs", "max_model_len", "max_num_batched_tokens"])
@pytest.mark.parametrize("value", [0, -5])
def test_limits_are_positive(name, value):
    limits = {"max_model_len": 64, name: value}
    assert refusal(**limits) == (
        f"{name} must be positive\n  got:      {value}\n  expected: a whole number from 1"
    )


@pytest.mark.parametrize("value", [1.5, True, "64"])
def test_limits_are_whole_numbers(value):
    assert "expected: a whole number from 1" in refusal(max_num_seqs=value, max_model_len=64)


@pytest.mark.parametrize("value", ["1G", -1, 0, 1.5, True])
def test_memory_for_keys_and_values_is_a_number_of_bytes(value):
    text = refusal(kv_cache_memory=value)
    assert text.startswith("kv_cache_memory must be positive\n")
    assert "expected: a whole number of bytes from 1" in text


def test_numpy_s_whole_numbers_are_taken():
    found = plan(max_model_len=np.int64(65), max_num_seqs=np.uint8(3))
    assert found == plan(max_model_len=65, max_num_seqs=3)
    assert type(found.max_model_len) is type(found.max_num_seqs) is int


def test_limits_no_engine_can_count():
    text = refusal(max_num_seqs=1, max_model_len=64, max_num_batched_tokens=1 << 62)
    assert text.startswith("max_num_batched_tokens is too large\n")


def test_longer_than_the_model():
    assert refusal(max_model_len=1001) == (
        "max_model_len is beyond what the model was made for\n"
        "  got:      1001\n"
        "  expected: at most max_position_embeddings = 1000"
    )


def test_a_length_that_does_not_fit_its_budget():
    assert refusal(max_model_len=65, max_num_seqs=2, kv_cache_memory=50_000) == (
        "keys and values do not fit kv_cache_memory\n"
        "  got:      65536 bytes for 2 sequences of 65 tokens\n"
        "  expected: at most 50000 bytes\n"
        "  hint:     a smaller max_model_len or max_num_seqs"
    )


def test_a_budget_nothing_fits():
    assert refusal(max_num_seqs=2, kv_cache_memory=10_000) == (
        "no sequence fits the memory for keys and values\n"
        "  got:      10000 bytes, 512 bytes per token of all sequences\n"
        "  hint:     a larger kv_cache_memory or a smaller max_num_seqs"
    )


def test_fewer_sequences_do_not_help_where_one_alone_does_not_fit():
    with pytest.raises(EngineError, match="no sequence fits") as caught:
        plan_capacity(
            (dataclasses.replace(group(), kind="paged", block_size=32),),
            100,
            Limits(kv_cache_memory=10),
        )
    assert str(caught.value).endswith("hint:     a larger kv_cache_memory")


@given(
    st.integers(1, 10**9),
    st.integers(1, 100),
    st.integers(1, 10**5),
    st.none() | st.integers(1, 10**5),
)
def test_what_is_planned_fits_and_holds(memory, max_num_seqs, longest, max_model_len):
    limits = Limits(max_num_seqs=max_num_seqs, kv_cache_memory=memory, max_model_len=max_model_len)
    try:
        found = plan_capacity((group(),), longest, limits)
    except EngineError:
        return
    assert found.kv_cache_bytes <= memory
    assert found.kv_cache_bytes >= 256 * max_num_seqs * found.max_model_len
    assert 1 <= found.max_model_len <= longest
    assert max_model_len in (None, found.max_model_len)
