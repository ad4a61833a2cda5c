"""How much of a prompt goes into a step that others wait for a token of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qwen3_runtime.engine.scheduler import ScheduledStep

__all__ = ["Pace"]

_LONGEST = 2.5
"""Times a step without a prompt that one with a part of a prompt may take."""
_FIRST = 16
"""Tokens of a prompt before anything is measured."""
_FEWEST = 8
_WEIGHT = 0.2
"""Of the newest measurement in a running mean."""


@dataclass(slots=True)
class Pace:
    """Bounds the prompt tokens of mixed steps by what earlier steps took.

    A long prompt is cut into chunks so that streams which run get their next token in about the
    time they are used to. The answer is in nobody's bits (native kernels are batch-invariant), so
    it may follow a clock.
    """

    _decode_seconds: float | None = None
    """Mean of steps without a prompt."""
    _token_seconds: float | None = None
    """Mean per prompt token, beyond what the decodes of its step took."""

    @property
    def max_prompt_tokens(self) -> int:
        """Most tokens of prompts in a step that others wait for a token of."""
        if self._decode_seconds is None or self._token_seconds is None:
            return _FIRST
        spare = (_LONGEST - 1.0) * self._decode_seconds
        return max(_FEWEST, int(spare / self._token_seconds))

    @contextmanager
    def measured(self, step: ScheduledStep) -> Iterator[None]:
        """Takes the time of a step."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        num_decodes = sum(share.num_tokens == 1 for share in step.shares)
        num_prompt_tokens = sum(share.num_tokens for share in step.shares) - num_decodes
        if num_prompt_tokens == 0:
            self._decode_seconds = _mean(self._decode_seconds, seconds)
        else:
            own = seconds - (self._decode_seconds or 0.0 if num_decodes else 0.0)
            self._token_seconds = _mean(self._token_seconds, max(own, 1e-6) / num_prompt_tokens)


def _mean(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + _WEIGHT * (newest - mean)
