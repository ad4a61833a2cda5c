"""What the engine loop asks of a grammar that an answer must follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grammar", "GrammarCompiler", "GrammarSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarSpec:
    """A grammar as a request brings it."""

    kind: str
    """``json_object``, ``json_schema``, ``regex`` or ``lark``."""
    text: str
    """The schema as JSON, the expression, or the grammar; empty for ``json_object``."""
    field: str | None = None
    """The field of the request it stands in, for messages."""
    after_token_ids: tuple[int, ...] = ()
    """It holds once these tokens have come one after another, such as the end of a thought."""
    opening_token_id: int | None = None
    """The start of a thought that an answer need not have: without it as the first token the
    grammar holds at once. None where the thought is open from the start."""


class Grammar(Protocol):
    """State of one answer; for one thread at a time."""

    def mask(self) -> NDArray[np.uint32] | None:
        """Returns which tokens may come next, as in ``Draw.mask``; None while all may."""

    def accept(self, token_id: int) -> None:
        """Notes a token that was chosen under the mask."""


class GrammarCompiler(Protocol):
    """Makes the state of a new answer."""

    def __call__(self, spec: GrammarSpec, /) -> Grammar:
        """Compiles a grammar.

        Raises:
            RequestError: It cannot be compiled; the message says why.
        """
