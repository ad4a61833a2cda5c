"""The tokenizer with the defaults of transformers, which the old engine's programs expect."""

from __future__ import annotations

from collections.abc import Iterable

from qwen3_runtime.text import Tokenizer

__all__ = ["InferTokenizer"]


class InferTokenizer:
    """Text to token ids and back; unlike ours, it shows control tokens unless told otherwise.

    Args:
        tokenizer: The checkpoint's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Returns the token ids of a text.

        Raises:
            RequestError: The text is no valid Unicode.
        """
        return self._tokenizer.encode(text, add_special_tokens)

    def decode(self, ids: Iterable[int] | int, skip_special_tokens: bool = False) -> str:
        """Returns the text of token ids, or of one; ids without a token give nothing.

        Raises:
            RequestError: An id is negative or beyond 32 bits.
        """
        listed = [ids] if isinstance(ids, int) else list(ids)
        return self._tokenizer.decode(listed, skip_special_tokens)
