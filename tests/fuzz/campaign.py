"""Starts a worker for one reader, follows it, and keeps what it found."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.worker import InHand

__all__ = ["Found", "Report", "run_reader"]

WORKER = (sys.executable, "-m", "tests.fuzz.worker")
SILENCE_SECONDS = 120.0
"""A worker that says nothing for so long hangs where no Python runs."""
_IN_MEMORY = Path("/dev/shm")
"""Where a file that is written anew for each input costs no disk."""
_BRANCHES = re.compile(rb"cov: (\d+)")
_TEXT = re.compile(rb"[\t\n\x20-\x7e]*\Z")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """One kind of failure, with the first input that showed it."""

    kind: str
    trace: str
    file: Path


@dataclass(slots=True)
class Report:
    """What came of all inputs of a reader."""

    reader: str
    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[Found] = field(default_factory=list)


def run_reader(
    name: str,
    *,
    num_inputs: int,
    seed: int = 0,
    out: Path,
    coverage: bool = False,
    files: Sequence[Path] = (),
    progress: Progress = lambda *_: None,
) -> Report:
    """Fuzzes one reader in a process of its own.

    Args:
        name: Of ``READERS``.
        num_inputs: How many to give it.
        seed: Of the generator that chooses edits.
        out: Folder for inputs that showed a failure.
        coverage: Whether atheris guides it.
        files: Inputs to read instead.
        progress: Told the reader, inputs so far and failures so far, about once a second.
    """
    report = Report(name)
    in_memory = str(_IN_MEMORY) if os.access(_IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="qwen3-fuzz-", dir=in_memory) as folder:
        command = [*WORKER, name, "--folder", folder]
        command += ["--inputs", str(num_inputs), "--seed", str(seed)]
        command += ["--coverage"] * coverage
        command += ["--files", *map(str, files)] if files else []
        log = Path(folder) / "log"
        with log.open("wb") as errors:
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            _follow(worker, report, out, progress)
        branches = _BRANCHES.findall(log.read_bytes())
        if branches:
            report.facts["branches"] = int(branches[-1])
        if "seconds" not in report.facts:
            _record_death(worker, report, out, Path(folder), log)
    return report


def _follow(worker: subprocess.Popen[str], report: Report, out: Path, progress: Progress) -> None:
    """Reads what a worker says until it ends, and ends it when it falls silent."""
    assert worker.stdout is not None
    timer = _watchdog(worker)
    for line in worker.stdout:
        timer.cancel()
        timer = _watchdog(worker)
        said = json.loads(line)
        if "failure" in said:
            data = bytes.fromhex(said["input"])
            file = _keep(out / report.reader, data)
            report.failures.append(Found(said["failure"], said["trace"], file))
        elif "summary" in said:
            report.facts = said["summary"]
        else:
            report.facts["inputs"] = said["inputs"]
            progress(report.reader, said["inputs"], said["failures"])
    timer.cancel()
    worker.wait()


def _watchdog(worker: subprocess.Popen[str]) -> threading.Timer:
    timer = threading.Timer(SILENCE_SECONDS, worker.kill)
    timer.daemon = True
    timer.start()
    return timer


def _keep(folder: Path, data: bytes) -> Path:
    """Writes an input as text where it is some, else as hexadecimal digits."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(data).hexdigest()[:12]
    if _TEXT.match(data):
        file = folder / f"{name}.txt"
        file.write_bytes(data)
    else:
        file = folder / f"{name}.hex"
        file.write_text(data.hex() + "\n", encoding="ascii")
    return file


def _record_death(
    worker: subprocess.Popen[str], report: Report, out: Path, folder: Path, log: Path
) -> None:
    """Takes the input that was in hand when a worker died without a word."""
    in_hand = folder / "in_hand"
    if not in_hand.exists():
        raise RuntimeError(f"the worker did not start:\n{log.read_text(errors='replace')[-4000:]}")
    unknown = {"seconds": "?", "answers": "?", "outcomes": "?", "slowest_ms": "?"}
    report.facts = {"inputs": 0, "memory_mib": "?", **unknown, **report.facts}
    trace = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    file = _keep(out / report.reader, InHand.left_in(in_hand))
    report.failures.append(Found(f"the process ended with {worker.returncode}", trace, file))
