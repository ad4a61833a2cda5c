"""The report on a console."""

from __future__ import annotations

import io

from rich.console import Console

from qwen3_codegen.verification import Report, Stage
from qwen3_codegen.verification.report import Check, Status
from qwen3_codegen.verification.table import print_report

SUBJECT = {
    "model": "m",
    "num_layers": 1,
    "dtype": "float32",
    "lowering": "native",
    "device": "cpu",
    "infinicore": "0.1.0 embedded",
}


def test_names_of_a_reference_are_shown_as_they_are():
    """Modules may be called anything."""
    check = Check(
        stage=Stage.LAYERS, name="mine.[red]", layer=0, op="[/x]", location=None, against="mine",
        max_abs=1.0, max_rel=1.0, cosine=0.0, measured=1.0, measure="max_abs", limit=0.0,
        status=Status.FAIL, seconds=0.0,
    )  # fmt: skip
    console = Console(file=io.StringIO())
    print_report(Report(subject=SUBJECT, checks=[check]), console)
    (row,) = [line for line in console.file.getvalue().splitlines() if line.startswith(" mine")]
    assert row.split()[:3] == ["mine.[red]", "[/x]", "layer"]
