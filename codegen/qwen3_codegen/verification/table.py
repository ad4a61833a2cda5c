"""A report as people read it: a table, what missed its limit, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from qwen3_codegen.verification.report import Check, Report, Stage

__all__ = ["print_report"]

_MOST_FAILURES = 10
_TITLES = {
    Stage.OPS: "Op by op",
    Stage.LAYERS: "Layer by layer",
    Stage.LOGITS: "Logits and tokens",
}
_WIDTH = 110
"""Where standard output is no terminal."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints a report on standard output; equal checks of many layers are one row."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    facts = report.subject
    emulated = " (emulated)" if facts.get("emulated") else ""
    console.print(
        f"{facts['model']}: {facts['num_layers']} layers, {facts['dtype']}, {facts['lowering']}, "
        f"{facts['device']}{emulated}, InfiniCore {facts['infinicore']}",
        markup=False,
        highlight=False,
    )
    for (stage, against), checks in groupby(report.checks, lambda each: (each.stage, each.against)):
        title = f"{_TITLES[stage]}, against {against}"
        console.print(_table(title, list(checks), with_ops=stage is not Stage.LOGITS))
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    failures = report.failures
    for check in failures[:_MOST_FAILURES]:
        console.print(f"{check.stage.value}: {check.describe()}", markup=False, highlight=False)
    if len(failures) > _MOST_FAILURES:
        console.print(f"... and {len(failures) - _MOST_FAILURES} more", highlight=False)
    print(report.verdict(), file=console.file)


def _table(title: str, checks: Sequence[Check], *, with_ops: bool) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = ["value", *(["op", "layers"] if with_ops else [])]
    for column in columns:
        table.add_column(column, overflow="fold")
    for column in ("max abs", "max rel", "cosine", "measured", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for row, failed in _rows(checks, with_ops=with_ops):
        table.add_row(*row, style="red" if failed else None)
    return table


def _rows(checks: Sequence[Check], *, with_ops: bool) -> Iterator[tuple[list[str], bool]]:
    groups: dict[tuple[str, str | None, str], list[Check]] = {}
    for check in checks:
        name = check.name if check.layer is None else check.name.replace(f".{check.layer}.", ".*.")
        groups.setdefault((name, check.op, check.measure), []).append(check)
    for (name, op, measure), group in groups.items():
        worst = max(group, key=lambda check: (check.failed, _severity(check)))
        failed = sum(check.failed for check in group)
        middle = [op or "", _layers(group)] if with_ops else []
        yield (
            [
                name,
                *middle,
                _number(max(check.max_abs for check in group)),
                _number(worst.max_rel),
                f"{worst.cosine:.7f}" if worst.cosine == worst.cosine else "",
                f"{measure} {_number(worst.measured)}",
                _number(worst.limit),
                "pass" if not failed else f"FAIL {failed}" if len(group) > 1 else "FAIL",
            ],
            bool(failed),
        )


def _severity(check: Check) -> float:
    """How much of its limit a check takes; of a cosine, how far it is from one."""
    if check.measure == "cosine":
        return (1 - check.measured) / max(1 - check.limit, 1e-300)
    return check.measured / max(check.limit, 1e-300)


def _layers(group: Sequence[Check]) -> str:
    layers = [check.layer for check in group if check.layer is not None]
    if not layers:
        return ""
    first, last = min(layers), max(layers)
    return str(first) if first == last else f"{first}-{last} ({len(layers)})"


def _number(value: float) -> str:
    return "" if value != value else "0" if value == 0 else f"{value:.1e}"
