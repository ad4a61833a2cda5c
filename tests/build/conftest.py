"""A tiny engine that several tests build, run and call from C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from qwen3_codegen.build.builder import BuildRequest, BuildResult, build_engine
from qwen3_codegen.build.toolchain import find_toolchain, instruction_set
from qwen3_codegen.compile import CompiledPlan, CompileOptions, plan_model
from qwen3_codegen.spec.device import load_device
from tests.ir.tiny import hard_weights
from tests.plan.planning import case_graph, case_spec

CASE = "qwen3-window-3"


@pytest.fixture(scope="session")
def compiled() -> CompiledPlan:
    """Two kinds of layers, two cache groups."""
    return plan_model(case_spec(CASE), load_device("cpu"), CompileOptions(lowering="portable"))


@pytest.fixture(scope="session")
def build_request() -> BuildRequest:
    return BuildRequest(
        toolchain=find_toolchain(), isa=instruction_set("native"), release="0.1.0", installed=None
    )


@pytest.fixture
def build(
    compiled: CompiledPlan, build_request: BuildRequest, tmp_path: Path
) -> Callable[..., tuple[BuildResult, list[str]]]:
    """Builds the engine with some files replaced; returns what it said, too."""

    def run(
        out: Path = tmp_path, *, force: bool = False, **replaced: str
    ) -> tuple[BuildResult, list[str]]:
        notes: list[str] = []
        files = {**compiled.files, **{k.replace("_cpp", ".cpp"): v for k, v in replaced.items()}}
        folder = out / compiled.plan.module_name
        return build_engine(folder, files, build_request, notes.append, force=force), notes

    return run


@pytest.fixture(scope="session")
def weights() -> dict[str, np.ndarray[Any, Any]]:
    """Hard weights of the engine's model, in float32."""
    return {name: a.astype(np.float32) for name, a in hard_weights(case_graph(CASE)).items()}


@pytest.fixture(scope="session")
def checkpoint(
    weights: dict[str, np.ndarray[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same as a safetensors folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder
