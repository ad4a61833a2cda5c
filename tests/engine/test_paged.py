"""Paged caches: blocks counted, given out and taken back, and how many fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_runtime.engine import capacity as capacity_module
from qwen3_runtime.engine.batch import CacheGroup
from qwen3_runtime.engine.block_pool import BlockPool
from qwen3_runtime.engine.capacity import Limits, plan_capacity
from qwen3_runtime.engine.scheduler import Scheduler, Sequence
from qwen3_runtime.errors import EngineError

BLOCK = 32


def group(**fields) -> CacheGroup:
    usual = {
        "name": "full",
        "kind": "paged",
        "layers": (0, 1),
        "num_key_value_heads": 2,
        "head_dim": 8,
        "window": None,
        "dtype": "float32",
        "block_size": BLOCK,
    }
    return CacheGroup(**{**usual, **fields})


# ---- the pool -------------------------------------------------------------------------------


def test_blocks_are_given_out_once():
    pool = BlockPool(5)
    first, second = pool.allocate(2), pool.allocate(3)
    assert sorted(first + second) == [0, 1, 2, 3, 4]
    assert pool.num_free == 0
    pool.release(first)
    assert sorted(pool.allocate(2)) == sorted(first)


def test_more_than_there_are_is_an_error_and_takes_none():
    pool = BlockPool(2)
    with pytest.raises(IndexError, match="3 blocks of 2 free ones"):
        pool.allocate(3)
    assert pool.num_free == 2


def test_a_shared_block_is_free_when_its_last_holder_gives_it_back():
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.hold(blocks)
    pool.release(blocks)
    assert pool.num_free == 1
    pool.release(blocks)
    assert pool.num_free == 2
    with pytest.raises(AssertionError, match="is free"):
        pool.release(blocks)
    with pytest.raises(AssertionError, match="is free and empty"):
        pool.hold(blocks)


# ---- the scheduler --------------------------------------------------------------------------


class Paged:
    """What the scheduler asks of an engine."""

    vocab_size = 10
    max_model_len = 96

    def __init__(self, num_blocks: int, max_num_seqs: int = 4, groups: int = 1) -> None:
        self.num_blocks = num_blocks
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = 64
        self.cache_groups = (group(),) * groups


def run(scheduler: Scheduler, sequences: list[Sequence], new_tokens: list[int]) -> list[set[int]]:
    """Runs sequences to their ends, checking every step; returns who ran in each.

    What stands for the cache remembers which tokens were written to which place, so that a
    sequence which reads another's, or what was never written, is found out.
    """
    written: dict[tuple[int, int], int] = {}
    wanted = [len(s.token_ids) + new for s, new in zip(sequences, new_tokens, strict=True)]
    for sequence in sequences:
        scheduler.add(sequence)
    together = []
    while scheduler.has_work:
        step = scheduler.schedule()
        assert step.shares, "work is left and nobody runs"
        together.append({sequences.index(share.sequence) for share in step.shares})
        for places in step.batch.places:
            assert places.slots is None
            assert_tables_hold(places.block_table, step, scheduler.engine.num_blocks)
        for copy in step.copies:
            for offset in range(BLOCK):
                if copy.group == 0 and (copy.source, offset) in written:
                    written[copy.destination, offset] = written[copy.source, offset]
        assert_cache_holds(written, step)
        scheduler.advance(step)
        for share in step.shares:
            sequence = share.sequence
            if not share.is_complete:
                continue
            if len(sequence.token_ids) == wanted[sequences.index(sequence)]:
                scheduler.finish(sequence)
            else:
                sequence.token_ids.append(len(sequence.token_ids) % 10)
    return together


def assert_cache_holds(written: dict[tuple[int, int], int], step) -> None:
    """Writes a step's tokens and reads all of every sequence's, in the first cache group."""
    row = 0
    for share, table in zip(step.shares, step.batch.places[0].block_table, strict=True):
        start = share.sequence.num_cached_tokens
        for position in range(start, start + share.num_tokens):
            place = int(table[position // BLOCK]), position % BLOCK
            written[place] = int(step.batch.token_ids[row])
            row += 1
        for position in range(start + share.num_tokens):
            place = int(table[position // BLOCK]), position % BLOCK
            assert written[place] == share.sequence.token_ids[position]


def assert_tables_hold(table, step, num_blocks: int) -> None:
    seq_lens, query_lens = step.batch.seq_lens, step.batch.query_lens
    used = [row[: -(-length // BLOCK)] for row, length in zip(table, seq_lens, strict=True)]
    blocks = np.concatenate(used)
    assert ((blocks >= 0) & (blocks < num_blocks)).all()
    written = [
        row[(length - new) // BLOCK :]
        for row, length, new in zip(used, seq_lens, query_lens, strict=True)
    ]
    for block in np.concatenate(written):
        assert (blocks == block).sum() == 1, "a block that one writes to is shared"


def test_sequences_wait_until_blocks_are_free():
    sequences = sequences_again()
    together = run(Scheduler(Paged(num_blocks=4)), sequences, [10, 7])
    assert not any(who == {0, 1} for who in together), "3 + 2 blocks do not fit 4"
    together = run(Scheduler(Paged(num_blocks=5)), sequences_again(), [10, 7])
    assert any(who == {0, 1} for who in together)


def sequences_again() -> list[Sequence]:
    return [Sequence([1] * 60, reserved_len=70), Sequence([2] * 33, reserved_len=40)]


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 36)), min_size=1, max_size=9),
    st.integers(3, 12),
    st.integers(1, 2),
    st.booleans(),
)
def test_all_finish_and_all_blocks_come_back(shapes, num_blocks, groups, reserves):
    scheduler = Scheduler(Paged(num_blocks, groups=groups))
    sequences = [
        Sequence(
            [(7 * index + position) % 10 for position in range(prompt)],
            reserved_len=prompt + new if reserves else 0,
        )
        for index, (prompt, new) in enumerate(shapes)
    ]
    run(scheduler, sequences, [new for _, new in shapes])
    assert [pool.num_free for pool in scheduler._pools] == [num_blocks] * groups


def test_those_that_came_last_give_way_and_start_again():
    """Three sequences of two blocks each grow to three, and there are seven."""
    scheduler = Scheduler(Paged(num_blocks=7))
    sequences = [Sequence([index] * 60) for index in range(3)]
    together = run(scheduler, sequences, [12, 12, 12])
    last = max(step for step, who in enumerate(together) if who >= {0, 1, 2})
    assert any(who == {0, 1} for who in together[last:]), "the third waited for the others"
    assert [len(sequence.token_ids) for sequence in sequences] == [72, 72, 72]


# ---- how many fit ---------------------------------------------------------------------------

PER_TOKEN = 2 * 2 * 2 * 8 * 4


def plan(longest: int = 4096, **limits: int):
    return plan_capacity((group(),), longest, Limits(**limits))


def test_blocks_fill_the_budget_but_no_more_than_all_sequences_need():
    found = plan(max_model_len=100, max_num_seqs=8, kv_cache_memory=PER_TOKEN * BLOCK * 10)
    assert (found.max_model_len, found.num_blocks) == (100, 10)
    assert found.kv_cache_bytes == PER_TOKEN * BLOCK * 10
    found = plan(max_model_len=100, max_num_seqs=2, kv_cache_memory=PER_TOKEN * BLOCK * 10)
    assert found.num_blocks == 2 * 4


def test_without_a_wanted_length_one_sequence_may_take_all_blocks():
    found = plan(kv_cache_memory=PER_TOKEN * BLOCK * 10, max_num_seqs=8)
    assert (found.max_model_len, found.num_blocks) == (320, 10)
    assert plan(longest=300, kv_cache_memory=PER_TOKEN * BLOCK * 10).max_model_len == 300


def test_one_sequence_of_the_wanted_length_must_fit():
    with pytest.raises(EngineError, match="1 sequence of 321 tokens"):
        plan(max_model_len=321, kv_cache_memory=PER_TOKEN * BLOCK * 10)


def test_an_explicit_length_may_exceed_the_default_budget(monkeypatch):
    monkeypatch.setattr(capacity_module, "available_memory", lambda: PER_TOKEN * BLOCK * 8)
    assert plan(max_model_len=128).num_blocks == 4
