"""What the user is told while something takes its time, on standard error only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["say", "status"]


def say(text: str) -> None:
    """Tells the user something; standard output stays for results."""
    print(text, file=sys.stderr)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows what is being done, as a spinner on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield say
        return
    with console.status("working ...") as spinner:
        yield lambda text: spinner.update(f"{text} ...")
