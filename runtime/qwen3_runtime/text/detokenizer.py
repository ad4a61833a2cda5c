"""Text from token ids as they come, never a broken character."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["ByteLevelDetokenizer", "IncrementalDetokenizer", "WindowDetokenizer"]

_REPLACEMENT = "\ufffd"
_MAX_HELD = 8
"""Tokens held for one character; four bytes are the longest, the rest is for merged pieces."""


class IncrementalDetokenizer(Protocol):
    """Turns one sequence's tokens into text; the pieces joined are what decoding all at once gives.

    Bytes that are no UTF-8 become U+FFFD.
    """

    def add(self, token_id: int) -> str:
        """Returns the text that is complete now; may be empty."""

    def finish(self) -> str:
        """Returns what is left, incomplete characters as U+FFFD. Nothing may be added after."""


class ByteLevelDetokenizer:
    """For byte-level BPE (GPT-2, Qwen, Llama 3): tokens are bytes, so each is looked at once.

    Args:
        token_bytes: Bytes of a token; none for what is not shown.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token_id: int) -> str:
        """See ``IncrementalDetokenizer``."""
        return self._decoder.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """See ``IncrementalDetokenizer``."""
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For any other tokenizer: decodes a short window twice and shows the difference.

    The window starts with tokens already shown, because a decoder treats the first token of a text
    differently (SentencePiece drops its leading space). Bytes that never become a character are
    shown after a few tokens.

    Args:
        decode: Text of a list of tokens.
        is_shown: Whether a token has text at all; control tokens are skipped.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], is_shown: Callable[[int], bool]
    ) -> None:
        self._decode = decode
        self._is_shown = is_shown
        self._window: list[int] = []
        self._num_shown = 0
        self._shown_text = ""

    def add(self, token_id: int) -> str:
        """See ``IncrementalDetokenizer``."""
        if not self._is_shown(token_id):
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        is_complete = not text.endswith(_REPLACEMENT) and len(text) > len(self._shown_text)
        is_hopeless = len(self._window) - self._num_shown >= _MAX_HELD
        return self._advance(text) if is_complete or is_hopeless else ""

    def finish(self) -> str:
        """See ``IncrementalDetokenizer``."""
        return self._advance(self._decode(self._window))

    def _advance(self, text: str) -> str:
        new = text[len(self._shown_text) :]
        self._window = self._window[self._num_shown :]
        self._num_shown = len(self._window)
        self._shown_text = self._decode(self._window)
        return new
