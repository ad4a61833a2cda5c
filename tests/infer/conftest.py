"""Tiny checkpoints of the two families that the guides run."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3_codegen import LLM
from tests.checkpoints import write_tiny_checkpoint

FAMILIES = {
    "qwen3": ("qwen3-0.6b", {"head_dim": 16}),
    "jiuge": ("minicpm-1b-sft", {"dim_model_base": 24}),
}


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    spec, sizes = FAMILIES[request.param]
    return write_tiny_checkpoint(tmp_path_factory.mktemp(request.param) / "tiny", spec, **sizes)


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory) -> Path:
    spec, sizes = FAMILIES["qwen3"]
    return write_tiny_checkpoint(tmp_path_factory.mktemp("one") / "tiny", spec, **sizes)


@pytest.fixture
def llm(folder):
    """The same model through our own names, in the same kind of engine."""
    with LLM(folder, show_progress=False) as model:
        yield model
