"""Engines compiled for real: products, caches, errors, and that they compute."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen.build.builder import build_engine, runtime_key
from qwen3_codegen.build.toolchain import find_toolchain, instruction_set
from qwen3_codegen.emission.render import write_files
from qwen3_codegen.errors import BuildError
from qwen3_codegen.infinicore.headers import write_headers
from qwen3_codegen.paths import cache_dir, cpp_dir
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import engine_class
from qwen3_runtime.engine.prefill import prompt_logits
from tests.build.conftest import CASE
from tests.plan.machine import PlanMachine

pytestmark = pytest.mark.compile


def test_products_lie_beside_the_sources(build, compiled):
    result, _ = build()
    folder = result.directory
    products = {result.module.name, result.c_library.name, "qwen3_engine.h", "build.json"}
    assert {path.name for path in folder.iterdir()} == set(compiled.files) | products
    assert result.c_library.name == f"lib{folder.name}.so"
    record = json.loads((folder / "build.json").read_text())
    assert record["isa"]["name"] == "native"
    assert re.fullmatch(r"[0-9a-f]{32}", record["key"])


def test_without_the_c_library_there_is_the_module_alone(build, build_request, compiled, tmp_path):
    request = dataclasses.replace(build_request, c_library=False)
    folder = tmp_path / compiled.plan.module_name
    result = build_engine(folder, compiled.files, request, print)
    assert result.c_library is None
    products = {result.module.name, "build.json"}
    assert {path.name for path in folder.iterdir()} == set(compiled.files) | products
    assert build_engine(folder, compiled.files, request, print).was_built is False
    whole, _ = build()
    assert whole.was_built
    assert whole.c_library.is_file()
    assert (folder / "qwen3_engine.h").is_file()


def test_a_second_build_has_nothing_to_do(build):
    first, _ = build()
    before = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    second, notes = build()
    assert (second.was_built, notes) == (False, [])
    assert {path: path.stat().st_mtime_ns for path in second.directory.iterdir()} == before


def test_another_folder_takes_what_the_cache_has(build, tmp_path):
    build(tmp_path / "one")
    result, notes = build(tmp_path / "two")
    assert (result.was_built, notes) == (True, [])
    assert result.module.is_file()


def test_force_compiles_what_the_cache_has(build, tmp_path):
    first, _ = build()
    for out in (tmp_path, tmp_path / "another"):
        result, notes = build(out, force=True)
        assert (result.was_built, notes) == (True, ["compiling the engine"])
    record = (first.directory / "build.json").read_text()
    kept = cache_dir() / "engines" / json.loads(record)["key"]
    assert (kept / "build.json").read_text() == record, "cache list reads it"
    assert build()[0].was_built is False
    assert first.module.is_file()


@pytest.mark.parametrize("lost", ["module", "c_library"])
def test_a_lost_product_is_put_back(build, lost):
    first, _ = build()
    getattr(first, lost).unlink()
    second, _ = build()
    assert second.was_built
    assert getattr(second, lost).is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 3}'])
def test_a_damaged_record_is_no_record(build, text):
    first, _ = build()
    (first.directory / "build.json").write_text(text)
    assert build()[0].was_built


def test_an_error_in_the_engine_shows_the_compiler_s_words_and_keeps_the_module(build, compiled):
    good, _ = build()
    module = good.module.read_bytes()
    broken = compiled.files["engine.cpp"].replace("ops_.swiglu(", "ops_.swigloo(")
    with pytest.raises(BuildError) as caught:
        build(engine_cpp=broken)
    text = str(caught.value)
    folder = good.directory
    assert text.startswith(f"{folder}: the sources of {folder.name} did not compile\n")
    assert "swigloo" in text
    assert "swigloo" in (folder / "engine.cpp").read_text(), "what the message names lies there"
    assert good.module.read_bytes() == module
    assert not list(good.directory.glob(".*"))
    assert build()[0].was_built is False, "the good sources are built already"


def test_a_warning_in_the_engine_is_an_error(build, compiled):
    source = compiled.files["engine.cpp"].replace(
        "void Engine::prologue() {", "void Engine::prologue() {\n  int unused = 0;"
    )
    with pytest.raises(BuildError, match="unused"):
        build(engine_cpp=source)


def test_the_runtime_s_key_sees_all_that_goes_into_it(build_request):
    def changed(**fields):
        return dataclasses.replace(build_request, **fields)

    toolchain = build_request.toolchain
    others = [
        changed(release="2026-08"),
        changed(isa=instruction_set("portable")),
        changed(toolchain=dataclasses.replace(toolchain, compiler_version="g++ 99")),
        changed(toolchain=dataclasses.replace(toolchain, module_suffix=".other.so")),
        changed(toolchain=dataclasses.replace(toolchain, pybind11_version="99")),
    ]
    keys = {runtime_key(request) for request in (build_request, *others)}
    assert len(keys) == 1 + len(others)


def test_the_engine_computes_what_its_plan_says(build, compiled, checkpoint, weights):
    """Against the plan carried out in NumPy; transformers has the last word elsewhere."""
    result, _ = build()
    limits = Limits(max_model_len=96, max_num_seqs=3, max_num_batched_tokens=40)
    engine = engine_class(result.directory).from_checkpoint(
        checkpoint, limits=limits, show_progress=False
    )
    machine = PlanMachine(
        compiled.plan,
        compiled.api,
        weights.__getitem__,
        max_model_len=96,
        max_num_seqs=3,
        max_num_batched_tokens=40,
    )
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, engine.vocab_size, size).tolist() for size in (90, 1, 7, 30, 64)]
    for actual, expected in zip(
        engine.forward(prompts), prompt_logits(machine, prompts), strict=True
    ):
        bound = 2e-5 * max(1.0, float(np.abs(expected).max()))
        assert np.abs(actual - expected).max() <= bound


def test_attention_takes_the_rows_that_scratch_has_room_for(build, compiled, checkpoint, tmp_path):
    """With scratch for three rows of the longest context, more of shorter ones."""
    heads, head_dim, longest = 4, 14, 128
    whole = "{Attention::scratch_elements(kAttention0, options, kDtype)}"
    source = compiled.files["engine.cpp"]
    assert whole in source
    scratch = head_dim + 3 * heads * (longest + 2 * head_dim)
    limits = Limits(max_model_len=longest, max_num_seqs=2, max_num_batched_tokens=50)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 331, size).tolist() for size in (120, 33)]
    logits = []
    for number, text in enumerate((source, source.replace(whole, f"{{{scratch}}}"))):
        result, _ = build(tmp_path / str(number), engine_cpp=text)
        engine = engine_class(result.directory).from_checkpoint(
            checkpoint, limits=limits, show_progress=False
        )
        logits.append(engine.forward(prompts))
    for large, small in zip(*logits, strict=True):
        np.testing.assert_allclose(small, large, rtol=0, atol=2e-5 * np.abs(large).max())


def test_whole_sequences_from_two_threads_do_not_share_slots(build, checkpoint):
    limits = Limits(max_model_len=64, max_num_seqs=2, max_num_batched_tokens=4)
    engine = engine_class(build()[0].directory).from_checkpoint(
        checkpoint, limits=limits, show_progress=False
    )
    prompts = [[7] * 23, [11, 13] * 12]
    expected = [engine.forward([prompt])[0] for prompt in prompts]

    def repeat(index: int) -> bool:
        return all(
            np.array_equal(engine.forward([prompts[index]])[0], expected[index]) for _ in range(20)
        )

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(repeat, range(2))) == [True, True]


def test_the_c_library_exports_its_functions_alone_and_needs_no_python(build):
    result, _ = build()
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(result.c_library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    names = {line.split()[-1] for line in symbols if line}
    header = (result.directory / "qwen3_engine.h").read_text()
    assert names == set(re.findall(r"\b(qwen3_engine_\w+)\(", header)) - {"qwen3_engine_h"}
    needed = subprocess.run(
        ["readelf", "-d", str(result.c_library)], capture_output=True, text=True, check=True
    ).stdout
    assert "NEEDED" in needed
    assert "python" not in needed.lower()


def test_the_module_exports_its_entry_alone(build):
    """The embedded InfiniCore stays hidden, so that engines with other ones live beside it."""
    result, _ = build()
    symbols = subprocess.run(
        ["nm", "-D", str(result.module)], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    defined = [line.split()[-1] for line in symbols if re.search(r" [TWBDRVu] ", line)]
    assert defined == ["PyInit__engine"]
    assert not any("infini" in line for line in symbols)


def test_an_engine_s_folder_is_a_package(build, checkpoint):
    result, _ = build()
    code = (
        f"import sys; sys.path.insert(0, {str(result.directory.parent)!r})\n"
        f"from {result.directory.name} import Engine\n"
        f"engine = Engine.from_checkpoint({str(checkpoint)!r}, show_progress=False)\n"
        "print(engine.forward([[1, 2, 3]])[0].shape)\n"
        "print(any(name.startswith('qwen3_codegen') for name in sys.modules))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout == "(3, 331)\nFalse\n"
    assert output.stderr == ""


def cmake(source: Path, build: Path, **definitions: str) -> subprocess.CompletedProcess[str]:
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    command = [str(find_toolchain().cmake), "-S", str(source), "-B", str(build), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_plain_cmake_compiles_against_installed_headers(compiled, tmp_path):
    """What a vendor does by hand; linking would need the vendor's libraries."""
    source, headers = tmp_path / "engine", tmp_path / "include"
    write_files(source, compiled.files)
    write_headers("0.1.0", headers)
    configured = cmake(
        source,
        tmp_path / "build",
        QWEN3_CPP_DIR=str(cpp_dir()),
        QWEN3_PYTHON="OFF",
        QWEN3_INFINICORE_HEADERS=str(headers),
        QWEN3_INFINI_LIBRARIES="/opt/infini/lib/libinfiniop.so",
        CMAKE_BUILD_TYPE="Debug",
    )
    assert configured.returncode == 0, configured.stderr
    assert "Python" not in configured.stdout
    command = [str(find_toolchain().cmake), "--build", str(tmp_path / "build"), "--target"]
    targets = ["qwen3_engine_base", f"{compiled.plan.module_name}_objects"]
    built = subprocess.run([*command, *targets], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout


def test_plain_cmake_without_the_runtime_s_sources_says_so(compiled, tmp_path):
    write_files(tmp_path / "engine", compiled.files)
    configured = cmake(tmp_path / "engine", tmp_path / "build")
    assert configured.returncode != 0
    assert "which does not hold the" in configured.stderr


def test_the_case_has_what_these_tests_are_about(compiled):
    assert compiled.plan.model_name == CASE
    assert len(compiled.plan.cache_groups) == len(compiled.plan.layer_kinds) == 2
