"""What the Makefile does where a machine lacks something, and what `make clean` leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.source_tree import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but what `make` reads."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("codegen", "runtime", "tests", "generated"):
        (tmp_path / name).mkdir()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_python_that_is_not_there(folder):
    done = make(folder, "setup", "PYTHON=python9.9")
    assert done.returncode != 0
    assert "python9.9 is not there" in done.stdout
    assert "older" not in done.stdout


def test_setup_after_a_python_without_venv(folder):
    """Debian's leaves bin/python behind before it fails; the next try must not take it."""
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$2" != venv ] && exec {sys.executable} "$@"\n'
        'mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && exit 1\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    for _ in range(2):
        done = make(folder, "setup", f"PYTHON={python}")
        assert done.returncode != 0
        assert "apt install python3-venv" in done.stdout
        assert not (folder / ".venv").exists()


def test_clean_removes_what_builds_added_to_generated(folder):
    engine = folder / "generated/tiny_cpu"
    engine.mkdir()
    for name in ("engine.cpp", "_engine.so", "build.json", "qwen3_engine.h"):
        (engine / name).touch()
    for name in (".build", "__pycache__"):
        (engine / name).mkdir()
        (engine / name / "left.txt").touch()
    assert make(folder, "clean").returncode == 0
    assert [path.name for path in engine.iterdir()] == ["engine.cpp"]
