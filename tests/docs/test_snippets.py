"""The Python of the README runs as it stands, with a tiny checkpoint in place of a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qwen3_codegen.cli.main import main
from tests.checkpoints import VOCAB_SIZE, write_tiny_checkpoint
from tests.docs.markdown import read_document
from tests.project.source_tree import ROOT

pytestmark = pytest.mark.compile

SNIPPETS = [b.text for b in read_document(ROOT / "README.md").blocks if b.language == "python"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a checkpoint ``tiny`` that has a tokenizer of bytes and a chat template."""
    folder = tmp_path_factory.mktemp("readme")
    write_tiny_checkpoint(folder / "tiny", "qwen3-0.6b", head_dim=16)
    return folder


def run_snippet(text: str, workplace: Path) -> str:
    replaced = text.replace("path/to/checkpoint", "tiny")
    command = [sys.executable, "-X", "utf8", "-c", replaced]
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_two_snippets():
    assert len(SNIPPETS) == 2


def test_engine_by_itself(workplace, capsys):
    spec, out = str(workplace / "tiny"), str(workplace / "generated")
    assert main(["build", "--spec", spec, "--dev", "cpu", "--out", out]) == 0
    (folder,) = capsys.readouterr().out.splitlines()
    assert Path(folder).name == "tiny_cpu"
    assert run_snippet(SNIPPETS[0], workplace) == f"[(3, {VOCAB_SIZE}), (2, {VOCAB_SIZE})]\n"


def test_llm(workplace):
    printed = run_snippet(SNIPPETS[1] + '\n    print("rows", *(r.shape for r in rows))', workplace)
    assert printed.count(" length\n") + printed.count(" stop\n") == 2
    assert printed.endswith(f"rows (3, {VOCAB_SIZE}) (2, {VOCAB_SIZE})\n")
