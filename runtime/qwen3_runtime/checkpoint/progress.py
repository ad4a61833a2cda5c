"""A progress bar for loading weights, on the terminal's error stream only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qwen3_runtime.checkpoint.weight_store import Progress

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(description: str = "Loading weights") -> Iterator[Progress]:
    """Yields a ``WeightStore`` progress callback that draws a bar.

    Standard output stays clean for the model's text. Where standard error is no terminal, nothing
    is drawn.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[weight]}", markup=False),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, weight="")

        def report(bytes_done: int, bytes_total: int, name: str) -> None:
            bar.update(task, completed=bytes_done, total=bytes_total, weight=name)

        yield report
