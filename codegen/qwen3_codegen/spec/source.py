"""Where a piece of a description came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class SourceLocation:
    """A line of a file.

    ``path`` is relative to the modelspecs folder for shipped files and as the user gave it
    otherwise, so that messages and generated comments never hold a machine's paths.
    """

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"
