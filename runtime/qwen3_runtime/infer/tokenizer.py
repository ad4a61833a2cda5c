"""The tokenizer with the defaults of transformers, which the old engine's programs expect."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsIndex

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

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        **variables: object,
    ) -> str | list[int]:
        """Returns a conversation as the model reads it, as token ids or as text.

        Args:
            conversation: Records with ``role`` and ``content``.
            tools: JSON schemas of functions the model may call.
            add_generation_prompt: Whether to end with the header of the assistant's turn.
            tokenize: Whether token ids are wanted.
            variables: What else the template understands, such as ``enable_thinking=False``.

        Raises:
            RequestError: The messages are no conversation the template accepts.
            TokenizerError: The model has no chat template, or it fails.
        """
        text = self._tokenizer.apply_chat_template(
            conversation, add_generation_prompt, tools=tools, **variables
        )
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def decode(self, ids: Iterable[int] | SupportsIndex, skip_special_tokens: bool = False) -> str:
        """Returns the text of token ids, or of one; ids without a token give nothing.

        Raises:
            RequestError: An id is negative or beyond 32 bits.
        """
        listed = list(ids) if isinstance(ids, Iterable) else [operator.index(ids)]
        return self._tokenizer.decode(listed, skip_special_tokens)
