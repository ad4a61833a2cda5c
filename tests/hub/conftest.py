"""A stub of the hub with a tiny model on it, and processes that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen3_codegen.random_checkpoint import write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from tests.cli.conftest import Result, command
from tests.cli.descriptions import write_tiny_model
from tests.hub.stub import StubHub, StubRepository, stub_hub

TINY = "somebody/Tiny-Model"
NOT_FETCHED = {
    "README.md": b"# Tiny",
    "modeling_tiny.py": b"raise SystemExit('code of a checkpoint was run')",
    "pytorch_model.bin": b"pickle",
    "original/model.safetensors": b"elsewhere",
    "consolidated.safetensors": b"the same weights once more",
    "onnx/config.json": b"{}",
}


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a checkpoint as a repository has them; the weights are some megabytes."""
    folder = tmp_path_factory.mktemp("hub")
    overrides = {
        "vocab_size": "110000",
        "num_hidden_layers": "1",
        "layer_types": '["full_attention"]',
    }
    spec = load_model(str(write_tiny_model(folder)), overrides=overrides)
    write_random_checkpoint(spec, folder / "checkpoint", seed=3)
    made = {file.name: file.read_bytes() for file in sorted((folder / "checkpoint").iterdir())}
    return {**made, "generation_config.json": b'{"temperature": 0.0}', **NOT_FETCHED}


@pytest.fixture
def hub(tiny_files: dict[str, bytes]) -> Iterator[StubHub]:
    with stub_hub() as running:
        running.repositories[TINY] = StubRepository(tiny_files)
        yield running


@pytest.fixture
def environment(hub: StubHub, tmp_path: Path) -> dict[str, str]:
    """For processes that see the stub as the hub, with an empty cache."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k}
    clean.pop("TRANSFORMERS_OFFLINE", None)
    return {
        **clean,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "NO_PROXY": "127.0.0.1,localhost",
        "QWEN3_CODEGEN_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., Result]:
    """Runs a command in an empty folder."""

    def start(*arguments: object, **more: str) -> Result:
        done = subprocess.run(
            command(arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL,
            cwd=tmp_path, env={**environment, **more}, timeout=120, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def run_python(environment: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Runs Python statements and returns what they print."""

    def start(program: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True,
            cwd=tmp_path, env={**environment, **more}, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start
