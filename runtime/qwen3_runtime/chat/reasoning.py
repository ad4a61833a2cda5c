"""Thoughts between ``<think>`` and ``</think>``, as Qwen3 and its relatives write them."""

from __future__ import annotations

import enum

from qwen3_runtime.chat.deltas import AnswerDelta
from qwen3_runtime.text.stopping import partial_end

__all__ = ["THINK_END", "THINK_START", "ThinkParser"]

THINK_START = "<think>"
THINK_END = "</think>"


class _State(enum.Enum):
    BEFORE = "nothing but white space so far"
    INSIDE = "in the thought"
    AFTER = "in the answer proper"


class ThinkParser:
    """Takes the thought at the head of an answer out of it.

    White space around the thought and before the answer belongs to neither. A closing marker that
    closes nothing is dropped, since clients must never see one.

    Args:
        starts_inside: Whether the prompt opened the thought already.
    """

    def __init__(self, *, starts_inside: bool) -> None:
        self._state = _State.INSIDE if starts_inside else _State.BEFORE
        self._held = ""
        self._is_fresh = True

    def add(self, text: str) -> AnswerDelta:
        """Returns what is certain now that ``text`` has come."""
        self._held += text
        delta = AnswerDelta()
        while True:
            state = self._state
            match state:
                case _State.BEFORE:
                    self._begin()
                case _State.INSIDE:
                    delta += AnswerDelta(reasoning=self._think())
                case _State.AFTER:
                    delta += AnswerDelta(content=self._answer())
            if self._state is state:
                return delta

    def finish(self) -> AnswerDelta:
        """Returns what was held back, once no more text comes."""
        held, self._held = self._held, ""
        if self._state is _State.INSIDE:
            return AnswerDelta(reasoning=held.rstrip())
        return AnswerDelta(content=held)

    def _begin(self) -> None:
        start = self._held.lstrip()
        if start.startswith(THINK_START):
            self._held = start[len(THINK_START) :]
            self._state = _State.INSIDE
        elif start and not THINK_START.startswith(start):
            self._is_fresh = False  # its white space is the answer's own
            self._state = _State.AFTER

    def _think(self) -> str:
        if self._is_fresh:
            self._held = self._held.lstrip()
        thought, marker, rest = self._held.partition(THINK_END)
        if marker:
            self._held, self._state, self._is_fresh = rest, _State.AFTER, True
            return thought.rstrip()
        # White space may turn out to stand before the end.
        certain = thought[: len(thought) - partial_end(thought, THINK_END)].rstrip()
        self._held = thought[len(certain) :]
        self._is_fresh = self._is_fresh and not certain
        return certain

    def _answer(self) -> str:
        if self._is_fresh:
            self._held = self._held.lstrip()
        text = self._held.replace(THINK_END, "")
        keep = partial_end(text, THINK_END)
        self._held = text[len(text) - keep :]
        certain = text[: len(text) - keep]
        self._is_fresh = self._is_fresh and not certain
        return certain
