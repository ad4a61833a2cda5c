"""What one rendering of a stranger's template may use: time, text, and size of any value.

Jinja's sandbox keeps a template from Python's internals; it does not keep it from looping for ever
or asking for a string of terabytes. Every step of a template passes through here and draws on one
budget, and every value it builds is measured before it can be used to build a larger one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import SecurityError

__all__ = [
    "checked_result",
    "limits",
    "pay_for_text",
    "require_length",
    "require_small",
    "spend",
    "text_size",
    "turns",
]

MAX_CHARS = 8 << 20
"""Of the output and of any one value written out; several times the longest context served."""
MAX_SPENT = 256 << 20
"""Units of one rendering: a character built costs one, a step ``STEP``."""
MAX_SECONDS = 4.0
"""Time of one rendering; real templates take milliseconds."""
STEP = 64
_MAX_DEPTH = 100
_MAX_PARAMETER = 1000
"""Width, count or length of filling text that a filter takes."""


@dataclass(slots=True)
class _Budget:
    deadline: float
    spent: int = 0


_current: ContextVar[_Budget | None] = ContextVar("chat_template_budget", default=None)


@contextmanager
def limits() -> Iterator[None]:
    """Opens a fresh budget for what runs inside."""
    token = _current.set(_Budget(time.monotonic() + MAX_SECONDS))
    try:
        yield
    finally:
        _current.reset(token)


def spend(units: int = STEP) -> None:
    """Draws on the budget.

    Raises:
        SecurityError: It is used up.
    """
    budget = _current.get()
    if budget is None:
        return
    budget.spent += units
    if budget.spent > MAX_SPENT or time.monotonic() > budget.deadline:
        raise SecurityError("the template takes too many steps")


def turns(iterable: Iterable[Any]) -> Iterator[Any]:
    """Yields the items of a loop, each at the price of a step."""
    for item in iterable:
        spend()
        yield item


def require_length(size: int) -> None:
    """Refuses a text longer than any may be.

    Raises:
        SecurityError: It is too long.
    """
    if size > MAX_CHARS:
        raise SecurityError("the template builds a text that is too long")


def pay_for_text(size: int) -> None:
    """Draws the length of a text about to be built on the budget.

    Raises:
        SecurityError: It is too long, or the budget is used up.
    """
    require_length(size)
    spend(size)


def text_size(value: object) -> int:
    """Returns about how many characters a value would be written with, without writing it.

    Raises:
        SecurityError: More than allowed, or nested too deeply.
    """
    return _text_size(value, 0, 0)


def _text_size(value: object, so_far: int, depth: int) -> int:
    if isinstance(value, str):
        return so_far + len(value)
    if not isinstance(value, list | tuple | dict):
        return so_far + 8
    if depth > _MAX_DEPTH:
        raise SecurityError("the template nests values too deeply")
    items = value if not isinstance(value, dict) else [*value.keys(), *value.values()]
    for item in items:
        so_far = _text_size(item, so_far + 2, depth + 1)
        if so_far > MAX_CHARS:
            raise SecurityError("the template builds a value that is too large")
    return so_far


def checked_result(value: Any) -> Any:
    """Returns what a step of a template gave, measured and paid for.

    Raises:
        SecurityError: It is too large.
    """
    if isinstance(value, str):
        pay_for_text(len(value))
    elif isinstance(value, list | tuple | dict):
        text_size(value)
        spend(16 * len(value))
    return value


def require_small(*parameters: object) -> None:
    """Refuses a filter's parameter that could build something huge.

    Raises:
        SecurityError: A number or text is too large, or it is neither.
    """
    for value in parameters:
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, str) and len(value) <= _MAX_PARAMETER:
            continue
        if isinstance(value, int | float) and abs(value) <= _MAX_PARAMETER:
            continue
        raise SecurityError("a filter's parameter is too large")
