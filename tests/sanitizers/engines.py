"""Builds of whole engines with a sanitizer, by the CMake files that users build with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.build.cache import cached_folder, content_key, source_texts
from qwen3_codegen.build.cmake import cmake_build
from qwen3_codegen.build.toolchain import find_toolchain
from qwen3_codegen.compile import CompileOptions, plan_model
from qwen3_codegen.emission.render import write_files
from qwen3_codegen.infinicore.headers import render_headers, write_headers
from qwen3_codegen.paths import cpp_dir
from qwen3_codegen.spec.device import load_device
from tests.plan.planning import case_spec

CASE = "qwen3-window-3"
"""Layers with a window and layers without."""
RELEASE = "0.1.0"
PROGRAM = Path(__file__).parent / "engines_test.cpp"


@dataclass(frozen=True)
class Sanitizer:
    """What the compiler puts in, and how the program under it is to run."""

    name: str
    flags: str
    environment: Mapping[str, str]

    @property
    def definitions(self) -> dict[str, str]:
        return {
            "CMAKE_BUILD_TYPE": "None",
            # Optimising what a sanitizer adds takes longer than a tiny engine's steps.
            "CMAKE_CXX_FLAGS": f"-O0 -g1 {self.flags}",
            "QWEN3_CPP_DIR": str(cpp_dir()),
            "QWEN3_INFINICORE_RELEASE": RELEASE,
            "QWEN3_ISA_FLAGS": "",
            "QWEN3_PYTHON": "OFF",
        }

    def runtime(self) -> Path:
        """Returns the folder of the shared runtime under the sanitizer."""
        toolchain = find_toolchain()
        sources = source_texts(cpp_dir(), (".hpp", ".cpp", ".h", ".txt", ".cmake"))
        headers = [f"{name}\n{text}" for name, text in render_headers(RELEASE).items()]
        version = [str(toolchain.compiler), toolchain.compiler_version]
        key = content_key([*sources, *headers, *version, str(self.definitions)])

        def make(folder: Path) -> None:
            write_headers(RELEASE, folder / "include")
            targets = ("qwen3_engine_base", "infinicore_embedded")
            definitions = {**self.definitions, "QWEN3_INFINICORE_HEADERS": str(folder / "include")}
            cmake_build(cpp_dir(), folder / "build", toolchain, definitions, targets)
            for archive in (folder / "build").rglob("*.a"):
                archive.rename(folder / archive.name)

        return cached_folder("runtime", key, make)

    def engine(self, folder: Path, files: Mapping[str, str]) -> Path:
        """Builds an engine's C library from its emitted files."""
        runtime = self.runtime()
        name = "qwen3_window_3_cpu"
        source, build = folder / name, folder / "build"
        write_files(source, files)
        definitions = {
            **self.definitions,
            "QWEN3_RUNTIME_DIR": str(runtime),
            "QWEN3_INFINICORE_HEADERS": str(runtime / "include"),
        }
        cmake_build(source, build, find_toolchain(), definitions, (name,))
        return build / f"lib{name}.so"

    def program(self, folder: Path) -> Path:
        """Builds the program that calls engines."""
        program = folder / PROGRAM.stem
        command = [str(find_toolchain().compiler), "-std=c++17", "-Wall", "-Wextra", "-Werror"]
        command += ["-O0", "-g1", *self.flags.split(), f"-I{cpp_dir()}", str(PROGRAM)]
        subprocess.run([*command, "-o", str(program), "-ldl", "-pthread"], check=True)
        return program

    def run(self, program: Path, *libraries: Path) -> subprocess.CompletedProcess[str]:
        """Runs the program on engines."""
        result = self._run(program, libraries, self.environment)
        if "LeakSanitizer has encountered a fatal error" in result.stderr:
            # Under a debugger, or where ptrace is not allowed, it cannot look for leaks.
            without = {"ASAN_OPTIONS": f"{self.environment['ASAN_OPTIONS']}:detect_leaks=0"}
            return self._run(program, libraries, self.environment | without)
        return result

    @staticmethod
    def _run(
        program: Path, libraries: tuple[Path, ...], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *map(str, libraries)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
        )


ADDRESS = Sanitizer(
    "address-undefined",
    "-fsanitize=address,undefined -fno-sanitize-recover=all",
    {
        "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    },
)
THREAD = Sanitizer("thread", "-fsanitize=thread", {"TSAN_OPTIONS": "halt_on_error=1"})


def emitted(lowering: str) -> dict[str, str]:
    """The files of the tiny engine in a lowering."""
    options = CompileOptions(lowering=lowering)
    return dict(plan_model(case_spec(CASE), load_device("cpu"), options).files)
