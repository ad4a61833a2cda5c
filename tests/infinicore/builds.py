"""Builds of the embedded InfiniCore for tests, each made once and kept beside the engines."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.build.cache import cached_folder, content_key, source_texts
from qwen3_codegen.build.toolchain import find_toolchain, instruction_set
from qwen3_codegen.infinicore.headers import render_headers, write_headers
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
    """Makes builds in the cache, and headers below a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def headers(self, release: str) -> Path:
        folder = self._folder / "include" / release
        write_headers(release, folder)
        return folder

    def make(self, build: Build) -> Path:
        """Returns the folder with the libraries of a build."""
        key = content_key(
            [
                *source_texts(cpp_dir(), (".hpp", ".cpp", ".h", ".txt")),
                *render_headers(build.release).values(),
                find_toolchain().compiler_version,
                *instruction_set("native").features,
                repr(build),
            ]
        )
        return cached_folder("runtime", key, lambda folder: self._make(build, folder))

    def _make(self, build: Build, folder: Path) -> None:
        scratch = folder / "build"
        configure = ["cmake", "-G", "Ninja", "-S", str(SOURCE), "-B", str(scratch)]
        configure += [f"-DQWEN3_INFINICORE_HEADERS={self.headers(build.release)}"]
        configure += [f"-DQWEN3_INFINICORE_RELEASE={build.release}"]
        configure += [f"-DQWEN3_INFINICORE_KIND={build.kind}"]
        configure += [f"-DQWEN3_ISA_FLAGS={build.isa}", f"-DCMAKE_CXX_FLAGS={build.flags}"]
        configure += [f"-DCMAKE_BUILD_TYPE={'Release' if build.optimised else 'None'}"]
        run(configure)
        run(["cmake", "--build", str(scratch), "-j", "2"])
        for library in (*scratch.glob("*.so"), *scratch.glob("*.a")):
            shutil.move(library, folder)
        shutil.rmtree(scratch)


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
