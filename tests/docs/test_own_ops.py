"""The example of docs/own-ops.md as it stands: in the interpreter, and compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen import LLM
from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from tests.cli.descriptions import spoil, write_tiny_model
from tests.docs.markdown import read_document
from tests.project.source_tree import ROOT
from tests.reference.models import assert_logits_match

PAGE = read_document(ROOT / "docs" / "own-ops.md")


@pytest.fixture
def ops(tmp_path) -> Path:
    """The folder that the page shows."""
    (tmp_path / "ops").mkdir()
    for language, name in (("python", "soft_clip.py"), ("cpp", "soft_clip.hpp")):
        (text,) = (block.text for block in PAGE.blocks if block.language == language)
        (tmp_path / "ops" / name).write_text(text, encoding="utf-8")
    return tmp_path / "ops"


@pytest.mark.compile
def test_the_example_runs_as_it_stands(ops, tmp_path, monkeypatch):
    (statement,) = (line[6:] for line in PAGE.prose.splitlines() if line.startswith("    - m = "))
    assert "soft_clip(gate, limit=4.0)" in statement
    spec = write_tiny_model(tmp_path)
    last = "h = h + linear(silu(gate) * up, weight=mlp.down_proj, out=hidden_size)\n"
    spoil(tmp_path / "small.yaml", last, f"{statement}\n  - h = h + m\n")
    model = load_model(str(spec), own_functions=load_ops([ops]))
    write_random_checkpoint(model, tmp_path / "checkpoint", seed=2)
    arch = str(tmp_path / "small.yaml")
    prompts = [[1, 2, 3, 4, 5], [6]]
    answers = []
    for engine in ("interpreter", "compiled"):
        options = {"arch": arch, "ops": ops, "engine": engine, "show_progress": False}
        with LLM(tmp_path / "checkpoint", max_model_len=64, **options) as llm:
            answers.append(llm.logits(prompts))
    for expected, actual in zip(*answers, strict=True):
        assert np.ptp(expected) > 1.0
        assert_logits_match(actual, expected)


def test_the_fields_of_a_row_are_those_of_the_page():
    from dataclasses import fields

    from qwen3_codegen.ops import Op

    (table,) = (section for section in PAGE.sections if section.title == "The row")
    explained = {row[0].strip("`") for row in table.rows}
    assert explained == {field.name for field in fields(Op)} - {"name", "doc", "result"}


def test_everything_the_page_imports_is_public():
    import qwen3_codegen.ops as public

    assert "OpRuleError" in public.__all__
    assert all(getattr(public, name) is not None for name in public.__all__)
