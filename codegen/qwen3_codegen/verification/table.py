"""A report as people read it: tables, what missed its limit, the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3_codegen.verification.report import Check, Report, Stage

__all__ = ["print_report"]

_MOST_FAILURES = 10
_TITLES = {
    Stage.OPS: "Op by op",
    Stage.LAYERS: "Layer by layer",
    Stage.LOGITS: "Logits and tokens",
}
_WIDTH = 120
"""Where standard output is no terminal; on a narrower one, some numbers are left to the report."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints a report on standard output; equal checks of many layers are one row."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    facts = report.subject
    emulated = " (emulated on the CPU)" if facts.get("emulated") else ""
    layers = "1 layer" if facts["num_layers"] == 1 else f"{facts['num_layers']} layers"
    line(
        f"{facts['model']}: {layers}, {_dtypes(facts)}, {facts['lowering']} "
        f"lowering, {facts['device']}{emulated}, InfiniCore {facts['infinicore']}"
    )
    for (stage, against), checks in groupby(report.checks, lambda each: (each.stage, each.against)):
        line(f"\n{_TITLES[stage]}, against {against}")
        with_ops = stage is not Stage.LOGITS
        table = _table(list(checks), with_ops=with_ops, is_narrow=console.width < _WIDTH)
        console.print(table)
    for note in report.notes:
        line(f"note: {note}")
    failures = report.failures
    for check in failures[:_MOST_FAILURES]:
        line(f"{check.stage.value}: {check.describe()}")
    if len(failures) > _MOST_FAILURES:
        line(f"... and {len(failures) - _MOST_FAILURES} more")
    line(f"{len(report.checks)} checks in {report.seconds:.0f} s")
    line(report.verdict())


def _dtypes(facts: Mapping[str, object]) -> str:
    """What matrices are in, and what is in another dtype."""
    usual = facts["dtype"]
    others = [
        f"{facts[key]} {what}"
        for key, what in (("activation_dtype", "values"), ("kv_cache_dtype", "cache"))
        if facts[key] != usual
    ]
    if facts["row_dtype"] is not None:
        others.append("rows rounded in products")
    return f"{usual} ({', '.join(others)})" if others else str(usual)


def _table(checks: Sequence[Check], *, with_ops: bool, is_narrow: bool) -> Table:
    """What is wider than the screen folds; names of ops, of which there are few, never do."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("value", overflow="fold", min_width=10)
    for column in ("op", "where") if with_ops else ():
        table.add_column(column, no_wrap=True)
    numbers = () if is_narrow else ("max abs", "max rel", "cosine")
    for column in (*numbers, "limit", "of it"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for cells, failed in _rows(checks, with_ops=with_ops, with_numbers=not is_narrow):
        # As they are: in a name of the reference, [x] is no markup.
        table.add_row(*map(Text, cells), style="red" if failed else None)
    return table


def _rows(
    checks: Sequence[Check], *, with_ops: bool, with_numbers: bool
) -> Iterator[tuple[list[str], bool]]:
    groups: dict[tuple[object, ...], list[Check]] = {}
    for check in checks:
        groups.setdefault((*_split(check), check.op, check.measure), []).append(check)
    for (where, value, op, measure), group in groups.items():
        worst = max(group, key=lambda check: (check.failed, _share(check)))
        failed = sum(check.failed for check in group)
        status = "pass" if not failed else "FAIL" if len(group) == 1 else f"FAIL {failed}"
        middle = [str(op or ""), _where(str(where), group)] if with_ops else []
        numbers = [
            _number(max(check.max_abs for check in group)),
            _number(worst.max_rel),
            "" if math.isnan(worst.cosine) else f"{worst.cosine:.7f}",
        ]
        yield (
            [
                str(value),
                *middle,
                *(numbers if with_numbers else []),
                f"{measure} {_limit(worst)}",
                f"{_share(worst):.0%}" if math.isfinite(_share(worst)) else "inf",
                status,
            ],
            bool(failed),
        )


def _split(check: Check) -> tuple[str, str]:
    """The place of a value (all layers are one) and its own name."""
    place, dot, value = check.name.partition(".")
    if place == "layers" and check.layer is None:
        return "prologue", value.partition(".")[2]  # what layer 0 begins with
    if place == "layers":
        return "layers", value.partition(".")[2]
    return (place, value) if dot and place in ("prologue", "epilogue") else ("", check.name)


def _where(place: str, group: Sequence[Check]) -> str:
    layers = [check.layer for check in group if check.layer is not None]
    if not layers:
        return place
    first, last = min(layers), max(layers)
    return f"layer {first}" if first == last else f"layers {first}-{last}"


def _share(check: Check) -> float:
    """How much of its limit a check takes; of a cosine, how far it is from one."""
    measured, limit = check.measured, check.limit
    if check.measure == "cosine":
        measured, limit = 1 - measured, 1 - limit
    if limit == 0:
        return 0.0 if measured == 0 else math.inf
    return measured / limit


def _limit(check: Check) -> str:
    return f"{check.limit:.4f}" if check.measure == "cosine" else _number(check.limit)


def _number(value: float) -> str:
    return "" if math.isnan(value) else "0" if value == 0 else f"{value:.1e}"
