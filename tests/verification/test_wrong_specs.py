"""Specs that are wrong: compiled faithfully, told apart from transformers or a user's module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from qwen3_codegen.compile import CompileOptions
from qwen3_codegen.dtypes import DType
from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.spec.catalog import load_checkpoint_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.verification import Report, Stage
from qwen3_codegen.verification.subject import compiled_subject
from qwen3_codegen.verification.torch_reference import transformers_reference
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.errors import CheckpointError
from tests.verification.subjects import verified

MODEL = "qwen3-window-8"
K_NORM = "  - k = rms_norm(k, weight=self_attn.k_norm)\n"
NO_K_NORM = (
    (K_NORM, ""),
    ('"*.rotary_emb.inv_freq"', '"*.rotary_emb.inv_freq", "*.k_norm.weight"'),
)
SWAPPED = (("silu(gate) * up", "silu(up) * gate"),)


def architecture(folder: Path, changes: tuple[tuple[str, str], ...]) -> str:
    """Qwen3's file with some texts, each there once, replaced."""
    text = (modelspecs_dir() / "architectures" / "qwen3.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    file = folder / "wrong.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def line_of(file: str | Path, text: str) -> int:
    """Line of a text that is there once."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return number


def verify(
    path: Path,
    lowering: str = "portable",
    *,
    dtype: DType = DType.F32,
    arch: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Report:
    """Of the two builds of an engine only the one that shows its values is made, to save time."""
    spec = load_checkpoint_model(str(path), architecture=arch, overrides=overrides)
    options = CompileOptions(dtype=dtype, lowering=lowering)
    with open_checkpoint(path) as checkpoint:
        subject = compiled_subject(spec, load_device("cpu"), options, checkpoint)
        subject = replace(subject, ordinary=subject.traced)
        reference = transformers_reference(
            path, "Qwen3ForCausalLM", subject.graph, "model.layers.{layer}."
        )
        return verified(subject, checkpoint, [reference])


def only_layers_and_logits_fail(report: Report) -> bool:
    return {check.stage for check in report.failures} == {Stage.LAYERS, Stage.LOGITS}


@pytest.mark.compile
@pytest.mark.parametrize("lowering", ["portable", "native"])
def test_a_right_spec_passes(lowering, reference):
    report = verify(reference(MODEL).path, lowering)
    assert report.verdict().startswith("PASS"), report.verdict()
    assert {check.stage for check in report.checks} == set(Stage)
    assert report.references[0].startswith("transformers ")
    assert not report.notes


@pytest.mark.compile
@pytest.mark.parametrize("lowering", ["portable", "native"])
def test_a_norm_that_is_left_out(lowering, reference, tmp_path):
    file = architecture(tmp_path, NO_K_NORM)
    report = verify(reference(MODEL).path, lowering, arch=file)
    first = report.first_wrong
    assert (first.name, first.layer) == ("model.layers.0.self_attn.k_norm", 0)
    assert "no op of the engine reads" in first.note
    # The line after which it would stand; the portable engine has one linear for q, k and v.
    before = {"native": "- k = linear(", "portable": "- q = rms_norm("}[lowering]
    assert first.location == f"{file}:{line_of(file, before)}"
    assert "its place is after layers.0." in first.note
    assert only_layers_and_logits_fail(report)


@pytest.mark.compile
@pytest.mark.parametrize("lowering", ["portable", "native"])
def test_gate_and_up_swapped(lowering, reference, tmp_path):
    file = architecture(tmp_path, SWAPPED)
    report = verify(reference(MODEL).path, lowering, arch=file)
    first = report.first_wrong
    assert (first.name, first.op, first.layer) == ("layers.0.mul", "swiglu", 0)
    where = f"{file}:{line_of(file, 'silu(up) * gate')}"
    assert first.location == where
    assert report.verdict().startswith(
        f"FAIL: first wrong op: layer 0, layers.0.mul = swiglu ({where}): max_abs "
    )
    assert only_layers_and_logits_fail(report)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("override", "name", "op", "statement"),
    [
        (
            {"rms_norm_eps": "0.031"},
            "layers.0.x",
            "rms_norm",
            "rms_norm(h, weight=input_layernorm)",
        ),
        ({"sliding_window": "9"}, "layers.0.a", "attention", "a = attention("),
        ({"rope_theta": "440"}, "layers.0.a", "attention", "a = attention("),
    ],
)
def test_another_config(override, name, op, statement, reference):
    report = verify(reference(MODEL).path, overrides=override)
    first = report.first_wrong
    assert (first.name, first.op, first.layer) == (name, op, 0)
    line = line_of(modelspecs_dir() / "architectures" / "qwen3.yaml", statement)
    assert first.location == f"modelspecs/architectures/qwen3.yaml:{line}"
    assert only_layers_and_logits_fail(report)
    if op == "attention":
        assert "not seen before it: layers.0.q_rope = rope, layers.0.k_rope = rope" in first.note


NORMS = (
    (
        "q = rms_norm(q, weight=self_attn.q_norm)",
        "q = rms_norm(q, weight=self_attn.q_norm, eps=0.05)",
    ),
    (
        "k = rms_norm(k, weight=self_attn.k_norm)",
        "k = rms_norm(k, weight=self_attn.k_norm, eps=0.05)",
    ),
)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("changes", "override", "name", "part", "statement"),
    [
        ((), {"sliding_window": "9"}, "layers.0.a", "attention", "a = attention("),
        ((), {"rope_theta": "440"}, "layers.0.a.k_rope", "k_rope", "q, k = rope("),
        (NORMS, {}, "layers.0.a.q_norm", "q_norm", "q = rms_norm("),
        (NORMS[1:], {}, "layers.0.k_rms_norm", None, "k = rms_norm("),
    ],
    ids=["window", "theta", "eps of both norms", "eps of one norm"],
)
def test_a_part_of_a_fused_attention(changes, override, name, part, statement, reference, tmp_path):
    file = architecture(tmp_path, changes)
    report = verify(reference(MODEL).path, "native", arch=file, overrides=override)
    first = report.first_wrong
    assert (first.name, first.part, first.layer) == (name, part, 0)
    assert first.op == ("rotary_attention" if part else "rms_norm")
    assert first.location == f"{file}:{line_of(file, statement)}"
    assert only_layers_and_logits_fail(report)
    if part:
        assert f"{name} = {part} of rotary_attention ({first.location}): " in report.verdict()


@pytest.mark.compile
def test_an_activation_left_out_in_half_precision(reference, tmp_path):
    file = architecture(tmp_path, (("silu(gate) * up", "gate * up"),))
    report = verify(reference(MODEL).path, "native", dtype=DType.BF16, arch=file)
    first = report.first_wrong
    assert (first.name, first.op, first.layer) == ("layers.0.mul", "mul", 0)


def test_tensors_that_no_op_reads_are_refused_by_name(reference, tmp_path):
    """Unless the architecture says that they may be left over."""
    file = architecture(tmp_path, NO_K_NORM[:1])
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.self_attn\.k_norm\.weight"):
        verify(reference(MODEL).path, arch=file)
