"""Engines that bring their C++ along: what is copied, and that pip and CMake alone build it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen.build import standalone as module
from qwen3_codegen.build.standalone import (
    has_standalone,
    remove_standalone,
    standalone_sources,
    write_standalone,
)
from qwen3_codegen.build.toolchain import find_toolchain, instruction_set
from qwen3_codegen.compile import CompiledPlan, CompileOptions, build_model, emit_model, plan_model
from qwen3_codegen.errors import BuildError, CodegenError
from qwen3_codegen.paths import cpp_dir
from qwen3_codegen.spec.device import load_device
from qwen3_runtime.engine.compiled import engine_class
from tests.build.conftest import CASE
from tests.build.test_toolchain import is_x86
from tests.plan.planning import case_spec
from tests.project.source_tree import ROOT

CHOICES = {
    "native": ("cpu", None),
    "portable": ("cpu", "portable"),
    "emulated": ("mlu", None),
    "newer release": ("nvidia", None),
}


def standalone(choice: str) -> CompiledPlan:
    dev, lowering = CHOICES[choice]
    release = "2026-08" if choice == "newer release" else None
    options = CompileOptions(lowering=lowering, release=release, standalone=True)
    return plan_model(case_spec(CASE), load_device(dev), options)


def below(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


# ---- what is copied -------------------------------------------------------------------------


@pytest.mark.parametrize("choice", CHOICES)
def test_every_include_of_ours_is_there(choice, tmp_path):
    compiled = standalone(choice)
    folder = emit_model(compiled, tmp_path) / "cpp"
    release = compiled.api.release
    assert below(folder) == compiled.sources
    ours = {path.name for path in cpp_dir().rglob("*.h*")}
    ours |= {path.name for path in (folder / "include" / release).rglob("*.h*")}
    for path in folder.rglob("*.[ch]pp"):
        for name in re.findall(r'#include [<"](.+)[>"]', path.read_text()):
            places = [path.parent, folder, folder / "include" / release, folder / "kernels"]
            places += [folder / "infinicore" / part for part in ("include", "src")]
            is_there = any((place / name).is_file() for place in places)
            assert is_there or Path(name).name not in ours, f"{path} includes {name}"


def test_only_what_the_engine_needs_is_copied():
    native, portable = (standalone(choice).sources for choice in ("native", "portable"))
    assert native is not None
    assert portable is not None
    operators = {Path(path).stem for path in portable if path.startswith("infinicore/src/ops/")}
    assert {"causal_softmax", "gemm", "rearrange", "rms_norm", "rope"} <= operators
    assert operators.isdisjoint({"paged_attention", "random_sample", "topksoftmax"})
    assert not [path for path in portable if "native" in path]
    assert not [path for path in native if "portable" in path]
    assert [path for path in native if path.startswith("infinicore/src/ops/")] == [
        "infinicore/src/ops/dispatch.hpp",
        "infinicore/src/ops/gemm.cpp",
    ]
    assert not [path for path in (*native, *portable) if "bench" in path]


def test_operators_come_by_name():
    def copied(*operators: str) -> bool:
        sources = standalone_sources({}, "0.1.0", operators)
        return "infinicore/src/ops/random_sample.cpp" in sources

    assert copied("gemm", "random_sample")
    assert not copied("gemm")


def test_an_installed_infinicore_cannot_be_copied(tmp_path):
    options = CompileOptions(infinicore=str(tmp_path), standalone=True)
    with pytest.raises(CodegenError, match="an installed one cannot be copied"):
        plan_model(case_spec(CASE), load_device("cpu"), options)


# ---- how it is put into place ---------------------------------------------------------------


def test_sources_are_replaced_all_at_once_or_not_at_all(tmp_path, monkeypatch):
    old = {"qwen3_runtime.cmake": "old", "engine/gone.cpp": "x"}
    folder = write_standalone(tmp_path, old)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_standalone(tmp_path, old)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times

    def stops_halfway(scratch: Path, _sources: object) -> None:
        (scratch / "half.cpp").write_text("h")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(module, "write_files", stops_halfway)
        with pytest.raises(KeyboardInterrupt):
            write_standalone(tmp_path, {"qwen3_runtime.cmake": "new"})
    assert below(tmp_path) == {f"cpp/{name}": text for name, text in old.items()}
    (tmp_path / ".cpp.killed").mkdir()
    write_standalone(tmp_path, {"qwen3_runtime.cmake": "new"})
    assert below(tmp_path) == {"cpp/qwen3_runtime.cmake": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["cpp"]


def test_a_folder_that_is_not_ours_stays(tmp_path):
    (tmp_path / "cpp").mkdir()
    (tmp_path / "cpp" / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildError, match="where something else lies"):
        write_standalone(tmp_path, {"qwen3_runtime.cmake": ""})
    remove_standalone(tmp_path)
    assert below(tmp_path) == {"cpp/thesis.txt": "years of work"}


def test_an_engine_that_is_no_longer_standalone_keeps_no_stale_sources(tmp_path):
    folder = emit_model(standalone("native"), tmp_path)
    assert has_standalone(folder)
    emit_model(plan_model(case_spec(CASE), load_device("cpu"), CompileOptions()), tmp_path)
    assert not (folder / "cpp").exists()


# ---- CMake alone ----------------------------------------------------------------------------


def cmake(*arguments: object) -> str:
    toolchain = find_toolchain()
    done = subprocess.run(
        [str(toolchain.cmake), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "CMAKE_MAKE_PROGRAM": str(toolchain.ninja)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.compile
def test_plain_cmake_gives_the_c_library(tmp_path):
    folder = emit_model(standalone("emulated"), tmp_path)
    build, installed = tmp_path / "build", tmp_path / "installed"
    configured = cmake("-S", folder, "-B", build, "-DQWEN3_PYTHON=OFF", "-DQWEN3_ISA_FLAGS=")
    assert "Python" not in configured
    cmake("--build", build, "--parallel", "2")
    cmake("--install", build, "--prefix", installed)
    (path,) = (installed / "lib").glob("*.so")
    library = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    library.qwen3_engine_last_error.restype = ctypes.c_char_p
    assert library.qwen3_engine_create(None, None) != 0
    assert library.qwen3_engine_last_error()
    assert (installed / "include" / "qwen3_engine.h").is_file()


def recorded_features(folder: Path, *flags: str) -> set[str]:
    """What ``build_record.cmake`` writes for some compiler flags."""
    (folder / "manifest.json").write_text("{}")
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(p LANGUAGES CXX)\n"
        f"include({cpp_dir()}/build_record.cmake)\n"
        "qwen3_write_build_record(${CMAKE_SOURCE_DIR}/manifest.json"
        f' "{";".join(flags)}" ${{CMAKE_BINARY_DIR}}/build.json)\n'
    )
    cmake("-S", folder, "-B", folder / "build")
    record = json.loads((folder / "build" / "build.json").read_text())
    assert record["isa"]["name"] == " ".join(flags)
    return set(record["isa"]["features"])


@is_x86
@pytest.mark.compile
def test_the_record_names_what_the_compiler_was_allowed_to_use(tmp_path):
    avx2, avx512 = (instruction_set(name) for name in ("avx2", "avx512"))
    recorded = recorded_features(tmp_path, avx2.flags[0])
    assert set(avx2.features) <= recorded
    assert not recorded & (set(avx512.features) - set(avx2.features))
    assert set(avx512.features) <= recorded_features(tmp_path, avx512.flags[0])
    assert recorded_features(tmp_path) == set()
    native = recorded_features(tmp_path, "-march=native")
    assert native <= set(Path("/proc/cpuinfo").read_text().split())


@is_x86
@pytest.mark.compile
@pytest.mark.parametrize("name", ["native", "portable", "avx2", "avx512", "avx512-bf16"])
def test_nothing_is_allowed_that_is_not_recorded(name, tmp_path):
    """Or a CPU without it would die of an illegal instruction instead of refusing the engine."""
    chosen = instruction_set(name)
    assert recorded_features(tmp_path, *chosen.flags) == set(chosen.features)


@pytest.mark.parametrize(("name", "flags"), [("native", "-march=native"), ("portable", "")])
def test_the_chosen_instruction_set_is_the_default(name, flags):
    options = CompileOptions(isa=name, standalone=True)
    files = plan_model(case_spec(CASE), load_device("cpu"), options).files
    assert f'set(QWEN3_ISA_FLAGS "{flags}" CACHE STRING' in files["CMakeLists.txt"]


# ---- pip alone ------------------------------------------------------------------------------

RUN = """
import sys
from pathlib import Path
import {name}
from qwen3_runtime.errors import EngineError
assert Path({name}.__file__).is_relative_to(sys.prefix), {name}.__file__
try:
    engine = {name}.Engine.from_checkpoint(sys.argv[1], show_progress=False)
except EngineError as error:
    sys.exit(str(error))
sys.stdout.buffer.write(engine.forward([[1, 2, 3]])[0].tobytes())
"""


def clean(*command: object) -> subprocess.CompletedProcess[bytes]:
    """Runs a program that sees nothing of this checkout and of its tools."""
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "CMAKE_GENERATOR")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        list(map(str, command)), capture_output=True, env=environment, check=False, timeout=600
    )


def succeeded(done: subprocess.CompletedProcess[bytes]) -> bytes:
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.compile
def test_a_wheel_runs_where_there_is_nothing_but_it(checkpoint, tmp_path):
    compiled = standalone("native")
    folder = emit_model(compiled, tmp_path / "sources")
    succeeded(clean(sys.executable, "-m", "venv", tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    wheels = tmp_path / "wheels"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    succeeded(clean(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, folder))
    assert below(folder / "cpp") == compiled.sources, "building leaves nothing behind"
    (engine,) = wheels.glob("*.whl")
    check_wheel(engine, compiled, tmp_path)

    hatchling = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    succeeded(clean(*hatchling, "--wheel-dir", wheels, ROOT))
    (compiler,) = wheels.glob("qwen3_codegen-*.whl")
    succeeded(clean(*pip, "install", "--no-compile", compiler, engine))
    succeeded(clean(*pip, "check"))
    code = RUN.format(name=folder.name)
    logits = succeeded(clean(python, "-c", code, checkpoint))
    assert np.isfinite(np.frombuffer(logits, np.float32)).all()

    in_place = build_model(compiled, tmp_path / "in-place", CompileOptions(), print).directory
    here = engine_class(in_place).from_checkpoint(checkpoint, show_progress=False)
    assert logits == here.forward([[1, 2, 3]])[0].tobytes()

    (record,) = (tmp_path / "venv").rglob(f"{folder.name}/build.json")
    facts = json.loads(record.read_text())
    facts["isa"]["features"].append("sse9")
    record.write_text(json.dumps(facts))
    refused = clean(python, "-c", code, checkpoint)
    assert refused.returncode == 1
    assert b"this CPU lacks sse9" in refused.stderr


def check_wheel(path: Path, compiled: CompiledPlan, folder: Path) -> None:
    """Its tag, what is in it, and that nothing in it says where it was made."""
    name = compiled.plan.module_name
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"{name}-0\.1\.0-{tag}-{tag}-linux_\w+\.whl", path.name)
    with zipfile.ZipFile(path) as wheel:
        files = {n: wheel.read(n) for n in wheel.namelist() if n.startswith(f"{name}/")}
    suffix = find_toolchain().module_suffix
    assert {Path(n).name for n in files} == {
        *("__init__.py", "__init__.pyi", "build.json", "manifest.json"),
        f"_engine{suffix}",
    }
    for content in files.values():
        for place in (str(folder), str(ROOT), str(Path.home()), "/tmp/", sys.prefix):
            assert place.encode() not in content, place
