"""An engine whose next token depends on every token its cache holds, and on nothing else.

Its cache keeps token ids where a real one keeps keys and values, so whoever reads a place that was
never written, or was written by somebody else, gets other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qwen3_runtime.engine.batch import Batch, CacheGroup, FloatRows

BLOCK = 8
VOCAB = 97

GROUP = CacheGroup(
    name="full",
    kind="paged",
    layers=(0,),
    num_key_value_heads=1,
    head_dim=1,
    window=None,
    dtype="float32",
    block_size=BLOCK,
)


def next_token(tokens: Sequence[int]) -> int:
    """What the engine says after some tokens."""
    total = 1
    for token in tokens:
        total = (total * 31 + int(token)) % 1_000_003
    return total % VOCAB


def answer(prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class ToyEngine:
    """Paged, with ``groups`` cache groups that must all say the same; or contiguous with none."""

    vocab_size = VOCAB
    next_token = staticmethod(next_token)

    def __init__(
        self,
        num_blocks: int = 40,
        *,
        groups: int = 1,
        is_paged: bool = True,
        max_num_seqs: int = 8,
        max_model_len: int = 160,
        max_num_batched_tokens: int = 32,
    ) -> None:
        self.is_paged = is_paged
        self.num_blocks = num_blocks if is_paged else 0
        self.max_num_seqs = max_num_seqs
        self.max_model_len = max_model_len
        self.max_num_batched_tokens = max_num_batched_tokens
        contiguous = replace(GROUP, kind="contiguous", block_size=None)
        self.cache_groups = ((GROUP if is_paged else contiguous),) * groups
        self.num_steps = 0
        self.num_computed = 0
        self.fails_at: set[int] = set()
        places = (num_blocks, BLOCK) if is_paged else (max_num_seqs, max_model_len)
        self.caches = [np.full(places, -1) for _ in range(groups)]

    def copy_blocks(self, group: int, sources: Sequence[int], destinations: Sequence[int]) -> None:
        self.caches[group][list(destinations)] = self.caches[group][list(sources)]

    def forward(self, batch: Batch) -> FloatRows:
        self.num_steps += 1
        if self.num_steps in self.fails_at:
            raise ValueError("the device is gone")
        self.num_computed += len(batch.token_ids)
        rows = []
        ends = np.cumsum(batch.query_lens)
        for index, (end, new, total) in enumerate(
            zip(ends, batch.query_lens, batch.seq_lens, strict=True)
        ):
            views = [self._view(batch, group, index) for group in range(len(self.caches))]
            for view in views:
                view.write(int(total - new), batch.token_ids[end - new : end])
            for row in batch.logit_rows:
                if end - new <= row < end:
                    seen = [view.read(int(batch.positions[row]) + 1) for view in views]
                    assert all(tokens == seen[0] for tokens in seen), "cache groups disagree"
                    rows.append(self.logits_after(seen[0]))
        return np.array(rows, np.float32).reshape(-1, self.vocab_size)

    def logits_after(self, tokens: Sequence[int]) -> FloatRows:
        logits = np.zeros(self.vocab_size, np.float32)
        logits[self.next_token(tokens)] = 5.0
        return logits

    def _view(self, batch: Batch, group: int, index: int) -> _View:
        places = batch.places[group]
        if self.is_paged:
            return _View(self.caches[group], [int(b) for b in places.block_table[index]], BLOCK)
        return _View(self.caches[group], [int(places.slots[index])], self.max_model_len)


class _View:
    """One sequence's places in one cache."""

    def __init__(self, cache, rows: list[int], size: int) -> None:
        self.cache, self.rows, self.size = cache, rows, size

    def write(self, start: int, tokens) -> None:
        for position, token in enumerate(tokens, start):
            row = self.rows[position // self.size]
            assert row >= 0, "no block for a token"
            self.cache[row, position % self.size] = token

    def read(self, length: int) -> list[int]:
        places = ((self.rows[p // self.size], p % self.size) for p in range(length))
        return [int(self.cache[place]) for place in places]
