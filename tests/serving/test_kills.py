"""What kill -9 leaves, at a build or a load, is nothing a restart trips over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen3_codegen import LLM
from qwen3_codegen.bench import Wanted, launched_server
from qwen3_codegen.bench.requests import ask
from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from tests.cli.descriptions import write_tiny_model
from tests.serving.processes import children

pytestmark = [pytest.mark.compile, pytest.mark.slow]

PATIENCE = 240.0
COMPILERS = ("cc1plus", "clang")


@pytest.fixture
def checkpoint(tmp_path):
    spec = load_model(str(write_tiny_model(tmp_path)))
    write_random_checkpoint(spec, tmp_path / "checkpoint", seed=1)
    return tmp_path / "checkpoint"


@pytest.fixture
def cache(engine_cache, checkpoint, tmp_path, monkeypatch):
    """A cache that holds the compiled runtime, but no engine."""
    folder = tmp_path / "cache"
    folder.mkdir()
    with LLM(checkpoint, show_progress=False):  # makes the runtime where it is missing
        (folder / "runtime").symlink_to(engine_cache / "runtime")
    monkeypatch.setenv("QWEN3_CODEGEN_CACHE", str(folder))
    return folder


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition, what: str):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"still no {what}")


def start(checkpoint: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "qwen3_codegen", "serve", "--model", str(checkpoint)]
    with log.open("wb") as stream:
        return subprocess.Popen([*command, "--port", "0"], stderr=stream, stdout=stream)


def compiling(server: subprocess.Popen[bytes], log: Path) -> list[int]:
    """The server's processes once one of them is a compiler."""

    def found() -> list[int]:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        pids = children(server.pid)
        return pids if any(name_of(pid).startswith(COMPILERS) for pid in pids) else []

    return wait_for(found, "compiler")


def spawned(server: subprocess.Popen[bytes]) -> list[int]:
    return wait_for(lambda: children(server.pid)[1:] and children(server.pid), "engine's process")


def python_among(pids: list[int]) -> list[int]:
    return [pid for pid in pids if name_of(pid).startswith(("python", "engine"))]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_killed_while_it_builds_and_while_it_loads(checkpoint, cache, tmp_path):
    log = tmp_path / "log.txt"
    left: list[int] = []
    try:
        # The engine's process, at a build: the server says so and ends.
        server = start(checkpoint, log)
        left += compiling(server, log)
        for pid in python_among(left):
            kill(pid)
        assert server.wait(PATIENCE) == 2
        assert "the engine's process is gone" in log.read_text(encoding="utf-8")

        # The server, at a build.
        server = start(checkpoint, log)
        left += (pids := compiling(server, log))
        kill(server.pid)
        server.wait(PATIENCE)
        wait_for(lambda: not any(map(is_alive, python_among(pids))), "end of the engine's process")

        # The server, before its engine is loaded.
        server = start(checkpoint, log)
        left += (pids := spawned(server))
        kill(server.pid)
        server.wait(PATIENCE)
        wait_for(lambda: not any(map(is_alive, python_among(pids))), "end of the engine's process")

        # Two at once find whatever that left, and serve.
        wanted = Wanted([1, 2, 3], 4)
        with launched_server(str(checkpoint)) as one, launched_server(str(checkpoint)) as other:
            answers = [asyncio.run(ask(server.address, "qwen3", wanted)) for server in (one, other)]
        assert [answer.error for answer in answers] == [None, None]
        assert [answer.num_output_tokens for answer in answers] == [4, 4]
        assert len(list((cache / "models").glob("*"))) == 1
    finally:
        for pid in filter(is_alive, left):
            kill(pid)
