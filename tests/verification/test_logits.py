"""Logits and greedy tokens are those of the engine as it is used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.verification import Stage
from qwen3_codegen.verification.logit_stage import check_greedy
from qwen3_runtime.checkpoint import open_checkpoint
from tests.verification.subjects import interpreted, torch_reference, verified, with_window


def test_an_ordinary_engine_that_is_not_the_traced_one(reference):
    """Its ops cannot be seen, so none of them is named."""
    model = reference("qwen3-window-8")
    with open_checkpoint(model.path) as checkpoint:
        spec = load_model(str(model.path))
        subject = interpreted(spec, checkpoint, "portable")
        wrong = interpreted(spec, checkpoint, "portable", with_window(subject.graph, 9))
        subject = replace(subject, ordinary=wrong.ordinary)
        report = verified(subject, checkpoint, [torch_reference(model, subject.graph)])
    assert {check.stage for check in report.failures} == {Stage.LOGITS}
    assert report.verdict().startswith("FAIL: first wrong logits: logits: max_abs ")
    (note,) = report.notes
    assert note.startswith("logits of the traced and the ordinary engine differ, by at most ")


def test_an_op_that_no_module_shows(reference):
    """What scales logits stands between the last value that is seen and the logits."""
    model = reference("granite")
    with open_checkpoint(model.path) as checkpoint:
        spec = load_model(str(model.path), overrides={"logits_scaling": "2.0"})
        subject = interpreted(spec, checkpoint, "native")
        first = verified(subject, checkpoint, [torch_reference(model, subject.graph)]).first_wrong
    assert (first.stage, first.name) == (Stage.LOGITS, "logits")
    assert first.op == "linear"  # its alpha
    assert first.location.endswith("granite.yaml:57")


ROWS = np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.9999], [5.0, 0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("tokens", "passes", "note"),
    [
        ([1, 0], True, "2 of 2 tokens are the reference's"),
        ([1, 2], True, "1 of 2 tokens are the reference's; the others were too close to call"),
        ([2, 0], False, "1 of 2 tokens are the reference's"),
    ],
)
def test_greedy_tokens_may_differ_where_it_is_too_close_to_call(tokens, passes, note):
    check = check_greedy([tokens], [[7]], [ROWS], error=1e-3, against="a model")
    assert check.failed is not passes
    assert check.note == note
    assert check.limit == pytest.approx(2e-3)
