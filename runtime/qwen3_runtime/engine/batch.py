"""One step of an engine: packed tokens of any mix of prefills and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Int32Array: TypeAlias = NDArray[np.int32]
FloatRows: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGroup:
    """Layers that share one shape of cache and therefore one table of places.

    ``kind`` is ``contiguous`` (a slot holds a whole sequence), ``paged`` or ``recurrent``.
    """

    name: str
    kind: str
    layers: tuple[int, ...]
    num_key_value_heads: int
    head_dim: int
    window: int | None
    dtype: str
    block_size: int | None = None
    """Tokens of a block of a paged group; None for other kinds."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes over all layers of the group."""
        element = 4 if self.dtype == "float32" else 2
        return 2 * len(self.layers) * self.num_key_value_heads * self.head_dim * element


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlaces:
    """Where the sequences of a batch lie in one cache group.

    ``slots`` [num_seqs] for contiguous and recurrent groups; ``block_table``
    [num_seqs, max_blocks] for paged ones. The other one is None.
    """

    slots: Int32Array | None = None
    block_table: Int32Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The struct an engine takes.

    Sequence ``s`` brings ``query_lens[s]`` new tokens, packed in order, and has
    ``seq_lens[s]`` tokens in all, new ones included; its new tokens stand at positions
    ``seq_lens[s] - query_lens[s]`` onwards.
    """

    token_ids: Int32Array
    """[num_tokens]"""
    positions: Int32Array
    """[num_tokens]"""
    query_lens: Int32Array
    """[num_seqs]"""
    seq_lens: Int32Array
    """[num_seqs]"""
    logit_rows: Int32Array
    """[num_logit_rows], ascending indices into the packed tokens."""
    places: tuple[CachePlaces, ...]
    """One per cache group of the engine."""


class Engine(Protocol):
    """What the runtime needs of an engine; compiled modules and the interpreter provide it."""

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        ...

    @property
    def max_model_len(self) -> int:
        """Most tokens of a sequence."""
        ...

    @property
    def max_num_seqs(self) -> int:
        """Most sequences in flight, and number of slots."""
        ...

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of a step."""
        ...

    @property
    def cache_groups(self) -> tuple[CacheGroup, ...]:
        """Cache groups, in the order a batch gives places for them."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks of every paged cache group; 0 where there is none."""
        ...

    def forward(self, batch: Batch) -> FloatRows:
        """Runs one step and returns logits ``[num_logit_rows, vocab_size]``."""
        ...

    def copy_blocks(self, group: int, sources: Sequence[int], destinations: Sequence[int]) -> None:
        """Copies block ``sources[i]`` of a paged cache group to ``destinations[i]``, bit for bit.

        Keys and values of every layer of the group are copied. A sequence whose table names the
        copies goes on as it would in the originals.

        Args:
            group: Index into ``cache_groups``.
            sources: Blocks to copy, [num_blocks].
            destinations: Where to, [num_blocks]; each once, and none that is a source.

        Raises:
            EngineError: The group is not paged, or blocks are not as said; nothing was changed.
        """
        ...
