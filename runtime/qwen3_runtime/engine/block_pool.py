"""Blocks of a paged cache: which are free, and how many sequences hold each."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BlockPool"]


class BlockPool:
    """The blocks of one cache group, counted.

    A block may be held several times, such as a prompt's by all sequences that begin with it; it
    is free again when the last one gives it back.

    Args:
        num_blocks: Blocks the engine was created with.
    """

    def __init__(self, num_blocks: int) -> None:
        self._free = list(range(num_blocks))[::-1]
        self._holders = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks nobody holds."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Takes ``count`` free blocks; IndexError when there are fewer, which callers check."""
        if count > len(self._free):
            raise IndexError(f"{count} blocks of {len(self._free)} free ones")
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._holders[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Holds blocks that are held already once more."""
        for block in blocks:
            assert self._holders[block] > 0, f"block {block} is free"
            self._holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Gives blocks back."""
        for block in blocks:
            assert self._holders[block] > 0, f"block {block} is free"
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free.append(block)
