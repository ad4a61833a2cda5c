"""Continuous batching: which tokens of which sequences go into the next step.

Running sequences give one token each; what is left of ``max_num_batched_tokens`` goes to prompts,
cut into chunks, first come first served. From its first chunk to its end a sequence holds a slot,
which is its place in contiguous cache groups, and in paged ones the blocks of its longest length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np

from qwen3_runtime.engine.batch import Batch, CacheGroup, CachePlaces, Engine
from qwen3_runtime.engine.block_pool import BlockPool


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids of one request and how many of them the cache holds."""

    token_ids: list[int]
    wants_all_logits: bool = False
    """Logits of every token, not only of the last one."""
    num_cached_tokens: int = 0
    max_len: int | None = None
    """Most tokens it may come to have; None: no more than it has."""
    slot: int | None = None
    blocks: list[list[int]] = field(default_factory=list)
    """Its block numbers in every cache group; none in contiguous ones."""

    @property
    def num_new_tokens(self) -> int:
        """Tokens the cache does not hold yet."""
        return len(self.token_ids) - self.num_cached_tokens


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A sequence's share of a step."""

    sequence: Sequence
    num_tokens: int
    logit_rows: range
    """Rows of the step's logits that belong to it."""
    is_complete: bool
    """Whether the step takes the last token there is, so that a next one can be sampled."""


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """A batch and whose tokens it is made of."""

    batch: Batch
    shares: tuple[Scheduled, ...]


@dataclass(slots=True)
class Scheduler:
    """Waiting and running sequences of one engine."""

    engine: Engine
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    _free_slots: list[int] = field(init=False)
    _pools: list[BlockPool] = field(init=False)

    def __post_init__(self) -> None:
        self._free_slots = list(range(self.engine.max_num_seqs))[::-1]
        self._pools = [BlockPool(self.engine.num_blocks) for _ in self.engine.cache_groups]

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence."""
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence out, whatever its state, and gives its slot back."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.slot is not None:
            self._free_slots.append(sequence.slot)
            sequence.slot = None
        for pool, blocks in zip(self._pools, sequence.blocks, strict=False):
            pool.release(blocks)
        sequence.blocks = []

    @property
    def has_work(self) -> bool:
        """Whether any sequence is waiting or running."""
        return bool(self.waiting or self.running)

    def schedule(self) -> ScheduledStep:
        """Returns the next step; call ``advance`` when the engine has carried it out."""
        while self.waiting and self._free_slots and self._has_blocks_for(self.waiting[0]):
            sequence = self.waiting.popleft()
            sequence.slot = self._free_slots.pop()
            sequence.blocks = [
                pool.allocate(count)
                for pool, count in zip(self._pools, self._blocks_of(sequence), strict=True)
            ]
            self.running.append(sequence)
        budget = self.engine.max_num_batched_tokens
        # Decodes first: a long prompt must not hold up those who wait for their next token.
        order = sorted(self.running, key=lambda sequence: sequence.num_new_tokens > 1)
        shares: list[tuple[Sequence, int]] = []
        for sequence in order:
            count = min(budget, sequence.num_new_tokens)
            if count > 0:
                shares.append((sequence, count))
                budget -= count
        return _step(shares, self.engine.cache_groups)

    def _has_blocks_for(self, sequence: Sequence) -> bool:
        wanted = self._blocks_of(sequence)
        return all(count <= pool.num_free for pool, count in zip(self._pools, wanted, strict=True))

    def _blocks_of(self, sequence: Sequence) -> list[int]:
        """Blocks a sequence needs in every cache group."""
        longest = max(len(sequence.token_ids), sequence.max_len or 0)
        longest = min(longest, self.engine.max_model_len)
        return [
            0 if group.block_size is None else -(-longest // group.block_size)
            for group in self.engine.cache_groups
        ]

    @staticmethod
    def advance(step: ScheduledStep) -> None:
        """Notes that the cache now holds the step's tokens."""
        for share in step.shares:
            share.sequence.num_cached_tokens += share.num_tokens


def _step(
    shares: SequenceOf[tuple[Sequence, int]], groups: SequenceOf[CacheGroup]
) -> ScheduledStep:
    token_ids: list[int] = []
    positions: list[int] = []
    logit_rows: list[int] = []
    scheduled = []
    for sequence, count in shares:
        start, first_row = sequence.num_cached_tokens, len(token_ids)
        token_ids += sequence.token_ids[start : start + count]
        positions += range(start, start + count)
        is_complete = count == sequence.num_new_tokens
        wanted = range(first_row, len(token_ids))
        if not sequence.wants_all_logits:
            wanted = wanted[-1:] if is_complete else wanted[:0]
        rows = range(len(logit_rows), len(logit_rows) + len(wanted))
        logit_rows += wanted
        scheduled.append(Scheduled(sequence, count, rows, is_complete))
    sequences = [sequence for sequence, _ in shares]
    batch = Batch(
        token_ids=_int32(token_ids),
        positions=_int32(positions),
        query_lens=_int32([count for _, count in shares]),
        seq_lens=_int32([sequence.num_cached_tokens + count for sequence, count in shares]),
        logit_rows=_int32(logit_rows),
        places=tuple(_places(sequences, index, group) for index, group in enumerate(groups)),
    )
    return ScheduledStep(batch, tuple(scheduled))


def _places(sequences: SequenceOf[Sequence], index: int, group: CacheGroup) -> CachePlaces:
    if group.block_size is None:
        return CachePlaces(slots=_int32([sequence.slot for sequence in sequences]))
    tables = [sequence.blocks[index] for sequence in sequences]
    rows = np.full((len(tables), max(map(len, tables))), -1, dtype=np.int32)
    for row, blocks in zip(rows, tables, strict=True):
        row[: len(blocks)] = blocks
    return CachePlaces(block_table=rows)


def _int32(values: object) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    array: np.ndarray[tuple[int], np.dtype[np.int32]] = np.asarray(values, dtype=np.int32)
    return array
