"""Tiny models, each with one feature to look at, whose emitted sources are kept as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qwen3_codegen.compile import CompileOptions, plan_model
from qwen3_codegen.spec.device import load_device
from tests.plan.planning import case_spec

FOLDER = Path(__file__).parent / "golden"

FEATURES = {
    "llama": "nothing special",
    "qwen3-window-3": "q/k norm per head, two kinds of layers",
    "qwen2-tied": "biases, a tied head",
    "gemma3": "four norms, two rope tables, gelu, a scaled embedding",
}
"""Reference case and what its sources show."""

PROJECT_FILES = frozenset(
    {"CMakeLists.txt", "__init__.py", "__init__.pyi", "bindings.cpp", "c_api.cpp", "pyproject.toml"}
)
"""Kept for the first model only: they differ in names alone."""


def emitted(case_id: str, device: str = "cpu", *, lowering: str = "portable") -> Mapping[str, str]:
    """Returns all files of an engine."""
    options = CompileOptions(lowering=lowering)
    return plan_model(case_spec(case_id), load_device(device), options).files


def kept(case_id: str) -> dict[str, str]:
    """Returns the files that are kept of a model, hashes left out."""
    files = dict(emitted(case_id))
    manifest = json.loads(files["manifest.json"])
    del manifest["sha256"]
    files["manifest.json"] = json.dumps(manifest, indent=2) + "\n"
    if case_id != next(iter(FEATURES)):
        files = {name: text for name, text in files.items() if name not in PROJECT_FILES}
    return files
