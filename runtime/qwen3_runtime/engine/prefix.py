"""Keys of token blocks: what equal keys stand for is equal, down to the bits in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["block_keys", "extend_block_keys"]


def extend_block_keys(keys: list[bytes], token_ids: Sequence[int], block_size: int) -> None:
    """Adds the keys of the full blocks of ``token_ids`` that ``keys`` has not yet.

    A key is the SHA-256 of the key before it and the block's tokens, so it stands for all tokens
    from the first on. Keys and values depend on nothing else (batch-invariant kernels), which is
    why a block found by its key can take the place of one computed.
    """
    for start in range(len(keys) * block_size, len(token_ids) - block_size + 1, block_size):
        tokens = np.asarray(token_ids[start : start + block_size], np.int32).tobytes()
        keys.append(hashlib.sha256((keys[-1] if keys else b"") + tokens).digest())


def block_keys(token_ids: Sequence[int], block_size: int) -> list[bytes]:
    """Returns the keys of all full blocks; see ``extend_block_keys``."""
    keys: list[bytes] = []
    extend_block_keys(keys, token_ids, block_size)
    return keys
