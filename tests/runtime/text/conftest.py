"""Checkpoint folders with real tokenizers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.text import Tokenizer, load_tokenizer

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes a checkpoint folder with one small tensor and the given JSON files."""

    def make(**files: Any) -> Path:
        files.setdefault("config", {})
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        safetensors.numpy.save_file({"w": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
        return tmp_path

    return make


@pytest.fixture(scope="session")
def qwen3_folder(qwen3_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with Qwen3's real tokenizer files and generation config."""
    folder = tmp_path_factory.mktemp("qwen3-folder")
    for file in qwen3_tokenizer_folder.iterdir():
        shutil.copy(file, folder)
    (folder / "config.json").write_text('{"model_type": "qwen3", "eos_token_id": 151645}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    safetensors.numpy.save_file({"w": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def qwen3(qwen3_folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(open_checkpoint(qwen3_folder))
    assert tokenizer is not None
    return tokenizer
