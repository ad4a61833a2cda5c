"""Continuous batching: which tokens of which sequences go into the next step.

Running sequences give one token each; what is left of ``max_num_batched_tokens`` goes to prompts,
cut into chunks, first come first served. A sequence holds a slot in every contiguous cache group
from its first chunk to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np

from qwen3_runtime.engine.batch import Batch, CachePlaces, Engine


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids of one request and how many of them the cache holds."""

    token_ids: list[int]
    wants_all_logits: bool = False
    """Logits of every token, not only of the last one."""
    num_cached_tokens: int = 0
    slot: int | None = None

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

    def __post_init__(self) -> None:
        self._free_slots = list(range(self.engine.max_num_seqs))[::-1]

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

    @property
    def has_work(self) -> bool:
        """Whether any sequence is waiting or running."""
        return bool(self.waiting or self.running)

    def schedule(self) -> ScheduledStep:
        """Returns the next step; call ``advance`` when the engine has carried it out."""
        while self.waiting and self._free_slots:
            sequence = self.waiting.popleft()
            sequence.slot = self._free_slots.pop()
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
        return _step(shares, len(self.engine.cache_groups))

    @staticmethod
    def advance(step: ScheduledStep) -> None:
        """Notes that the cache now holds the step's tokens."""
        for share in step.shares:
            share.sequence.num_cached_tokens += share.num_tokens


def _step(shares: SequenceOf[tuple[Sequence, int]], num_groups: int) -> ScheduledStep:
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
    slots = _int32([sequence.slot for sequence, _ in shares])
    batch = Batch(
        token_ids=_int32(token_ids),
        positions=_int32(positions),
        query_lens=_int32([count for _, count in shares]),
        seq_lens=_int32([sequence.num_cached_tokens + count for sequence, count in shares]),
        logit_rows=_int32(logit_rows),
        places=tuple(CachePlaces(slots=slots) for _ in range(num_groups)),
    )
    return ScheduledStep(batch, tuple(scheduled))


def _int32(values: object) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    array: np.ndarray[tuple[int], np.dtype[np.int32]] = np.asarray(values, dtype=np.int32)
    return array
