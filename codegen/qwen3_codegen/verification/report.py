"""What was checked and what came of it, as records and as JSON."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from qwen3_codegen.emission.render import write_if_changed
from qwen3_codegen.verification.graph_order import PlacedNode
from qwen3_codegen.verification.measure import Measurement

__all__ = ["Check", "Report", "Stage", "Status", "judged", "write_report"]

REPORT_FORMAT = 1
"""Raised when a reader could misunderstand an older report."""


class Status(enum.Enum):
    """Outcome of a check."""

    PASS = "pass"
    FAIL = "fail"


class Stage(enum.Enum):
    """What a check is part of, in the order they run."""

    OPS = "ops"
    LAYERS = "layers"
    LOGITS = "logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison."""

    stage: Stage
    name: str
    """The value in the engine's words: ``layers.3.q_rms_norm``; or what was asked."""
    layer: int | None
    op: str | None
    part: str | None = None
    """Of an op that a pass made of several: the one that is meant."""
    location: str | None
    """Line of the architecture file that says the op."""
    against: str
    """What it was compared with."""
    max_abs: float
    max_rel: float
    cosine: float
    measured: float
    """The number that the limit bounds."""
    measure: str
    """What that number is."""
    limit: float
    status: Status
    seconds: float
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it missed its limit."""
        return self.status is Status.FAIL

    def describe(self) -> str:
        """Returns where, which op, and by how much."""
        where = "" if self.layer is None else f"layer {self.layer}, "
        part = "" if self.part is None else f"{self.part} of "
        op = "" if self.op is None else f" = {part}{self.op}"
        line = "" if self.location is None else f" ({self.location})"
        note = f"; {self.note}" if self.note else ""
        digits = ".6f" if self.measure == "cosine" else ".2g"
        measured = f"{self.measure} {self.measured:{digits}}, limit {self.limit:{digits}}"
        return f"{where}{self.name}{op}{line}: {measured}{note}"


def judged(
    measured: Measurement,
    *,
    stage: Stage,
    name: str,
    against: str,
    measure: str,
    number: float,
    limit: float,
    passes: bool,
    seconds: float,
    placed: PlacedNode | None = None,
    note: str = "",
) -> Check:
    """Returns the check of a measurement; ``placed`` is the op it says something about."""
    return Check(
        stage=stage,
        name=name,
        layer=None if placed is None else placed.layer,
        op=None if placed is None else placed.node.op,
        part=None if placed is None else placed.part,
        location=None if placed is None else str(placed.location),
        against=against,
        max_abs=measured.max_abs,
        max_rel=measured.max_rel,
        cosine=measured.cosine,
        measured=number,
        measure=measure,
        limit=limit,
        status=Status.PASS if passes else Status.FAIL,
        seconds=seconds,
        note=note,
    )


@dataclass(slots=True)
class Report:
    """Everything that is known about one engine after it was verified."""

    subject: Mapping[str, object]
    """The engine: model, device, dtype, ... as the manifest says them."""
    references: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Check]:
        """Checks that missed their limits, in order."""
        return [check for check in self.checks if check.failed]

    @property
    def first_wrong(self) -> Check | None:
        """The first check that failed: ops before layers before logits, each in order."""
        return next(iter(self.failures), None)

    def verdict(self) -> str:
        """Returns one line: all fine, or the first wrong op."""
        first = self.first_wrong
        if first is None:
            return f"PASS: {len(self.checks)} checks within their limits"
        what = "op" if first.op is not None else first.stage.value
        return f"FAIL: first wrong {what}: {first.describe()}"


def write_report(report: Report, path: Path) -> None:
    """Writes a report as JSON, whole or not at all."""
    first = report.first_wrong
    content = {
        "format": REPORT_FORMAT,
        "verdict": "pass" if first is None else "fail",
        "first_wrong": None if first is None else _plain(first),
        "subject": report.subject,
        "references": report.references,
        "notes": report.notes,
        "seconds": round(report.seconds, 3),
        "checks": [_plain(check) for check in report.checks],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_if_changed(path, text)


def _plain(check: Check) -> dict[str, object]:
    """JSON has no infinity; what is not finite is null."""
    record: dict[str, object] = {}
    for name, value in asdict(check).items():
        if isinstance(value, enum.Enum):
            value = value.value
        elif isinstance(value, float) and not math.isfinite(value):
            value = None
        record[name] = value
    return record
