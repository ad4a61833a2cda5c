"""Splits an answer into thoughts, content and tool calls while it comes.

What comes out, joined, does not depend on how the text was cut: markers are found across the cuts,
and text that could still become one is held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from qwen3_runtime.chat.deltas import AnswerDelta, ToolCallDelta
from qwen3_runtime.chat.hermes import HermesToolParser
from qwen3_runtime.chat.reasoning import THINK_END, THINK_START, ThinkParser

__all__ = ["AnswerDelta", "AnswerParser", "ToolCallDelta", "answer_parser"]


class _Stage(Protocol):
    """Takes text and gives deltas; what it does not know is content."""

    def add(self, text: str) -> AnswerDelta: ...

    def finish(self) -> AnswerDelta: ...


class _PlainText:
    """All text is content."""

    def add(self, text: str) -> AnswerDelta:
        return AnswerDelta(content=text)

    def finish(self) -> AnswerDelta:
        return AnswerDelta()


@dataclass(slots=True)
class AnswerParser:
    """One answer: thoughts are taken out first, tool calls out of what is left."""

    _thoughts: _Stage
    _tools: _Stage
    has_tool_calls: bool = False
    """Whether any call has begun."""

    def add(self, text: str) -> AnswerDelta:
        """Returns what is certain now that ``text`` has come."""
        return self._with_tools(self._thoughts.add(text))

    def finish(self) -> AnswerDelta:
        """Returns what was held back, once no more text comes."""
        first = self._with_tools(self._thoughts.finish())
        last = self._tools.finish()
        self.has_tool_calls |= bool(last.tool_calls)
        return first + last

    def _with_tools(self, delta: AnswerDelta) -> AnswerDelta:
        if not delta.content:
            return delta
        found = AnswerDelta(reasoning=delta.reasoning) + self._tools.add(delta.content)
        self.has_tool_calls |= bool(found.tool_calls)
        return found


def answer_parser(
    *,
    reasoning_format: str | None,
    tool_format: str | None,
    prompt_text: str = "",
    has_tools: bool = False,
    only_one_call: bool = False,
) -> AnswerParser:
    """Returns the parser of one answer.

    Args:
        reasoning_format: The model's, ``think`` or None.
        tool_format: The model's, ``hermes`` or None.
        prompt_text: The rendered conversation; a thought that it opens goes on in the answer.
        has_tools: Whether the request lets the model call tools.
        only_one_call: Whether nothing that comes after a first call is part of the answer.
    """
    is_open = prompt_text.rfind(THINK_START) > prompt_text.rfind(THINK_END)
    starts_inside = is_open and prompt_text.rstrip().endswith(THINK_START)
    can_call = has_tools and tool_format == "hermes"
    return AnswerParser(
        ThinkParser(starts_inside=starts_inside) if reasoning_format == "think" else _PlainText(),
        HermesToolParser(only_one=only_one_call) if can_call else _PlainText(),
    )
