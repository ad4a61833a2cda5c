"""How much of a prompt goes into a step that others wait for a token of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qwen3_runtime.engine.scheduler import ScheduledStep

__all__ = ["Pace"]

_LONGEST = 1.75
"""Times a step without a prompt that one with a part of a prompt may take. Streams should never
wait four times as long as they are used to, and machines that do other things, too, double any
step now and then."""
_FIRST = 16
"""Tokens of a prompt before anything is measured."""
_FEWEST = 4
"""However dear they are: a prompt goes on."""
_GROWTH = 2
"""Times the longest chunk so far that the next one may be: costs of longer ones are a guess."""
_WEIGHT = 0.2
"""Of the newest measurement in a running mean."""
_SIMILAR = 0.25
"""Share by which the number of sequences may change before what a step took is out of date."""
_LOOK = 32
"""Steps with parts of prompts after which one goes without, to see what that takes by now."""


@dataclass(slots=True)
class Pace:
    """Bounds the prompt tokens of mixed steps by what earlier mixed steps took.

    A long prompt is cut into chunks so that streams which run get their next token in about the
    time they are used to. The answer is in nobody's bits (native kernels are batch-invariant), so
    it may follow a clock.
    """

    _decode_seconds: float | None = None
    """Running mean of steps without a prompt."""
    _num_decodes: float = 0.0
    """Running mean of the sequences in them."""
    _mixed_steps: int = 0
    """Steps with a part of a prompt since the last one without."""
    _prompt_seconds: float = 0.0
    """Running mean of what prompts took in mixed steps, beyond the decodes beside them."""
    _prompt_tokens: float = 0.0
    """Running mean of their tokens; the quotient weighs chunks by their length."""
    _newest: float = 0.0
    """Seconds per token of the newest chunk; tokens cost more the further into a prompt."""
    _longest_chunk: int = 0

    @property
    def max_prompt_tokens(self) -> int:
        """Most tokens of prompts in a step that gives others a token."""
        if self._mixed_steps >= _LOOK:
            return 0
        if self._decode_seconds is None or not self._prompt_tokens:
            return _FIRST
        spare = (_LONGEST - 1.0) * self._decode_seconds
        token_seconds = max(self._prompt_seconds / self._prompt_tokens, self._newest)
        most = _GROWTH * self._longest_chunk
        return max(_FEWEST, min(int(spare / token_seconds), most))

    @contextmanager
    def measured(self, step: ScheduledStep) -> Iterator[None]:
        """Takes the time of a step."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        num_decodes = sum(share.num_tokens == 1 for share in step.shares)
        num_prompt_tokens = sum(share.num_tokens for share in step.shares) - num_decodes
        if num_prompt_tokens == 0:
            self._note_decodes(num_decodes, seconds)
        elif num_decodes:
            if self._decode_seconds is not None:
                self._note(num_prompt_tokens, max(seconds - self._decode_seconds, 1e-6))
            self._mixed_steps += 1

    def _note_decodes(self, num_decodes: int, seconds: float) -> None:
        change = abs(num_decodes - self._num_decodes)
        if self._decode_seconds is None or change > _SIMILAR * num_decodes:
            self._decode_seconds, self._num_decodes = seconds, num_decodes
        else:
            self._decode_seconds += _WEIGHT * (seconds - self._decode_seconds)
            self._num_decodes += _WEIGHT * (num_decodes - self._num_decodes)
        self._mixed_steps = 0

    def _note(self, num_tokens: int, seconds: float) -> None:
        whole = min(self._longest_chunk, self.max_prompt_tokens)
        self._prompt_seconds += _WEIGHT * (seconds - self._prompt_seconds)
        self._prompt_tokens += _WEIGHT * (num_tokens - self._prompt_tokens)
        # The end of a prompt is short, and what is fixed in a step would seem its tokens' fault.
        if 2 * num_tokens >= whole:
            self._newest = seconds / num_tokens
        self._longest_chunk = max(self._longest_chunk, num_tokens)
