"""The C++ compiler, CMake and ninja."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from qwen3_codegen.doctor.finding import Finding, missing, ok
from qwen3_codegen.errors import BuildError

_PROGRAM = """\
#include <optional>
#include <thread>
int main() { return std::optional<int>(0).value_or(1); }
"""
_CXX_MEND = "install one (Debian: apt install g++), or set CXX to a C++17 compiler"
_PIP_MEND = "pip install --force-reinstall qwen3-codegen"


def build_tool_findings(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yields what turns an engine's files into a module."""
    try:
        from qwen3_codegen.build.toolchain import find_build_tools, find_compiler
    except ImportError as error:  # CMake, ninja or pybind11 as Python packages
        yield missing("build tools", str(error), _PIP_MEND)
        return
    try:
        yield compiler_finding(find_compiler(environment))
    except BuildError as error:
        yield missing("compiler", f"{error.message}: {error.got}", _CXX_MEND)
    try:
        cmake, ninja = find_build_tools()
    except BuildError as error:
        yield missing("build tools", error.message, _PIP_MEND)
        return
    yield _tool_finding("CMake", cmake)
    yield _tool_finding("ninja", ninja)


def compiler_finding(compiler: Path) -> Finding:
    """Lets the compiler check a small C++17 program, so that its library is there, too."""
    check = [str(compiler), "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    try:
        said = subprocess.run(
            [str(compiler), "--version"], capture_output=True, text=True, timeout=60
        )
        tried = subprocess.run(check, input=_PROGRAM, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return missing("compiler", f"{compiler} does not run: {error}", _CXX_MEND)
    version = next(iter(said.stdout.splitlines()), "no version")
    if tried.returncode != 0:
        first = next(iter(tried.stderr.splitlines()), f"exit code {tried.returncode}")
        return missing("compiler", f"{compiler} ({version}) refuses C++17: {first}", _CXX_MEND)
    return ok("compiler", f"{version}, {compiler}")


def _tool_finding(name: str, tool: Path) -> Finding:
    try:
        said = subprocess.run([str(tool), "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return missing(name, f"{tool} does not run: {error}", _PIP_MEND)
    if said.returncode != 0 or not said.stdout:
        return missing(name, f"{tool} --version ends with {said.returncode}", _PIP_MEND)
    version = said.stdout.splitlines()[0].removeprefix("cmake version ")
    return ok(name, f"{version}, {tool}")
