"""Runs CMake and ninja; on failure the compiler's own words are in the error."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from qwen3_codegen.build.toolchain import Toolchain
from qwen3_codegen.errors import BuildError
from qwen3_codegen.paths import check_build_folder

_INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)


def cmake_build(
    source: Path,
    build: Path,
    toolchain: Toolchain,
    definitions: Mapping[str, str],
    targets: tuple[str, ...],
    kept: Path | None = None,
) -> None:
    """Configures ``source`` into ``build`` and builds some targets.

    Args:
        source: Folder with a CMakeLists.txt.
        build: Folder for what is made on the way.
        toolchain: The programs to use.
        definitions: Values of CMake's cache, by name.
        targets: What to build.
        kept: Where the sources can be read afterwards, where ``source`` is a passing copy.

    Raises:
        BuildError: A folder's name is beyond CMake, or a step failed; the message says where the
            sources lie and ends with the step's output.
    """
    for folder in (source, build):
        check_build_folder(folder)
    where = kept or source
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
    _run(configure, f"CMake could not configure {source.name}", where)
    # -k 0: one faulty source must not hide the errors of the others.
    _run(
        [str(toolchain.ninja), "-C", str(build), "-k", "0", *targets],
        f"the sources of {source.name} did not compile",
        where,
    )


def _run(command: list[str], failure: str, where: Path) -> None:
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
    if result.returncode in _INTERRUPTED or "interrupted by user" in result.stdout[-200:]:
        raise KeyboardInterrupt  # Ctrl-C reaches the children too, and theirs may be seen first
    if result.returncode != 0:
        raise BuildError(
            failure,
            where=where,
            got=f"exit code {result.returncode} of {Path(command[0]).name}",
            hint=f"its output:\n{_from_failure(result.stdout)}",
        )


def _from_failure(output: str, limit: int = 200) -> str:
    """The output from the first failing command on, for CMake from its first error on."""
    lines = output.splitlines()
    marks = ("FAILED:", "CMake Error")
    start = next((i for i, line in enumerate(lines) if line.startswith(marks)), 0)
    shown = lines[start : start + limit]
    left_out = len(lines) - start - len(shown)
    if left_out:
        shown.append(f"... {left_out} more lines")
    return "\n".join(f"    {line}" for line in shown)
