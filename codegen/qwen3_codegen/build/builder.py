"""Files of an engine in, its Python module out.

Two cached steps: the shared runtime (bindings, engine base, embedded InfiniCore), compiled once
per compiler, instruction set, Python ABI and InfiniCore; and the engine itself.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.build.cache import cached_folder, content_key, source_texts
from qwen3_codegen.build.cmake import cmake_build
from qwen3_codegen.build.toolchain import InstructionSet, Toolchain
from qwen3_codegen.emission.render import write_files
from qwen3_codegen.infinicore.headers import write_headers
from qwen3_codegen.infinicore.install import InstalledInfiniCore
from qwen3_codegen.paths import cpp_dir

BUILD_RECORD = "build.json"
"""Beside the module: what it was built from, so that a second build has nothing to do."""

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """How to compile an engine."""

    toolchain: Toolchain
    isa: InstructionSet
    release: str
    installed: InstalledInfiniCore | None
    """None for the embedded InfiniCore."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A folder with a module that can be imported."""

    directory: Path
    module: Path
    was_built: bool
    """False when everything was there already."""


def build_engine(
    directory: Path, files: Mapping[str, str], request: BuildRequest, notify: Notify
) -> BuildResult:
    """Writes an engine's files and puts its compiled module beside them.

    Args:
        directory: Folder of the engine; made when absent.
        files: Emitted files by name.
        request: Compiler, instruction set and InfiniCore.
        notify: Told what is being done, in a few words.

    Raises:
        BuildError: Something did not compile.
    """
    write_files(directory, files)
    runtime_key = _runtime_key(request)
    key = content_key([runtime_key, *(f"{name}\n{text}" for name, text in files.items())])
    module = directory / f"_engine{request.toolchain.module_suffix}"
    record = directory / BUILD_RECORD
    if module.is_file() and _recorded_key(record) == key:
        return BuildResult(directory, module, was_built=False)
    runtime = cached_folder("runtime", runtime_key, lambda f: _make_runtime(f, request, notify))
    engine = cached_folder(
        "engines", key, lambda f: _make_engine(f, files, runtime, request, notify)
    )
    _install(engine / module.name, module)
    facts = {
        "key": key,
        "isa": {"name": request.isa.name, "features": list(request.isa.features)},
        "compiler": request.toolchain.compiler_version,
    }
    write_files(directory, {BUILD_RECORD: json.dumps(facts, indent=2) + "\n"})
    return BuildResult(directory, module, was_built=True)


def _recorded_key(record: Path) -> str | None:
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    key = facts.get("key") if isinstance(facts, dict) else None
    return key if isinstance(key, str) else None


def _runtime_key(request: BuildRequest) -> str:
    installed = request.installed
    return content_key(
        [
            *source_texts(cpp_dir(), (".hpp", ".cpp", ".h", ".txt", ".cmake")),
            request.release,
            str(request.toolchain.compiler),
            request.toolchain.compiler_version,
            request.toolchain.module_suffix,
            *map(str, request.toolchain.python_include_dirs),
            *request.isa.flags,
            *request.isa.features,
            "embedded" if installed is None else str(installed.root),
        ]
    )


def _make_runtime(folder: Path, request: BuildRequest, notify: Notify) -> None:
    notify("compiling the shared runtime (once per compiler and instruction set)")
    definitions = _common_definitions(folder, request)
    targets = ["qwen3_engine_base"]
    if request.installed is None:
        write_headers(request.release, folder / "include")
        targets.append("infinicore_embedded")
    build = folder / "build"
    cmake_build(cpp_dir(), build, request.toolchain, definitions, tuple(targets))
    for archive in build.rglob("*.a"):
        shutil.move(archive, folder / archive.name)
    shutil.rmtree(build)


def _make_engine(
    folder: Path, files: Mapping[str, str], runtime: Path, request: BuildRequest, notify: Notify
) -> None:
    notify("compiling the engine")
    source, build = folder / "source", folder / "build"
    write_files(source, files)
    definitions = {
        **_common_definitions(runtime, request),
        "QWEN3_RUNTIME_DIR": str(runtime),
        "QWEN3_MODULE_SUFFIX": request.toolchain.module_suffix,
    }
    if request.installed is None:
        definitions["QWEN3_INFINICORE_EMBEDDED"] = "ON"
        definitions["QWEN3_INFINI_LIBRARIES"] = str(runtime / "libinfinicore_embedded.a")
    cmake_build(source, build, request.toolchain, definitions, ("_engine",))
    name = f"_engine{request.toolchain.module_suffix}"
    shutil.move(build / name, folder / name)
    shutil.rmtree(build)
    shutil.rmtree(source)


def _common_definitions(runtime: Path, request: BuildRequest) -> dict[str, str]:
    definitions = {
        "QWEN3_CPP_DIR": str(cpp_dir()),
        "QWEN3_INFINICORE_RELEASE": request.release,
        "QWEN3_INFINICORE_HEADERS": str(runtime / "include"),
        "QWEN3_PYTHON_INCLUDE_DIRS": ";".join(map(str, request.toolchain.python_include_dirs)),
        "CMAKE_CXX_FLAGS": " ".join(request.isa.flags),
        "QWEN3_ISA_FLAGS": " ".join(request.isa.flags),
    }
    if request.installed is not None:
        libraries = [request.installed.lib_dir / f"lib{name}.so" for name in _LIBRARIES]
        definitions["QWEN3_INFINI_ROOT"] = str(request.installed.root)
        definitions["QWEN3_INFINICORE_HEADERS"] = str(request.installed.include_dir)
        definitions["QWEN3_INFINI_LIBRARIES"] = ";".join(map(str, libraries))
        definitions["CMAKE_BUILD_RPATH"] = str(request.installed.lib_dir)
    return definitions


_LIBRARIES = ("infiniop", "infinirt")


def _install(source: Path, target: Path) -> None:
    """Copies a module over an older one that may be in use."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    try:
        shutil.copyfile(source, temporary)
        os.chmod(temporary, 0o755)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
