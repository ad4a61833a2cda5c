"""The report on a console."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from qwen3_codegen.verification import Report, Stage
from qwen3_codegen.verification.report import Check, Status
from qwen3_codegen.verification.table import print_report

SUBJECT = {
    "model": "m",
    "num_layers": 1,
    "dtype": "float32",
    "activation_dtype": "float32",
    "kv_cache_dtype": "float32",
    "row_dtype": None,
    "lowering": "native",
    "device": "cpu",
    "infinicore": "0.1.0 embedded",
}


def check(name: str, op: str, **facts: object) -> Check:
    return Check(
        stage=Stage.OPS, name=name, layer=0, op=op, location=None, against="x", max_abs=0.5,
        max_rel=0.5, cosine=0.5, measured=0.5, measure="max_rel", limit=1e-3, status=Status.FAIL,
        seconds=0.0, **facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("others", "shown"),
    [
        ({"kv_cache_dtype": "bfloat16"}, "bfloat16 (float32 values), "),
        ({"row_dtype": "bfloat16"}, "(float32 values, float32 cache, rows rounded in products), "),
        ({"activation_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}, "layer, bfloat16, "),
    ],
)
def test_what_is_in_another_dtype_is_said(others, shown):
    console = Console(file=io.StringIO(), width=200)
    print_report(Report(subject={**SUBJECT, "dtype": "bfloat16", **others}), console)
    assert shown in console.file.getvalue().splitlines()[0]


@pytest.mark.parametrize(("num_layers", "shown"), [(1, "m: 1 layer, "), (2, "m: 2 layers, ")])
def test_one_layer_is_no_plural(num_layers, shown):
    console = Console(file=io.StringIO(), width=200)
    print_report(Report(subject={**SUBJECT, "num_layers": num_layers}), console)
    assert console.file.getvalue().startswith(shown)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_op_is_cut(width):
    """On a narrow terminal there are fewer columns; the verdict and the report have the rest."""
    checks = [
        check("layers.0.a.k_norm", "rotary_attention", part="k_norm"),
        check("layers.0.post_attention_layernorm_rms_norm", "gated_delta_net"),
    ]
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_report(Report(subject=SUBJECT, checks=checks), console)
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines() if line.startswith(" "))
    assert "…" not in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith(" a.k_norm")]
    assert row[:4] == ["a.k_norm", "rotary_attention", "layer", "0"]
    assert row[-4:] == ["max_rel", "1.0e-03", "50000%", "FAIL"]
    assert ("5.0e-01" in row) == (width >= 120)
    assert "layers.0.a.k_norm = k_norm of rotary_attention: max_rel 0.5" in text


def test_names_of_a_reference_are_shown_as_they_are():
    """Modules may be called anything."""
    odd = Check(
        stage=Stage.LAYERS, name="mine.[red]", layer=0, op="[/x]", location=None, against="mine",
        max_abs=1.0, max_rel=1.0, cosine=0.0, measured=1.0, measure="max_abs", limit=0.0,
        status=Status.FAIL, seconds=0.0,
    )  # fmt: skip
    console = Console(file=io.StringIO())
    print_report(Report(subject=SUBJECT, checks=[odd]), console)
    (row,) = [line for line in console.file.getvalue().splitlines() if line.startswith(" mine")]
    assert row.split()[:3] == ["mine.[red]", "[/x]", "layer"]
