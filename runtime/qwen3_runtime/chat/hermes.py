"""Tool calls as Hermes and Qwen write them.

<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable

from qwen3_runtime.chat.deltas import AnswerDelta, ToolCallDelta
from qwen3_runtime.text.stopping import partial_end

__all__ = ["TOOL_END", "TOOL_START", "HermesToolParser"]

TOOL_START = "<tool_call>"
TOOL_END = "</tool_call>"

# The order in which models write a call; any other is read when the call is complete.
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class HermesToolParser:
    """Takes tool calls out of an answer; the arguments of a call are passed on as they come.

    White space around calls is dropped. What stands between the markers and is no call is content,
    without the markers.

    Args:
        new_id: Gives every call its id.
        only_one: Whether the answer is over with its first call, whatever the model adds.
    """

    def __init__(self, new_id: Callable[[], str] = _new_id, *, only_one: bool = False) -> None:
        self._new_id = new_id
        self._only_one = only_one
        self._held = ""
        self._is_inside = False
        self._is_after_call = False
        self._arguments: _ObjectText | None = None
        self._num_calls = 0

    def add(self, text: str) -> AnswerDelta:
        """Returns what is certain now that ``text`` has come."""
        self._held += text
        delta = AnswerDelta()
        while not self._is_over:
            before = (len(self._held), self._is_inside, self._arguments)
            delta += self._call() if self._is_inside else self._content()
            if before == (len(self._held), self._is_inside, self._arguments):
                return delta
        self._held = ""
        return delta

    def finish(self) -> AnswerDelta:
        """Returns what was held back, once no more text comes."""
        held, self._held = self._held, ""
        if self._is_over:
            return AnswerDelta()
        if not self._is_inside:
            return AnswerDelta(content=held.lstrip() if self._is_after_call else held)
        if self._arguments is not None:
            return AnswerDelta()
        return self._whole_call(held)

    @property
    def _is_over(self) -> bool:
        return self._only_one and self._num_calls > 0

    def _content(self) -> AnswerDelta:
        if self._is_after_call:
            self._held = self._held.lstrip()
        text, marker, rest = self._held.partition(TOOL_START)
        if marker:
            self._held, self._is_inside = rest, True
            return AnswerDelta(content=text.rstrip())
        certain = text[: len(text) - partial_end(text, TOOL_START)].rstrip()
        self._is_after_call = self._is_after_call and not certain
        self._held = text[len(certain) :]  # white space may turn out to stand before a call
        return AnswerDelta(content=certain)

    def _call(self) -> AnswerDelta:
        if self._arguments is None:
            head = _HEAD.match(self._held)
            if head is None:
                return self._buffered_call()
            name = _loads(head[1])
            if not isinstance(name, str):
                return self._buffered_call()
            self._held = self._held[head.end() :]
            self._arguments = _ObjectText()
            return self._delta(name, "")
        piece, self._held = self._arguments.take(self._held)
        delta = self._delta(None, piece) if piece else AnswerDelta()
        if self._arguments.is_complete:
            self._skip_to_end()
        return delta

    def _skip_to_end(self) -> None:
        _, marker, rest = self._held.partition(TOOL_END)
        if marker:
            self._held, self._is_inside, self._arguments = rest, False, None
            self._is_after_call = True
            self._num_calls += 1

    def _buffered_call(self) -> AnswerDelta:
        call, marker, rest = self._held.partition(TOOL_END)
        if not marker:
            return AnswerDelta()
        self._held, self._is_inside, self._is_after_call = rest, False, True
        return self._whole_call(call)

    def _whole_call(self, text: str) -> AnswerDelta:
        call = _loads(text)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            before, marker, last = text.rpartition(TOOL_START)
            if not marker:
                return AnswerDelta(content=text.strip())
            # Begun anew: small models do so, and markers are never content.
            given_up = AnswerDelta(content=before.replace(TOOL_START, "").strip())
            return given_up + self._whole_call(last)
        arguments = call.get("arguments") or {}
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        delta = self._delta(call["name"], arguments)
        self._num_calls += 1
        return delta

    def _delta(self, name: str | None, arguments: str) -> AnswerDelta:
        identity = self._new_id() if name is not None else None
        return AnswerDelta(tool_calls=(ToolCallDelta(self._num_calls, identity, name, arguments),))


class _ObjectText:
    """Follows the text of a JSON object to its end.

    Control characters in strings, which models write and JSON forbids, are escaped.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False
        self.is_complete = False

    def take(self, text: str) -> tuple[str, str]:
        """Returns what belongs to the object, and the rest."""
        if self.is_complete:
            return "", text
        pieces = []
        for index, char in enumerate(text):
            is_control = self._is_in_string and char < " "
            pieces.append(json.dumps(char)[1:-1] if is_control else char)
            self._follow(char)
            if self._depth == 0:
                self.is_complete = True
                return "".join(pieces), text[index + 1 :]
        return "".join(pieces), ""

    def _follow(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._is_in_string:
            self._is_escaped = char == "\\"
            self._is_in_string = char != '"'
        elif char == '"':
            self._is_in_string = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1


def _loads(text: str) -> object:
    try:
        value: object = json.loads(text, strict=False)
    except (ValueError, RecursionError):  # models nest without end, too
        return None
    return value
