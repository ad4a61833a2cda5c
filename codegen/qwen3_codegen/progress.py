"""What the user is told while something takes its time, on standard error only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["counted", "format_bytes", "say", "status"]


def say(text: str) -> None:
    """Tells the user something; standard output stays for results."""
    print(text, file=sys.stderr)


def format_bytes(count: int) -> str:
    """Returns a number of bytes as people read it: ``3.44 GB``, ``114.7 kB``, ``96 bytes``."""
    for size, unit, digits in ((1e9, "GB", 2), (1e6, "MB", 1), (1e3, "kB", 1)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count} bytes"


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


@contextmanager
def counted(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function that moves a bar by so many, on a terminal; None is a total not known."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
