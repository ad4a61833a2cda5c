"""One line of the doctor's report."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.Enum):
    """How a finding counts."""

    OK = "ok"
    MISSING = "missing"
    """Needed and not there: the exit code is 1."""
    NOTE = "note"
    """Worth knowing, in nobody's way."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing."""

    status: Status
    subject: str
    found: str
    mend: str | None = None
    """What to do about it; always there when the thing is missing."""


def ok(subject: str, found: str) -> Finding:
    """The thing is there."""
    return Finding(Status.OK, subject, found)


def missing(subject: str, found: str, mend: str) -> Finding:
    """The thing is needed and not there."""
    return Finding(Status.MISSING, subject, found, mend)


def note(subject: str, found: str, mend: str | None = None) -> Finding:
    """A fact, perhaps with advice."""
    return Finding(Status.NOTE, subject, found, mend)
