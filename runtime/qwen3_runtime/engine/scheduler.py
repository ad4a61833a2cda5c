"""Continuous batching: which tokens of which sequences go into the next step.

Running sequences give one token each; what is left of ``max_num_batched_tokens`` goes to prompts,
cut into chunks, first come first served. From its first chunk to its end a sequence holds a slot,
which is its place in contiguous cache groups, and in paged ones the blocks of its tokens. It gets
more as it grows; when there are none left, those that came last give theirs up and are computed
again later, which loses nothing but time.

In paged caches a sequence starts with the blocks that hold the beginning of its prompt already,
whoever computed them. Blocks that several hold are never written to: where a prompt is known to its
end, its last token is computed in a copy of the last block.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import numpy as np

from qwen3_runtime.engine.batch import Batch, CacheGroup, CachePlaces, Engine
from qwen3_runtime.engine.block_pool import BlockPool
from qwen3_runtime.engine.prefix import extend_block_keys


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids of one request and how many of them the cache holds."""

    token_ids: list[int]
    wants_all_logits: bool = False
    """Logits of every token, not only of the last one; then no beginning is taken from others."""
    num_cached_tokens: int = 0
    reserved_len: int = 0
    """Tokens it gets blocks for at once, where that is more than it has."""
    slot: int | None = None
    blocks: list[list[int]] = field(default_factory=list)
    """Its block numbers in every cache group; none in contiguous ones."""
    num_prefix_tokens: int = 0
    """Tokens it found in the cache when it started, last time."""
    block_keys: list[bytes] = field(default_factory=list)
    """Keys of its full blocks, as far as they were needed."""

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
class BlockCopy:
    """A block to copy before the step, ``source`` to ``destination``, in one cache group."""

    group: int
    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """A batch, whose tokens it is made of, and what must be copied before it."""

    batch: Batch
    shares: tuple[Scheduled, ...]
    copies: tuple[BlockCopy, ...] = ()


@dataclass(slots=True)
class Scheduler:
    """Waiting and running sequences of one engine."""

    engine: Engine
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    _free_slots: list[int] = field(init=False)
    _pools: list[BlockPool] = field(init=False)
    _shared_size: int | None = field(init=False)
    """Tokens of the blocks that sequences may share; None where they may not."""
    _copies: list[BlockCopy] = field(init=False, default_factory=list)
    num_preemptions: int = field(init=False, default=0)
    """Times a sequence gave its place up, since the start."""

    def __post_init__(self) -> None:
        self._free_slots = list(range(self.engine.max_num_seqs))[::-1]
        self._shared_size = _shared_block_size(self.engine.cache_groups)
        self.forget_prefixes()

    def forget_prefixes(self) -> None:
        """Takes nothing from the cache that was written so far; nothing may be running."""
        assert not self.running, "a running sequence holds blocks"
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

    @property
    def num_free_blocks(self) -> int:
        """Blocks that are free in every paged cache group."""
        return min((pool.num_free for pool in self._pools), default=0)

    def schedule(self, max_prompt_tokens: int | None = None) -> ScheduledStep:
        """Returns the next step; call ``advance`` when the engine has carried it out.

        Args:
            max_prompt_tokens: Most tokens of prompts in a step that gives others a token; may be 0.
        """
        self._admit()
        budget = self.engine.max_num_batched_tokens
        # Decodes first: a long prompt must not hold up those who wait for their next token.
        order = sorted(self.running, key=lambda sequence: sequence.num_new_tokens > 1)
        shares: list[tuple[Sequence, int]] = []
        is_mixed = False
        for sequence in order:
            is_prompt = sequence.num_new_tokens > 1
            if is_prompt and is_mixed and max_prompt_tokens is not None:
                budget, max_prompt_tokens = min(budget, max_prompt_tokens), None
            count = min(budget, sequence.num_new_tokens)
            if count > 0 and self._grow(sequence, count, [share for share, _ in shares]):
                shares.append((sequence, count))
                budget -= count
                is_mixed |= not is_prompt
        return _step(shares, self.engine.cache_groups, tuple(self._copies))

    def advance(self, step: ScheduledStep) -> None:
        """Notes that the cache now holds the step's tokens."""
        self.drop_copies()
        for share in step.shares:
            sequence = share.sequence
            sequence.num_cached_tokens += share.num_tokens
            if self._shared_size is not None:
                self._remember(sequence, self._shared_size)

    def drop_copies(self) -> None:
        """Lets go of the blocks that were copied before a step, carried out or failed."""
        for copy in self._copies:
            self._pools[copy.group].release([copy.source])
        self._copies.clear()

    def check_integrity(self) -> None:
        """Raises AssertionError when a slot or block is lost, or held by one that is not there."""
        slots = Counter([*self._free_slots, *(sequence.slot for sequence in self.running)])
        assert slots == Counter(range(self.engine.max_num_seqs))
        assert all(sequence.slot is None and not sequence.blocks for sequence in self.waiting)
        for index, pool in enumerate(self._pools):
            held = Counter(block for each in self.running for block in each.blocks[index])
            held.update(copy.source for copy in self._copies if copy.group == index)
            pool.check(held)

    def _admit(self) -> None:
        """Starts sequences that wait, as long as there are slots, and blocks for all they have."""
        being_computed = set(self._keys_being_computed())
        for sequence in tuple(self.waiting):
            if not self._free_slots:
                return
            known = self._known_blocks(sequence)
            following = sequence.block_keys[len(known[0]) :][:1] if known else []
            if not being_computed.isdisjoint(following):
                continue  # its beginning is on the way; when it is there, it need not be computed
            if not self._start(sequence, known):
                return
            being_computed.update(self._keys_being_computed())

    def _start(self, sequence: Sequence, known: list[list[int]]) -> bool:
        """Gives a sequence its slot and blocks; False when there are too few."""
        for pool, found in zip(self._pools, known, strict=False):
            pool.hold(found)
        wanted = self._blocks_of(max(len(sequence.token_ids), sequence.reserved_len))
        num_known = len(known[0]) if known else 0
        num_tokens = num_known * (self._shared_size or 0)
        is_whole = num_known > 0 and num_tokens == len(sequence.token_ids)
        missing = [max(0, count - num_known) + is_whole for count in wanted]
        if any(count > pool.num_free for pool, count in zip(self._pools, missing, strict=True)):
            for pool, found in zip(self._pools, known, strict=False):
                pool.release(found)
            return False
        self.waiting.remove(sequence)
        sequence.slot = self._free_slots.pop()
        new = [pool.allocate(count) for pool, count in zip(self._pools, missing, strict=True)]
        if is_whole:  # its last token is computed all the same, for its logits
            num_tokens -= 1
            for group, (found, fresh) in enumerate(zip(known, new, strict=True)):
                self._copies.append(BlockCopy(group, found.pop(), fresh[0]))
        sequence.blocks = [
            [*found, *fresh] for found, fresh in zip(known or [[]] * len(new), new, strict=True)
        ]
        sequence.num_cached_tokens = sequence.num_prefix_tokens = num_tokens
        self.running.append(sequence)
        return True

    def _known_blocks(self, sequence: Sequence) -> list[list[int]]:
        """The blocks of every group that hold a sequence's beginning; [] where none are shared."""
        if self._shared_size is None or sequence.wants_all_logits:
            return []
        extend_block_keys(sequence.block_keys, sequence.token_ids, self._shared_size)
        known: list[list[int]] = [[] for _ in self._pools]
        for key in sequence.block_keys:
            found = [pool.find(key) for pool in self._pools]
            if None in found:
                break
            for blocks, block in zip(known, found, strict=True):
                assert block is not None
                blocks.append(block)
        return known

    def _keys_being_computed(self) -> Iterator[bytes]:
        """Keys of the prompt blocks that running sequences are yet to fill."""
        if self._shared_size is None:
            return
        for sequence in self.running:
            if sequence.num_new_tokens > 1 and not sequence.wants_all_logits:
                num_filled = sequence.num_cached_tokens // self._shared_size
                yield from sequence.block_keys[num_filled:]

    def _remember(self, sequence: Sequence, block_size: int) -> None:
        """Lets the full blocks of a sequence be found."""
        num_full = sequence.num_cached_tokens // block_size
        cached = sequence.token_ids[: num_full * block_size]
        extend_block_keys(sequence.block_keys, cached, block_size)
        for pool, blocks in zip(self._pools, sequence.blocks, strict=True):
            for block, key in zip(blocks[:num_full], sequence.block_keys, strict=False):
                pool.remember(block, key)

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
        self.num_preemptions += 1
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


def _shared_block_size(groups: SequenceOf[CacheGroup]) -> int | None:
    """The block size of all groups; None where one has no blocks, or another size of them."""
    sizes = {group.block_size for group in groups}
    return sizes.pop() if len(sizes) == 1 else None


def _step(
    shares: SequenceOf[tuple[Sequence, int]],
    groups: SequenceOf[CacheGroup],
    copies: tuple[BlockCopy, ...],
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
    return ScheduledStep(batch, tuple(scheduled), copies)


def _places(sequences: SequenceOf[Sequence], index: int, group: CacheGroup) -> CachePlaces:
    if group.block_size is None:
        return CachePlaces(slots=_int32([sequence.slot for sequence in sequences]))
    tables = [sequence.blocks[index] for sequence in sequences]
    rows = np.full((len(tables), max(map(len, tables), default=0)), -1, dtype=np.int32)
    for row, blocks in zip(rows, tables, strict=True):
        row[: len(blocks)] = blocks
    return CachePlaces(block_table=rows)


def _int32(values: object) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    array: np.ndarray[tuple[int], np.dtype[np.int32]] = np.asarray(values, dtype=np.int32)
    return array
