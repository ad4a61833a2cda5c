"""The parser of the command line and of each command: says what a mistyped word may mean."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from qwen3_codegen.errors import nearest

__all__ = ["CommandParser"]


class CommandParser(argparse.ArgumentParser):
    """Refuses what it does not know itself, so that the usage shown is that of the command.

    ``argparse`` leaves that to the outermost parser, whose usage says nothing of the options.
    """

    _words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override] # of its overloads this is the last
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parses; ends the process where a word is not known, so none of them is returned."""
        self._words = args or ()
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Prints the usage, what is wrong and the nearest option; ends the process with 2."""
        is_value = _HINT in message or "expected one argument" in message
        hint = None if is_value else self._near_option()
        super().error(message if hint is None else f"{message}{_HINT}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = nearest(str(value), map(str, action.choices or ()))
            if hint is not None:
                error.message += f"{_HINT}{hint}"
            raise

    def _near_option(self) -> str | None:
        """A hint for the first option that is mistyped, which may be why another is missing."""
        known = self._option_string_actions
        for word in _options(self._words):
            hint = None if word in known else nearest(word, known)
            if hint is not None:
                return hint
        return None


_HINT = "\n  hint:     "


def _options(words: Iterable[str]) -> Iterable[str]:
    """Names of long options among words; single dashes may be numbers."""
    for word in words:
        if word == "--":
            return
        if word.startswith("--"):
            yield word.partition("=")[0]
