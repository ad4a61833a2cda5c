"""Continuous batching: which tokens of which sequences go into the next step.

Running sequences give one token each; what is left of ``max_num_batched_tokens`` goes to prompts,
cut into chunks, first come first served. From its first chunk to its end a sequence holds a slot,
which is its place in contiguous cache groups, and in paged ones the blocks of its tokens. It gets
more as it grows; when there are none left, those that came last give theirs up and are computed
again later, which loses nothing but time.
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
    reserved_len: int = 0
    """Tokens it gets blocks for at once, where that is more than it has."""
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
        self._give_back(sequence)

    @property
    def has_work(self) -> bool:
        """Whether any sequence is waiting or running."""
        return bool(self.waiting or self.running)

    def schedule(self) -> ScheduledStep:
        """Returns the next step; call ``advance`` when the engine has carried it out."""
        self._admit()
        budget = self.engine.max_num_batched_tokens
        # Decodes first: a long prompt must not hold up those who wait for their next token.
        order = sorted(self.running, key=lambda sequence: sequence.num_new_tokens > 1)
        shares: list[tuple[Sequence, int]] = []
        for sequence in order:
            count = min(budget, sequence.num_new_tokens)
            if count > 0 and self._grow(sequence, count, [share for share, _ in shares]):
                shares.append((sequence, count))
                budget -= count
        return _step(shares, self.engine.cache_groups)

    def _admit(self) -> None:
        """Starts sequences that wait, as long as there are slots, and blocks for all they have."""
        while self.waiting and self._free_slots:
            sequence = self.waiting[0]
            wanted = self._blocks_of(max(len(sequence.token_ids), sequence.reserved_len))
            if any(count > pool.num_free for pool, count in zip(self._pools, wanted, strict=True)):
                return
            self.waiting.popleft()
            sequence.slot = self._free_slots.pop()
            sequence.blocks = [
                pool.allocate(count) for pool, count in zip(self._pools, wanted, strict=True)
            ]
            self.running.append(sequence)

    def _grow(self, sequence: Sequence, count: int, scheduled: SequenceOf[Sequence]) -> bool:
        """Gives a sequence blocks for ``count`` more tokens; False when it must wait for them.

        The first that came can always go on: all others may have to give way to it, and the cache
        has room for one sequence of any length.
        """
        if sequence.slot is None:  # it gave way earlier in this step
            return False
        wanted = self._blocks_of(sequence.num_cached_tokens + count)
        for pool, blocks, needed in zip(self._pools, sequence.blocks, wanted, strict=True):
            missing = max(0, needed - len(blocks))
            while missing > pool.num_free:
                later = self.running[self.running.index(sequence) + 1 :]
                victims = [other for other in later if other not in scheduled]
                if not victims:
                    return False
                self._preempt(victims[-1])
            blocks += pool.allocate(missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Takes a sequence's place away; it starts again, before all that wait."""
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.num_cached_tokens = 0
        self.waiting.appendleft(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        if sequence.slot is not None:
            self._free_slots.append(sequence.slot)
            sequence.slot = None
        for pool, blocks in zip(self._pools, sequence.blocks, strict=False):
            pool.release(blocks)
        sequence.blocks = []

    def _blocks_of(self, length: int) -> list[int]:
        """Blocks that so many tokens need in every cache group."""
        length = min(length, self.engine.max_model_len)
        return [
            0 if group.block_size is None else -(-length // group.block_size)
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
