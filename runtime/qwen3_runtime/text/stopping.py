"""Stop strings, found across token borders and never partly shown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopChecker", "partial_end"]


class StopChecker:
    """Passes a stream of text on up to the first stop string.

    Text that could still become a stop string is held back. The result does not depend on how the
    stream is cut: the stop string that is complete first wins, and of several complete at the same
    character the longest.

    Args:
        stop: Stop strings; empty ones are ignored.
        include_stop: Whether the stop string itself is passed on.
    """

    def __init__(self, stop: Sequence[str], *, include_stop: bool = False) -> None:
        self._stop = tuple(dict.fromkeys(text for text in stop if text))
        self._include_stop = include_stop
        self._held = ""
        self.stopped_by: str | None = None
        """The stop string that ended the stream, None so far."""

    def add(self, text: str, *, may_stop: bool = True) -> str:
        """Returns what may be shown now that ``text`` has come; empty once stopped.

        Where it may not stop yet, a stop string that ends within ``text`` is text like any other;
        one that has only begun still counts when it is complete.
        """
        if self.stopped_by is not None:
            return ""
        text = self._held + text
        ends = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends and may_stop:
            end, start, self.stopped_by = min(ends)
            self._held = ""
            return text[: end if self._include_stop else start]
        keep = max((partial_end(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Returns what was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def partial_end(text: str, stop: str) -> int:
    """Returns how many characters at the end of ``text`` begin ``stop`` without completing it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
