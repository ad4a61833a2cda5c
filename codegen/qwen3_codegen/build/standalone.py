"""Copies into an engine's folder the C++ that it needs, so that it is built without the compiler.

What an engine needs follows from what its files include. Sources that lie beside an included header
and carry its name define what it declares; of the embedded InfiniCore, which declares everything in
a few headers, come infinirt, the handles and the operators that the plan calls.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from qwen3_codegen.build.cache import folder_lock, put_in_place
from qwen3_codegen.emission.render import write_files
from qwen3_codegen.errors import BuildError
from qwen3_codegen.infinicore.headers import render_headers
from qwen3_codegen.paths import cpp_dir

SOURCES_FOLDER = "cpp"

_BUILD_FILES = (
    "CMakeLists.txt",
    "bindings/exports.map",
    "build_record.cmake",
    "c_api/exports.map",
    "find_pybind11.cmake",
    "infinicore/CMakeLists.txt",
    "present_sources.cmake",
    "qwen3_runtime.cmake",
)
_EMBEDDED = (
    "infinicore/src/infinirt.cpp",
    "infinicore/src/infinirt_2026.cpp",
    "infinicore/src/operator.cpp",
)
"""Define what InfiniCore's own headers declare; the operators are chosen by name."""
_DEFINED_ELSEWHERE = {"kernels/gemm_instances.hpp": "infinicore/src/ops/gemm.cpp"}
_OPERATORS = "infinicore/src/ops"
_INCLUDE_FOLDERS = ("", "kernels", "infinicore/include", "infinicore/src")
_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def standalone_sources(
    emitted: Mapping[str, str], release: str, operators: Iterable[str]
) -> Mapping[str, str]:
    """Returns the runtime's files that an engine needs, from path to text.

    Args:
        emitted: The engine's own files.
        release: Of InfiniCore's API; its headers come rendered, in ``include/RELEASE``.
        operators: Names of the InfiniCore operators that the engine calls.
    """
    runtime = {
        path.relative_to(cpp_dir()).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(cpp_dir().rglob("*"))
        if path.suffix in (".cpp", ".hpp", ".h", ".txt", ".cmake", ".map")
    }
    headers = {f"include/{release}/{n}": text for n, text in render_headers(release).items()}
    called = frozenset(f"infiniop/ops/{name}.h" for name in operators)
    roots = [path for path, text in runtime.items() if _defines_one_of(called, path, text)]
    wanted = dict.fromkeys([*_BUILD_FILES, *_EMBEDDED, *roots])
    waiting = [*wanted, *_included([*emitted.values(), *headers.values()], "", runtime)]
    while waiting:
        path = waiting.pop()
        wanted[path] = None
        near = str(PurePosixPath(path).parent)
        for found in (*_included([runtime[path]], near, runtime), *_definition(path, runtime)):
            if found not in wanted:
                wanted[found] = None
                waiting.append(found)
    return {path: runtime[path] for path in sorted(wanted)} | headers


def write_standalone(directory: Path, sources: Mapping[str, str]) -> Path:
    """Puts the runtime's files into an engine's folder, all at once; equal ones stay as they are.

    Returns:
        Their folder, ``cpp``.

    Raises:
        BuildError: A folder of this name is not of our making.
    """
    target = directory / SOURCES_FOLDER
    with folder_lock(target):
        if _texts_below(target) == sources:
            return target
        if target.exists() and not _is_ours(target):
            raise BuildError(
                "the engine's C++ sources go where something else lies",
                where=target,
                hint="move it away, or choose another folder: --out",
            )
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(f".{SOURCES_FOLDER}.*"):
            shutil.rmtree(leftover)
        scratch = Path(tempfile.mkdtemp(dir=directory, prefix=f".{SOURCES_FOLDER}."))
        try:
            write_files(scratch, sources)
            scratch.chmod(0o755)
            put_in_place(scratch, target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return target


def has_standalone(directory: Path) -> bool:
    """Whether an earlier build left its sources in an engine's folder."""
    return _is_ours(directory / SOURCES_FOLDER)


def remove_standalone(directory: Path) -> None:
    """Removes sources that an earlier build left and that no longer go with the engine."""
    if has_standalone(directory):
        target = directory / SOURCES_FOLDER
        with folder_lock(target):
            shutil.rmtree(target, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return (folder / "qwen3_runtime.cmake").is_file()


def _included(texts: Iterable[str], near: str, runtime: Mapping[str, str]) -> Iterator[str]:
    """Paths of the runtime's files that some texts include."""
    for name in (name for text in texts for name in _INCLUDE.findall(text)):
        folders = (near, *_INCLUDE_FOLDERS)
        paths = (_normal(PurePosixPath(folder, name)) for folder in folders)
        found = next((path for path in paths if path in runtime), None)
        if found is not None:
            yield found


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(parts)


def _definition(path: str, runtime: Mapping[str, str]) -> Iterator[str]:
    source = _DEFINED_ELSEWHERE.get(path, str(PurePosixPath(path).with_suffix(".cpp")))
    if not path.endswith(".cpp") and source in runtime:
        yield source


def _defines_one_of(headers: frozenset[str], path: str, text: str) -> bool:
    in_operators = str(PurePosixPath(path).parent) == _OPERATORS and path.endswith(".cpp")
    return in_operators and not headers.isdisjoint(_INCLUDE.findall(text))


def _texts_below(folder: Path) -> Mapping[str, str] | None:
    """None where there is no such folder, or something in it is no text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    try:
        return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in files}
    except (OSError, UnicodeDecodeError):
        return None
