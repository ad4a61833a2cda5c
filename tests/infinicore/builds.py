"""Builds of the embedded InfiniCore for tests, each made once per session."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.infinicore.headers import write_headers
from qwen3_codegen.paths import cpp_dir

SOURCE = cpp_dir() / "infinicore"
KERNELS = cpp_dir() / "kernels"


@dataclass(frozen=True)
class Build:
    """What to build: a kind of CMakeLists.txt for one release and instruction set."""

    release: str
    kind: str = "single"
    isa: str = "-march=native"
    flags: str = ""
    optimised: bool = True


class Builder:
    """Makes builds below one folder and keeps them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Build, Path] = {}

    def headers(self, release: str) -> Path:
        folder = self._folder / "include" / release
        write_headers(release, folder)
        return folder

    def make(self, build: Build) -> Path:
        """Returns the folder with the libraries of a build."""
        if build not in self._made:
            folder = self._folder / f"build-{len(self._made)}"
            configure = ["cmake", "-G", "Ninja", "-S", str(SOURCE), "-B", str(folder)]
            configure += [f"-DQWEN3_INFINICORE_HEADERS={self.headers(build.release)}"]
            configure += [f"-DQWEN3_INFINICORE_RELEASE={build.release}"]
            configure += [f"-DQWEN3_INFINICORE_KIND={build.kind}"]
            configure += [f"-DQWEN3_ISA_FLAGS={build.isa}", f"-DCMAKE_CXX_FLAGS={build.flags}"]
            configure += [f"-DCMAKE_BUILD_TYPE={'Release' if build.optimised else 'None'}"]
            run(configure)
            run(["cmake", "--build", str(folder), "-j", "2"])
            self._made[build] = folder
        return self._made[build]


def run(command: list[str], **environment: str) -> str:
    """Runs a command; its output is in the failure."""
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout


def compiler() -> str:
    found = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert found is not None
    return found
