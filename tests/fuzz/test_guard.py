"""The harness itself: whatever a reader does wrong is seen, named and kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import run_reader

PROGRAM = """
import os, sys, time, warnings
from pathlib import Path
from qwen3_codegen.errors import SpecError
from qwen3_runtime.errors import RuntimeFault
from tests.fuzz import readers, worker

class Unprintable(SpecError):
    def __str__(self):
        return "a\\x1b[31m"

def forever():
    while True:
        try:
            sum(range(1000))
        except Exception:
            pass

MISDEEDS = {
    b"ours": lambda: exec("raise RuntimeFault('no')", globals()),
    b"other": lambda: {}["absent"],
    b"forever": forever,
    b"memory": lambda: bytes(8 << 30),
    b"write": lambda: Path("written").write_text("x"),
    b"command": lambda: os.system("true"),
    b"warning": lambda: warnings.warn("odd", RuntimeWarning),
    b"deep": lambda: (lambda f: f(f))(lambda f: f(f)),
    b"unprintable": lambda: exec("raise Unprintable('x')", globals()),
    b"exit": lambda: sys.exit(3),
    b"death": lambda: os.kill(os.getpid(), 11),
    b"silence": lambda: os.kill(os.getpid(), 19),
}
worker._SECONDS = 0.3
readers.READERS["misdeeds"] = readers.Reader(
    seeds=lambda: [],
    mutate=lambda mutator: lambda data, rng: rng.choice(sorted(MISDEEDS)),
    reading=lambda folder: lambda data: MISDEEDS[data](),
)
worker.main()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "worker.py"
    program.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(campaign, "WORKER", (sys.executable, str(program)))
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", ":".join([str(root), *sys.path]))

    def run(*inputs: str):
        files = []
        for index, text in enumerate(inputs):
            files.append(tmp_path / str(index))
            files[-1].write_text(text, encoding="ascii")
        return run_reader("misdeeds", num_inputs=0, out=tmp_path / "out", files=files)

    return run


def test_what_a_reader_must_not_do(run):
    misdeeds = ["other", "forever", "memory", "write", "command", "warning", "deep", "unprintable"]
    report = run("ours", *misdeeds, "exit", "ours")
    assert report.facts["inputs"] == len(misdeeds) + 3
    kinds = [failure.kind.split(" ")[0] for failure in report.failures]
    assert kinds == [
        "KeyError", "Overtime", "MemoryError", "Forbidden", "Forbidden", "RuntimeWarning",
        "RecursionError", "message", "SystemExit",
    ]  # fmt: skip
    assert [failure.file.read_text() for failure in report.failures] == [*misdeeds, "exit"]
    assert "KeyError: 'absent'" in report.failures[0].trace
    assert not Path("written").exists()


@pytest.mark.parametrize("death", ["death", "silence"])
def test_a_worker_that_dies_or_falls_silent_leaves_its_input(run, monkeypatch, death):
    monkeypatch.setattr(campaign, "SILENCE_SECONDS", 8.0)
    report = run("ours", death, "ours")
    (failure,) = report.failures
    assert failure.kind == f"the process ended with {-11 if death == 'death' else -9}"
    assert failure.file.read_text() == death


def test_a_worker_that_does_not_start_is_no_finding(run, monkeypatch):
    monkeypatch.setattr(campaign, "WORKER", (sys.executable, "-c", "raise SystemExit('no such')"))
    with pytest.raises(RuntimeError, match="no such"):
        run("ours")


def test_the_command_says_what_it_did():
    command = [sys.executable, "-m", "tests.fuzz", "--reader", "expression", "--inputs", "200"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert "expression: 200 inputs in " in done.stdout
    assert done.stdout.endswith("200 inputs, 0 failures\n")
