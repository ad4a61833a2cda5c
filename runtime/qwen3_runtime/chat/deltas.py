"""What a piece of an answer adds to it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AnswerDelta", "ToolCallDelta"]


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Part of a call; the first one of a call has its id and name, later ones arguments alone."""

    index: int
    id: str | None
    name: str | None
    arguments: str
    """A piece of JSON text; the pieces of a call, joined, are one value."""


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """What has come since the one before."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __add__(self, later: AnswerDelta) -> AnswerDelta:
        return AnswerDelta(
            self.content + later.content,
            self.reasoning + later.reasoning,
            self.tool_calls + later.tool_calls,
        )

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.tool_calls)
