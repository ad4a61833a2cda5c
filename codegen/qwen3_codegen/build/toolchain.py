"""The compiler and build tools of this machine, and the instruction sets code may use."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cmake
import ninja
import pybind11

from qwen3_codegen.errors import BuildError, nearest


@dataclass(frozen=True, slots=True)
class InstructionSet:
    """A choice of ``--isa``: compiler flags, and what the CPU must have."""

    name: str
    flags: tuple[str, ...]
    features: tuple[str, ...]
    """All that the flags allow, by their names in /proc/cpuinfo; empty where any CPU of the
    machine's kind will do."""

    @property
    def project_flags(self) -> tuple[str, ...]:
        """The flags of a project that is built where it is used."""
        return ("-march=native",) if self.name == "native" else self.flags

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether kernels have products of bfloat16: ``QWEN3_SIMD_AVX512_BF16`` of simd.hpp."""
        return set(self.features) >= _PAIR_PRODUCTS


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What builds an engine."""

    compiler: Path
    compiler_version: str
    """First line of ``--version``."""
    cmake: Path
    ninja: Path
    python_include_dirs: tuple[Path, ...]
    """Of Python and of pybind11."""
    pybind11_version: str
    module_suffix: str
    """e.g. ``.cpython-311-x86_64-linux-gnu.so``."""


_X86_V2 = ("popcnt", "sse4_1", "sse4_2", "ssse3")
_X86_V3 = (*_X86_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_X86_V4 = (*_X86_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_X86_V4_BF16 = (*_X86_V4, "avx512_bf16")
_PAIR_PRODUCTS = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"}
_SPELLED_OTHERWISE = {
    "abm": "lzcnt",
    "avx512_bf16": "avx512bf16",
    "bmi1": "bmi",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}
"""Names of compiler flags that are not those in /proc/cpuinfo."""


def instruction_set(name: str) -> InstructionSet:
    """Returns an instruction set by name.

    Args:
        name: ``native`` (this CPU's features), ``portable`` (any CPU of this architecture),
            ``avx2``, ``avx512``, or ``avx512-bf16``, which multiplies bfloat16 without widening it.

    Raises:
        BuildError: The name is unknown or belongs to another architecture.
    """
    sets = {"native": _native(), "portable": InstructionSet("portable", (), ())}
    if platform.machine() in ("x86_64", "AMD64"):
        sets["avx2"] = InstructionSet("avx2", ("-march=x86-64-v3",), _X86_V3)
        sets["avx512"] = InstructionSet("avx512", ("-march=x86-64-v4",), _X86_V4)
        sets["avx512-bf16"] = InstructionSet(
            "avx512-bf16", ("-march=x86-64-v4", "-mavx512bf16"), _X86_V4_BF16
        )
    if name not in sets:
        raise BuildError(
            f"unknown instruction set '{name}'",
            expected=", ".join(sets),
            hint=nearest(name, sets),
        )
    return sets[name]


def _native() -> InstructionSet:
    """What this CPU has of what our kernels use.

    Not ``-march=native``: that allows whatever else the CPU has and nobody thought of, so that a
    copy of the engine could die of an illegal instruction instead of being refused.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return InstructionSet("native", ("-march=native",), host_features(None))
    features = host_features(_X86_V4_BF16)
    flags = (f"-m{_SPELLED_OTHERWISE.get(name, name)}" for name in features)
    return InstructionSet("native", ("-mtune=native", *flags), features)


def host_features(candidates: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns those of ``candidates`` that this CPU has, as /proc/cpuinfo names them; None: all."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ()
    flags: set[str] = set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
            break
    return tuple(name for name in (candidates or sorted(flags)) if name in flags)


def find_compiler(environment: Mapping[str, str] = os.environ) -> Path:
    """Finds the compiler: ``$CXX``, else c++, g++, clang++.

    Raises:
        BuildError: There is none.
    """
    names = [environment["CXX"]] if environment.get("CXX") else ["c++", "g++", "clang++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise BuildError(
            "no C++ compiler found",
            got=f"looked for {', '.join(names)}",
            hint="install one (Debian: apt install g++) or set CXX",
        )
    return Path(found)


def find_build_tools() -> tuple[Path, Path]:
    """Finds CMake and ninja: those that came with us, else the system's.

    Raises:
        BuildError: One is missing.
    """
    return (
        _tool(Path(cmake.CMAKE_BIN_DIR) / "cmake", "cmake"),
        _tool(Path(ninja.BIN_DIR) / "ninja", "ninja"),
    )


def find_toolchain(environment: Mapping[str, str] = os.environ) -> Toolchain:
    """Finds the compiler and the tools that came with us.

    Raises:
        BuildError: There is no C++ compiler.
    """
    found = find_compiler(environment)
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    cmake_path, ninja_path = find_build_tools()
    return Toolchain(
        compiler=found,
        compiler_version=version.stdout.splitlines()[0] if version.stdout else "unknown",
        cmake=cmake_path,
        ninja=ninja_path,
        python_include_dirs=(Path(sysconfig.get_path("include")), Path(pybind11.get_include())),
        pybind11_version=pybind11.__version__,
        module_suffix=str(suffix),
    )


def _tool(packaged: Path, name: str) -> Path:
    if packaged.is_file():
        return packaged
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"{name} is missing", hint="pip install --force-reinstall qwen3-codegen")
    return Path(found)
