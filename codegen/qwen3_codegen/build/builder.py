"""Files of an engine in, its Python module out.

Two cached steps: the shared runtime (engine base, C API, bindings, embedded InfiniCore), compiled
once per compiler, instruction set, Python ABI and InfiniCore; and the engine itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.build.cache import (
    cache_in_use,
    cached_folder,
    content_key,
    folder_lock,
    source_texts,
)
from qwen3_codegen.build.cmake import cmake_build
from qwen3_codegen.build.toolchain import InstructionSet, Toolchain
from qwen3_codegen.emission.render import write_files
from qwen3_codegen.infinicore.headers import render_headers, write_headers
from qwen3_codegen.infinicore.install import InstalledInfiniCore
from qwen3_codegen.paths import check_build_folder, cpp_dir
from qwen3_runtime.engine.manifest import MANIFEST_FILE
from qwen3_runtime.engine.native_module import BUILD_RECORD

_C_HEADER = "qwen3_engine.h"
_LIBRARIES = ("infiniop", "infinirt")
"""Of an installed InfiniCore."""

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """How to compile an engine."""

    toolchain: Toolchain
    isa: InstructionSet
    release: str
    installed: InstalledInfiniCore | None
    """None for the embedded InfiniCore."""
    c_library: bool = True
    """Whether the C library is wanted beside the Python module."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A folder with a module that can be imported."""

    directory: Path
    module: Path
    c_library: Path | None
    """Offers the functions of ``qwen3_engine.h``, which lies beside it; None where not wanted."""
    was_built: bool
    """False when everything was there already."""


def build_engine(
    directory: Path,
    files: Mapping[str, str],
    request: BuildRequest,
    notify: Notify,
    *,
    force: bool = False,
) -> BuildResult:
    """Writes an engine's files and puts its Python module, and its C library, beside them.

    Args:
        directory: Folder of the engine, named like it; made when absent.
        files: Emitted files by name.
        request: Compiler, instruction set, InfiniCore, and whether the C library is wanted.
        notify: Told what is being done, in a few words.
        force: Compiles the engine though it is here or in the cache.

    Raises:
        BuildError: Something did not compile. The engine's sources stay in ``directory``, for the
            message names their lines.
    """
    with cache_in_use(), folder_lock(directory):
        return _build_locked(directory, files, request, notify, force=force)


def _build_locked(
    directory: Path,
    files: Mapping[str, str],
    request: BuildRequest,
    notify: Notify,
    *,
    force: bool,
) -> BuildResult:
    write_files(directory, files)
    shared_key = runtime_key(request)
    products = _products(directory.name, request)
    texts = (f"{name}\n{text}" for name, text in files.items())
    key = content_key([shared_key, *products, *texts])
    module = directory / products[0]
    c_library = directory / products[1] if request.c_library else None
    is_complete = all((directory / name).is_file() for name in products)
    if is_complete and not force and _recorded_key(directory / BUILD_RECORD) == key:
        return BuildResult(directory, module, c_library, was_built=False)
    runtime = cached_folder("runtime", shared_key, lambda f: _make_runtime(f, request, notify))
    record = _record(key, files, request)

    def make(folder: Path) -> None:
        _make_engine(folder, files, runtime, directory, request, notify)
        write_files(folder, {BUILD_RECORD: record})

    engine = cached_folder("engines", key, make, again=force)
    for name in products:
        _install(engine / name, directory / name)
    write_files(directory, {BUILD_RECORD: record})
    return BuildResult(directory, module, c_library, was_built=True)


def _products(name: str, request: BuildRequest) -> tuple[str, ...]:
    """File names of what is compiled for an engine: the module, then what C programs need."""
    module = f"_engine{request.toolchain.module_suffix}"
    return (module, f"lib{name}.so", _C_HEADER) if request.c_library else (module,)


def _record(key: str, files: Mapping[str, str], request: BuildRequest) -> str:
    facts = {
        "key": key,
        "manifest_sha256": hashlib.sha256(files[MANIFEST_FILE].encode()).hexdigest(),
        "isa": {"name": request.isa.name, "features": list(request.isa.features)},
        "compiler": request.toolchain.compiler_version,
    }
    return json.dumps(facts, indent=2) + "\n"


def _recorded_key(record: Path) -> str | None:
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    key = facts.get("key") if isinstance(facts, dict) else None
    return key if isinstance(key, str) else None


def runtime_key(request: BuildRequest) -> str:
    """Returns the key of the shared runtime: everything that goes into compiling it."""
    toolchain, installed = request.toolchain, request.installed
    if installed is None:
        headers = [f"{name}\n{text}" for name, text in render_headers(request.release).items()]
    else:
        headers = [str(installed.lib_dir), *source_texts(installed.include_dir, (".h",))]
    return content_key(
        [
            *source_texts(cpp_dir(), (".hpp", ".cpp", ".h", ".txt", ".cmake", ".map")),
            *headers,
            request.release,
            str(toolchain.compiler),
            toolchain.compiler_version,
            toolchain.module_suffix,
            toolchain.pybind11_version,
            *map(str, toolchain.python_include_dirs),
            *request.isa.flags,
            *request.isa.features,
        ]
    )


def _make_runtime(folder: Path, request: BuildRequest, notify: Notify) -> None:
    notify("compiling the shared runtime (once per compiler and instruction set)")
    targets = ["qwen3_engine_base", "qwen3_bindings"]
    if request.installed is None:
        write_headers(request.release, folder / "include")
        targets.append("infinicore_embedded")
    build = folder / "build"
    definitions = _common_definitions(folder, request)
    cmake_build(cpp_dir(), build, request.toolchain, definitions, tuple(targets))
    for archive in build.rglob("*.a"):
        shutil.move(archive, folder / archive.name)
    shutil.rmtree(build)


def _make_engine(
    folder: Path,
    files: Mapping[str, str],
    runtime: Path,
    directory: Path,
    request: BuildRequest,
    notify: Notify,
) -> None:
    notify("compiling the engine")
    name = directory.name
    source, build = folder / name, folder / "build"
    write_files(source, files)
    definitions = {
        **_common_definitions(runtime, request),
        "QWEN3_RUNTIME_DIR": str(runtime),
        "QWEN3_MODULE_SUFFIX": request.toolchain.module_suffix,
    }
    targets = ("_engine", name) if request.c_library else ("_engine",)
    cmake_build(source, build, request.toolchain, definitions, targets, kept=directory)
    shutil.copyfile(cpp_dir() / "c_api" / _C_HEADER, build / _C_HEADER)
    for product in _products(name, request):
        shutil.move(build / product, folder / product)
    # For those who list the cache, as is the record: nothing else there says what was compiled.
    shutil.move(source / MANIFEST_FILE, folder / MANIFEST_FILE)
    shutil.rmtree(build)
    shutil.rmtree(source)


def _common_definitions(runtime: Path, request: BuildRequest) -> dict[str, str]:
    flags = " ".join(request.isa.flags)
    installed = [] if request.installed is None else [request.installed.lib_dir]
    for folder in (cpp_dir(), runtime, *request.toolchain.python_include_dirs, *installed):
        check_build_folder(folder)
    definitions = {
        "QWEN3_CPP_DIR": str(cpp_dir()),
        "QWEN3_INFINICORE_RELEASE": request.release,
        "QWEN3_INFINICORE_HEADERS": str(runtime / "include"),
        "QWEN3_PYTHON_INCLUDE_DIRS": ";".join(map(str, request.toolchain.python_include_dirs)),
        "CMAKE_CXX_FLAGS": flags,
        "QWEN3_ISA_FLAGS": flags,
    }
    if request.installed is not None:
        libraries = [request.installed.lib_dir / f"lib{name}.so" for name in _LIBRARIES]
        definitions["QWEN3_INFINICORE_HEADERS"] = str(request.installed.include_dir)
        definitions["QWEN3_INFINI_LIBRARIES"] = ";".join(map(str, libraries))
        definitions["CMAKE_BUILD_RPATH"] = str(request.installed.lib_dir)
    return definitions


def _install(source: Path, target: Path) -> None:
    """Copies a file over an older one that may be in use."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    try:
        shutil.copyfile(source, temporary)
        os.chmod(temporary, 0o755 if target.suffix == ".so" else 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
