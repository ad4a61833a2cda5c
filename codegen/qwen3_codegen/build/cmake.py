"""Runs CMake and ninja; on failure the compiler's own words are in the error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from qwen3_codegen.build.toolchain import Toolchain
from qwen3_codegen.errors import BuildError


def cmake_build(
    source: Path,
    build: Path,
    toolchain: Toolchain,
    definitions: Mapping[str, str],
    targets: tuple[str, ...],
) -> None:
    """Configures ``source`` into ``build`` and builds some targets.

    Raises:
        BuildError: A step failed; the message ends with its output.
    """
    configure = [
        str(toolchain.cmake),
        "-S",
        str(source),
        "-B",
        str(build),
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={toolchain.ninja}",
        f"-DCMAKE_CXX_COMPILER={toolchain.compiler}",
        "-DCMAKE_BUILD_TYPE=Release",
        *(f"-D{name}={value}" for name, value in definitions.items()),
    ]
    _run(configure, f"CMake could not configure {source.name}")
    _run(
        [str(toolchain.ninja), "-C", str(build), *targets],
        f"the sources of {source.name} did not compile",
    )


def _run(command: list[str], failure: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CMAKE_GENERATOR"}
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if result.returncode != 0:
        raise BuildError(
            failure,
            got=f"exit code {result.returncode} of {Path(command[0]).name}",
            hint=f"its output:\n{_tail(result.stdout)}",
        )


def _tail(output: str, lines: int = 60) -> str:
    kept = output.splitlines()
    return "\n".join(f"    {line}" for line in kept[-lines:])
