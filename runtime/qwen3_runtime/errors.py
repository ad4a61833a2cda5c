"""What can go wrong while an engine runs, as exceptions with a place, a fact and a hint."""

from __future__ import annotations

import re

__all__ = [
    "CheckpointError",
    "EngineError",
    "EngineGoneError",
    "QueueFullError",
    "RequestError",
    "RuntimeFault",
    "TokenizerError",
    "printable",
]

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")
"""Control characters but the line feed, other line ends, changes of direction, half characters."""
_LONG_LINE = re.compile(r"(.{4000}).{4,}")


def printable(text: str) -> str:
    """Returns a message fit to be shown: no line is endless, none of it steers a terminal.

    Messages quote names and values from files that strangers wrote. Characters that would steer a
    terminal, or are no text, are written as escapes.
    """
    return _UNPRINTABLE.sub(
        lambda match: ascii(match.group())[1:-1], _LONG_LINE.sub(r"\1...", text)
    )


class RuntimeFault(Exception):
    """Root of every error a user of an engine may see.

    Args:
        message: What is wrong, in one sentence.
        where: File, tensor or request the fault belongs to.
        got: What was found, already printable.
        expected: What would have been right.
        hint: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        where: object | None = None,
        got: object | None = None,
        expected: object | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.got = got
        self.expected = expected
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.got is not None:
            lines.append(f"  got:      {self.got}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.hint is not None:
            lines.append(f"  hint:     {self.hint}")
        return printable("\n".join(lines))


class CheckpointError(RuntimeFault):
    """A checkpoint's files or tensors are missing, damaged or do not fit the engine."""


class TokenizerError(RuntimeFault):
    """A tokenizer or chat template cannot be read or applied."""


class RequestError(RuntimeFault):
    """A prompt or its sampling parameters cannot be served."""


class QueueFullError(RuntimeFault):
    """Too many requests wait already; a later try may find room."""


class EngineError(RuntimeFault):
    """An engine cannot be imported, or a step of it failed."""


class EngineGoneError(EngineError):
    """An engine's process is not there: not yet, or no longer."""
