"""What a user can get wrong, as exceptions with a place, a fact and a hint.

The command line prints ``str(error)`` and exits with 2; nothing in these classes formats for a
terminal, so the same text serves a log or a test.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from qwen3_runtime.errors import printable

__all__ = [
    "BuildError",
    "CodegenError",
    "HubError",
    "InfiniCoreError",
    "LoweringError",
    "OpError",
    "SpecError",
    "VerifyError",
    "nearest",
]


class CodegenError(Exception):
    """Root of every error a user of the compiler may see.

    Args:
        message: What is wrong, in one sentence.
        where: Place of the fault, ``path:line`` where there is a line.
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


class SpecError(CodegenError):
    """A model, architecture or device description, or a config.json, is wrong."""


class VerifyError(CodegenError):
    """A graph breaks a rule of the op table."""


class LoweringError(CodegenError):
    """A graph cannot be carried out on the chosen device."""


class OpError(CodegenError):
    """An op of the user's own is wrong: its row, its reference or its header."""


class BuildError(CodegenError):
    """The generated sources did not become a module."""


class HubError(CodegenError):
    """A model is not to be had from the hub."""


class InfiniCoreError(CodegenError):
    """An InfiniCore installation is missing, wrong or could not be made."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Returns a hint naming the closest candidate, or None when nothing is close."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f"did you mean '{matches[0]}'?" if matches else None
