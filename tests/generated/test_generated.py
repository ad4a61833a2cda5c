"""The committed engines are what the compiler writes, to the byte, and writing them is quick."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from qwen3_codegen.compile import CompileOptions, emit_model, plan_model
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from tests.project.source_tree import ROOT

ENGINES = {"qwen3_1_7b_cpu": ("qwen3-1.7b", "cpu"), "qwen3_1_7b_mlu": ("qwen3-1.7b", "mlu")}
BUILT = ("*.so", "build.json", "qwen3_engine.h", "__pycache__")
"""What a build leaves beside the sources; git does not keep it."""

every_engine = pytest.mark.parametrize("name", ENGINES)


def sources(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not any(path.match(pattern) for pattern in BUILT)
    }


def emit(name: str, out: Path) -> Path:
    spec, device = ENGINES[name]
    return emit_model(plan_model(load_model(spec), load_device(device), CompileOptions()), out)


def test_every_committed_engine_is_checked():
    committed = {path.name for path in (ROOT / "generated").iterdir() if path.is_dir()}
    assert set(ENGINES) <= committed


@every_engine
def test_emission_gives_the_committed_bytes(name, tmp_path):
    written, committed = sources(emit(name, tmp_path)), sources(ROOT / "generated" / name)
    assert sorted(written) == sorted(committed)
    different = [file for file in written if written[file] != committed[file]]
    assert not different, "regenerate them: qwen3-codegen build --spec ... --dev ... --emit-only"


@every_engine
def test_emission_takes_well_under_a_second(name, tmp_path, record_property):
    emit(name, tmp_path / "first")  # imports, and the API tables read once
    started = time.perf_counter()
    emit(name, tmp_path / "second")
    seconds = time.perf_counter() - started
    record_property("seconds", round(seconds, 3))
    print(f"{name}: spec to text in {seconds:.3f} s")
    assert seconds < 5, "far beyond what a loaded machine explains"


def test_mlu_is_generated_for_cambricon_and_says_that_it_is_emulated():
    manifest = json.loads((ROOT / "generated" / "qwen3_1_7b_mlu" / "manifest.json").read_text())
    assert manifest["device"]["name"] == "cambricon"
    assert manifest["device"]["emulated"] is True
    header = (ROOT / "generated" / "qwen3_1_7b_mlu" / "engine.hpp").read_text()
    assert 'INFINI_DEVICE_CAMBRICON, "cambricon", /*emulated=*/true' in header
