"""Counts of tokens, as answers carry them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qwen3_runtime.server.pieces import TextPiece

__all__ = ["Usage"]


@dataclass(slots=True)
class Usage:
    """Of one request, all of its answers together."""

    num_prompt_tokens: int
    num_completion_tokens: int = 0
    num_cached_tokens: int = 0

    def add(self, piece: TextPiece) -> None:
        """Counts a piece of any of the answers."""
        self.num_completion_tokens += piece.num_tokens
        self.num_cached_tokens = max(self.num_cached_tokens, piece.num_cached_tokens)

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's ``usage``."""
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": self.num_completion_tokens,
            "total_tokens": self.num_prompt_tokens + self.num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.num_cached_tokens},
        }
