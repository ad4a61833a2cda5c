"""What an answer is made of, once its tokens are text."""

from __future__ import annotations

from dataclasses import dataclass

from qwen3_runtime.sampling import TokenLogprobs

__all__ = ["TextPiece"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPiece:
    """What has come since the piece before."""

    text: str = ""
    """Final: no later token changes it, and no stop string is part of it."""
    num_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    num_cached_tokens: int = 0
    prefill_seconds: float = 0.0
    """On the first piece, what the engine took for the prompt and the first token."""
    finish_reason: str | None = None
    """``stop`` or ``length`` on the last piece."""
    stopped_by: str | None = None
    """The stop string that ended the answer, on the last piece."""
    has_end_token: bool = False
    """Whether the last token is what ended the answer, and no part of its text."""

    @property
    def shown_logprobs(self) -> tuple[TokenLogprobs, ...]:
        """Those of the text: joined, the tokens are the text."""
        return self.logprobs[:-1] if self.has_end_token else self.logprobs
