"""Blocks of a paged cache: which are free, how many hold each, and what may be found again."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

__all__ = ["BlockPool"]


class BlockPool:
    """The blocks of one cache group, counted.

    A block may be held several times, such as a prompt's by all sequences that begin with it; it
    is free again when the last one gives it back. A free block keeps what was written to it, and
    is found by its key, until it is given out anew; those free the longest go first.

    Args:
        num_blocks: Blocks the engine was created with.
    """

    def __init__(self, num_blocks: int) -> None:
        self._free = OrderedDict.fromkeys(range(num_blocks))
        self._holders = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks there are."""
        return len(self._holders)

    @property
    def num_free(self) -> int:
        """Blocks nobody holds, those included whose content may still be found."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Takes ``count`` free blocks; IndexError when there are fewer, which callers check."""
        if count > len(self._free):
            raise IndexError(f"{count} blocks of {len(self._free)} free ones")
        blocks = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self._holders[block] = 1
            self._forget(block)
        return blocks

    def hold(self, blocks: Iterable[int]) -> None:
        """Holds blocks once more, or free ones whose content was found by its key."""
        for block in blocks:
            assert self._holders[block] or self._keys[block], f"block {block} is free and empty"
            self._holders[block] += 1
            self._free.pop(block, None)

    def release(self, blocks: Sequence[int]) -> None:
        """Gives a sequence's blocks back, given in the order of its tokens.

        The last ones are given out anew first: a beginning is what others are likeliest to share.
        """
        for block in reversed(blocks):
            assert self._holders[block] > 0, f"block {block} is free"
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)

    def remember(self, block: int, key: bytes) -> None:
        """Lets a full block be found by ``key``; of several with equal content the first is."""
        assert self._holders[block] > 0, f"block {block} is free"
        if self._keys[block] is None and key not in self._by_key:
            self._keys[block] = key
            self._by_key[key] = block

    def find(self, key: bytes) -> int | None:
        """Returns the block that holds what the key stands for, None when none does."""
        return self._by_key.get(key)

    def check(self, held: Counter[int]) -> None:
        """Raises AssertionError unless blocks are held as often as ``held`` says, by block."""
        counted = Counter({block: n for block, n in enumerate(self._holders) if n})
        assert counted == +held, f"blocks are held {counted}, their holders have {held}"
        assert set(self._free) == set(range(self.num_blocks)) - set(counted)
        found = {block: key for block, key in enumerate(self._keys) if key is not None}
        assert {block: key for key, block in self._by_key.items()} == found

    def _forget(self, block: int) -> None:
        key = self._keys[block]
        if key is not None:
            self._keys[block] = None
            del self._by_key[key]
