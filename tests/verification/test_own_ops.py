"""Ops of the user's own are judged as built-in ones, with limits that a plain sum keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.verification import Report
from qwen3_runtime.checkpoint import open_checkpoint
from tests.cli.descriptions import spoil, write_tiny_model
from tests.verification.subjects import interpreted, verified

# Adds a row's elements one after the other, as the loop of a first kernel does.
ROW_SHARE = """\
import numpy as np

from qwen3_codegen.ops import Op, Role, same_as


def reference(inputs, attributes, step):
    x = inputs["x"]
    share = x / np.cumsum(x * x, axis=1, dtype=x.dtype)[:, -1:]
    return share if x.dtype == np.float64 else share * x.dtype.type(1 + MISTAKE)


OP = Op(
    name="row_share",
    doc="y = x / sum(x^2).",
    roles=(Role(name="x", shape="[rows, columns]"),),
    result="the shape of x",
    shape_rule=same_as("x"),
    reference=reference,
)
"""


def report_with(mistake: str, folder: Path) -> Report:
    """Of an engine that is off by a share of what the op gives."""
    file = folder / "ops" / "row_share.py"
    file.parent.mkdir()
    file.write_text(ROW_SHARE.replace("MISTAKE", mistake), encoding="utf-8")
    description = write_tiny_model(folder)
    spoil(folder / "small.yaml", "silu(gate) * up", "row_share(gate) * up")
    spec = load_model(
        str(description),
        overrides={"intermediate_size": "4096"},
        own_functions=load_ops([file.parent]),
    )
    write_random_checkpoint(spec, folder / "checkpoint", seed=0)
    with open_checkpoint(folder / "checkpoint") as checkpoint:
        return verified(interpreted(spec, checkpoint, "native"), checkpoint)


def test_a_plain_sum_is_within_the_limit(tmp_path):
    report = report_with("0", tmp_path)
    assert report.verdict().startswith("PASS"), report.verdict()
    assert "row_share" in {check.op for check in report.checks}


@pytest.mark.parametrize("mistake", ["5e-5", "-5e-5"])
def test_a_mistake_is_found(mistake, tmp_path):
    first = report_with(mistake, tmp_path).first_wrong
    assert first is not None
    assert (first.op, first.layer) == ("row_share", 0)
