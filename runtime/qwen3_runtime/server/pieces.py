"""What an answer is made of, once its tokens are text."""

from __future__ import annotations

from typing import NamedTuple

from qwen3_runtime.sampling import TokenLogprobs

__all__ = ["TextPiece"]


class TextPiece(NamedTuple):
    """What has come since the piece before; a tuple, since there is one for every token.

    Attributes:
        text: Final: no later token changes it, and no stop string is part of it.
        num_tokens: Tokens it stands for.
        logprobs: Of tokens whose text is final now, where they were asked for.
        prompt_logprobs: Of the prompt's tokens, on the first piece, where asked for.
        num_cached_tokens: Tokens of the prompt that were in the cache.
        prefill_seconds: On the first piece, what the engine took for the prompt and the first
            token.
        finish_reason: ``stop`` or ``length`` on the last piece.
        stopped_by: The stop string that ended the answer, on the last piece.
        has_end_token: Whether the last token is what ended the answer, and no part of its text.
    """

    text: str = ""
    num_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    num_cached_tokens: int = 0
    prefill_seconds: float = 0.0
    finish_reason: str | None = None
    stopped_by: str | None = None
    has_end_token: bool = False

    @property
    def shown_logprobs(self) -> tuple[TokenLogprobs, ...]:
        """Those of the text: joined, the tokens are the text."""
        return self.logprobs[:-1] if self.has_end_token else self.logprobs
