"""Runs ``qwen3-codegen`` as a user does, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.descriptions import write_tiny_model

TIMEOUT = 300
FORK_SERVER = Path(__file__).parent / "fork_server.py"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    def succeeded(self) -> str:
        """Returns standard output."""
        assert self.code == 0, self.stderr
        assert "Traceback" not in self.stderr
        return self.stdout

    def refused(self) -> str:
        """Returns the error of bad input."""
        assert self.code == 2, f"exit code {self.code}: {self.stderr}"
        assert "Traceback" not in self.stderr
        assert self.stdout == ""
        return self.stderr


Run = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path) -> Run:
    """Runs a command line in an empty folder; ``stdin`` is text, else closed."""

    def run(*arguments: object, stdin: str | None = None, **environment: str) -> Result:
        done = subprocess.run(
            command(arguments),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=TIMEOUT,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def fork_server() -> Iterator[Callable[..., int]]:
    """Calls ``fork_server.run``: a start of Python and its imports once, not for every command."""
    requests, answers = os.pipe(), os.pipe()
    server = subprocess.Popen(
        [sys.executable, str(FORK_SERVER), str(requests[0]), str(answers[1])],
        stdin=subprocess.DEVNULL,
        pass_fds=(requests[0], answers[1]),
    )
    os.close(requests[0])
    os.close(answers[1])
    with os.fdopen(requests[1], "w") as ask, os.fdopen(answers[0]) as answer:

        def run(**request: object) -> int:
            ask.write(f"{json.dumps(request)}\n")
            ask.flush()
            return int(answer.readline())

        yield run
        ask.close()
        assert server.wait(TIMEOUT) == 0


@pytest.fixture
def forked_cli(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, fork_server) -> Run:
    """As ``cli``, for the many command lines that are refused at once."""

    def run(*arguments: object, stdin: str | None = None, **environment: str) -> Result:
        folder = tmp_path_factory.mktemp("streams")
        streams = [folder / name for name in ("stdin", "stdout", "stderr")]
        for stream, text in zip(streams, (stdin or "", "", ""), strict=True):
            stream.write_text(text, encoding="utf-8")
        code = fork_server(
            arguments=list(map(str, arguments)),
            folder=str(tmp_path),
            environment={**os.environ, **environment},
            streams=list(map(str, streams)),
        )
        _, stdout, stderr = (stream.read_text(encoding="utf-8") for stream in streams)
        return Result(code, stdout, stderr)

    return run


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "qwen3_codegen.cli.main", *map(str, arguments)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model spec with its architecture beside it, both to be spoilt."""
    return write_tiny_model(tmp_path / "specs")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the tiny model; copy it before spoiling it."""
    from qwen3_codegen.random_checkpoint import write_random_checkpoint
    from qwen3_codegen.spec.catalog import load_model

    folder = tmp_path_factory.mktemp("tiny")
    spec = load_model(str(write_tiny_model(folder)))
    write_random_checkpoint(spec, folder / "checkpoint", seed=1)
    return folder / "checkpoint"
