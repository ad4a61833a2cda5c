"""What a reference may know about the step it runs in, besides its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
SequenceState: TypeAlias = MutableMapping[str, Array]
"""What one stateful node remembers of one sequence, under names of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeAngles:
    """Cosine and sine of a rope table at the step's positions.

    Shapes: ``cos`` and ``sin`` [num_tokens, rotary_dim / 2], attention factor applied.
    """

    cos: Array
    sin: Array
    rotary_dim: int
    interleaved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSpan:
    """The part of a step that belongs to one sequence."""

    rows: slice
    """Its rows among the packed tokens."""
    start: int
    """Position of its first new token, which is also the number of tokens seen before."""
    state: SequenceState

    @property
    def query_len(self) -> int:
        """Number of new tokens."""
        return int(self.rows.stop - self.rows.start)

    @property
    def seq_len(self) -> int:
        """Number of tokens in all, new ones included."""
        return self.start + self.query_len


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as one node of one layer sees it."""

    query_lens: tuple[int, ...]
    seq_lens: tuple[int, ...]
    logit_rows: Array
    """[num_logit_rows] indices into the packed tokens."""
    rope: Mapping[str, RopeAngles]
    state_of: Callable[[int], SequenceState]
    """State of the node for the sequence with this index in the batch."""

    def sequences(self) -> Iterator[SequenceSpan]:
        """Yields the sequences in the order their tokens are packed."""
        row = 0
        for index, (query_len, seq_len) in enumerate(
            zip(self.query_lens, self.seq_lens, strict=True)
        ):
            yield SequenceSpan(
                rows=slice(row, row + query_len),
                start=seq_len - query_len,
                state=self.state_of(index),
            )
            row += query_len
