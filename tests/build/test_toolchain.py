"""Compilers found or missed, instruction sets, and what a failing tool says."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from qwen3_codegen.build import toolchain as module
from qwen3_codegen.build.cmake import cmake_build
from qwen3_codegen.build.toolchain import find_toolchain, host_features, instruction_set
from qwen3_codegen.errors import BuildError

is_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64")


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_compiler_is_the_environment_s_choice(tmp_path):
    chosen = executable(tmp_path / "my-cxx", "echo 'my c++ 7.7'; echo more")
    found = find_toolchain({"CXX": str(chosen)})
    assert found.compiler == chosen
    assert found.compiler_version == "my c++ 7.7"


def test_without_a_choice_the_usual_names_are_tried(tmp_path, monkeypatch):
    executable(tmp_path / "g++", "echo 'g++ 1'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_toolchain({}).compiler == tmp_path / "g++"
    executable(tmp_path / "c++", "echo 'c++ 2'")
    assert find_toolchain({}).compiler == tmp_path / "c++"


def test_a_silent_compiler_is_of_unknown_version(tmp_path):
    assert (
        find_toolchain({"CXX": str(executable(tmp_path / "c", ""))}).compiler_version == "unknown"
    )


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError) as caught:
        find_toolchain({})
    assert str(caught.value) == (
        "no C++ compiler found\n"
        "  got:      looked for c++, g++, clang++\n"
        "  hint:     install one (Debian: apt install g++) or set CXX"
    )
    with pytest.raises(BuildError, match="looked for nowhere-g"):
        find_toolchain({"CXX": "nowhere-g++"})


def test_packaged_tools_come_before_those_of_the_path(tmp_path, monkeypatch):
    found = find_toolchain()
    assert found.cmake.is_file()
    assert found.ninja.is_file()
    assert found.module_suffix.endswith(".so")
    assert (found.python_include_dirs[0] / "Python.h").is_file()
    assert (found.python_include_dirs[1] / "pybind11").is_dir()
    monkeypatch.setattr(module.cmake, "CMAKE_BIN_DIR", str(tmp_path))
    own = executable(tmp_path / "cmake-on-path", "")
    own.rename(tmp_path / "cmake")
    assert find_toolchain().cmake == tmp_path / "cmake"


def test_a_tool_that_is_nowhere(tmp_path, monkeypatch):
    executable(tmp_path / "g++", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module.ninja, "BIN_DIR", str(tmp_path))
    with pytest.raises(BuildError, match="ninja is missing"):
        find_toolchain({})


# ---- instruction sets -----------------------------------------------------------------------


def test_native_asks_for_what_this_cpu_has():
    native = instruction_set("native")
    assert native.project_flags == ("-march=native",)
    assert set(native.features) <= set(Path("/proc/cpuinfo").read_text().split())


@is_x86
def test_native_is_no_more_than_what_our_kernels_use(monkeypatch):
    """Whatever else a CPU has the compiler may not use, since the record would not say so."""
    has = ("avx2", "abm", "fma", "avx512_vbmi2", "gfni", "sse4_2")
    monkeypatch.setattr(
        module, "host_features", lambda names: tuple(name for name in names if name in has)
    )
    native = instruction_set("native")
    assert native.features == ("sse4_2", "abm", "avx2", "fma")
    assert native.flags == ("-mtune=native", "-msse4.2", "-mlzcnt", "-mavx2", "-mfma")


def test_portable_asks_for_nothing():
    assert instruction_set("portable") == module.InstructionSet("portable", (), ())


@is_x86
def test_named_levels():
    assert instruction_set("avx2").flags == ("-march=x86-64-v3",)
    assert set(instruction_set("avx2").features) < set(instruction_set("avx512").features)
    bf16 = instruction_set("avx512-bf16")
    assert bf16.flags == ("-march=x86-64-v4", "-mavx512bf16")
    assert set(bf16.features) - set(instruction_set("avx512").features) == {"avx512_bf16"}


@is_x86
def test_one_instruction_set_multiplies_bfloat16():
    """The one that simd.hpp calls QWEN3_SIMD_AVX512_BF16."""
    names = ("portable", "avx2", "avx512", "avx512-bf16")
    assert [name for name in names if instruction_set(name).multiplies_bfloat16] == ["avx512-bf16"]


def test_an_unknown_instruction_set():
    with pytest.raises(BuildError) as caught:
        instruction_set("natve")
    text = str(caught.value)
    assert text.startswith("unknown instruction set 'natve'\n  expected: native, portable")
    assert text.endswith("hint:     did you mean 'native'?")


def test_features_of_other_machines(monkeypatch):
    class FakePath:
        def __init__(self, path: str) -> None:
            assert path == "/proc/cpuinfo"

        def read_text(self, **_: str) -> str:
            return "processor : 0\nFeatures : fp asimd bf16\nprocessor : 1\nFeatures : x\n"

    monkeypatch.setattr(module, "Path", FakePath)
    assert host_features(("asimd", "x", "bf16")) == ("asimd", "bf16")

    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(FakePath, "read_text", missing)
    assert host_features(("asimd",)) == ()


# ---- CMake and ninja ------------------------------------------------------------------------


def project(folder: Path, *sources: str) -> Path:
    folder.mkdir()
    names = [f"part{i}.cpp" for i in range(len(sources))]
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(p LANGUAGES CXX)\n"
        f"add_library(p STATIC {' '.join(names)})\n"
        "target_compile_definitions(p PRIVATE ANSWER=${ANSWER})\n"
    )
    for name, text in zip(names, sources, strict=True):
        (folder / name).write_text(text)
    return folder


@pytest.mark.compile
def test_definitions_arrive_and_targets_are_built(tmp_path):
    source = project(tmp_path / "p", "static_assert(ANSWER == 42);\nint f() { return 0; }\n")
    cmake_build(source, tmp_path / "b", find_toolchain(), {"ANSWER": "42"}, ("p",))
    assert (tmp_path / "b" / "libp.a").is_file()


@pytest.mark.compile
def test_a_compile_error_shows_the_compiler_s_words_of_every_source(tmp_path):
    source = project(tmp_path / "broken", "int f() { return first; }\n", "int g() { second(); }\n")
    with pytest.raises(BuildError) as caught:
        cmake_build(source, tmp_path / "b", find_toolchain(), {"ANSWER": "1"}, ("p",))
    text = str(caught.value)
    assert text.startswith(
        f"{source}: the sources of broken did not compile\n  got:      exit code 1 of ninja"
    )
    assert "first" in text
    assert "second" in text
    assert "FAILED: " in text
    assert "Building CXX" not in text.split("FAILED: ")[0]


@pytest.mark.compile
def test_a_configure_error_shows_cmake_s_words(tmp_path):
    source = project(tmp_path / "broken")
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(p LANGUAGES CXX)\n"
        'message(FATAL_ERROR "no such thing")\n'
    )
    with pytest.raises(BuildError) as caught:
        cmake_build(source, tmp_path / "b", find_toolchain(), {}, ("p",))
    text = str(caught.value)
    assert text.startswith(f"{source}: CMake could not configure broken\n")
    assert "no such thing" in text


@pytest.mark.compile
def test_folders_with_most_odd_names_are_built(tmp_path):
    folder = tmp_path / "a b'c$d${e}#f(g)h*i&j,k=l%m é日"
    folder.mkdir()
    source = project(folder / "p", "static_assert(ANSWER == 42);\nint f() { return 0; }\n")
    cmake_build(source, folder / "b", find_toolchain(), {"ANSWER": "42"}, ("p",))
    assert (folder / "b" / "libp.a").is_file()


@pytest.mark.parametrize("mark", [";", '"', "\\", "|", "\n"])
def test_folders_that_cmake_cannot_work_in_are_refused(mark, tmp_path):
    for source, build in ((f"a{mark}b", "b"), ("a", f"a{mark}b")):
        with pytest.raises(BuildError) as caught:
            cmake_build(tmp_path / source, tmp_path / build, find_toolchain(), {}, ("p",))
        text = str(caught.value)
        assert text.startswith("CMake and ninja cannot work in a folder of this name\n")
        assert f"got:      {str(tmp_path / f'a{mark}b')!r}\n" in text
        assert "QWEN3_CODEGEN_CACHE" in text


@pytest.mark.compile
def test_endless_output_is_cut(tmp_path):
    errors = "".join(f"#error number {i}\n" for i in range(500))
    source = project(tmp_path / "broken", errors)
    with pytest.raises(BuildError) as caught:
        cmake_build(source, tmp_path / "b", find_toolchain(), {"ANSWER": "1"}, ("p",))
    text = str(caught.value)
    assert "number 0" in text
    assert "more lines" in text
    assert len(text.splitlines()) < 210
