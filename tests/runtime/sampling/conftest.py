"""The sampler's C++, compiled once for all of its tests."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CPP = HERE.parents[2] / "runtime" / "cpp"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{CPP}"]

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def build() -> Build:
    """Compiles the sampler with one of the sources beside this file."""

    def compile_with(output: Path, source: str, *flags: str) -> Path:
        sources = [*map(str, (CPP / "sampler").glob("*.cpp")), str(HERE / source)]
        subprocess.run(["g++", *FLAGS, *flags, *sources, "-o", str(output)], check=True)
        return output

    return compile_with


@pytest.fixture(scope="session")
def library(build: Build, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("sampler") / "sampler.so"
    loaded = ctypes.CDLL(
        str(build(output, "sampler_c_api.cpp", "-O2", "-march=native", "-shared", "-fPIC"))
    )
    loaded.uniform_number.restype = ctypes.c_double
    loaded.uniform_number.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
    return loaded
