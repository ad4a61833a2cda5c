"""Engines compiled from the reference models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qwen3_codegen import LLM


@pytest.fixture(scope="session")
def real_infinicore() -> str:
    """The release 0.1.0 of the package index, installed into the test cache once."""
    from qwen3_codegen.infinicore.install import default_root, install

    install(default_root("0.1.0"))
    return "0.1.0"


@pytest.fixture
def open_llm() -> Iterator[Callable[..., LLM]]:
    """Opens a checkpoint in float32 for short sequences, unless told otherwise."""
    from qwen3_codegen import LLM

    opened: list[LLM] = []

    def open_checkpoint(model: str | Path, **options: object) -> LLM:
        usual = {"dtype": "float32", "max_num_seqs": 4, "max_model_len": 128}
        if options.get("engine") != "interpreter":
            usual["lowering"] = "portable"
        opened.append(LLM(model, show_progress=False, **{**usual, **options}))
        return opened[-1]

    yield open_checkpoint
    for llm in opened:
        llm.close()
