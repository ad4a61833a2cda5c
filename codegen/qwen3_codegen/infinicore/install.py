"""The real InfiniCore: finding an installation, and building one from the package registry.

The source distribution `InfiniCore` 0.1.0 carries the whole C++ source; its own build needs xmake,
which no registry carries, so its CPU part is built with our CMake file instead.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cmake
import ninja
from filelock import FileLock

from qwen3_codegen.errors import InfiniCoreError, nearest
from qwen3_codegen.paths import cache_dir, check_build_folder, cpp_dir

__all__ = ["InstalledInfiniCore", "default_root", "install", "probe"]

Progress = Callable[[str], None]

_SHA256 = {"0.1.0": "f11f9ab33ad3a2dd943daf4c1d987162e86e1239abb1a178791bf8a9a2ece560"}
"""Digest of each version's source distribution; nothing else is unpacked or compiled."""

_BENEATH = "\n" + " " * 12
"""Between lines of what was got, so that all begin where the first one does."""
_MAX_UNPACKED_BYTES = 64 << 20
_LIBRARIES = ("libinfinirt.so", "libinfiniop.so", "libinfiniccl.so")
_DEVICES = "devices.txt"
"""Beside the libraries we build: the devices they are for, one a line."""
_HEADERS = ("infinicore.h", "infinirt.h", "infiniop.h", "infiniop/ops/rope.h")


@dataclass(frozen=True, slots=True)
class InstalledInfiniCore:
    """An installation of the real library."""

    root: Path
    include_dir: Path
    lib_dir: Path
    release: str
    """API release its headers declare."""
    devices: tuple[str, ...] | None = None
    """Devices it was built for; None where another build than ours made it."""


def default_root(version: str = "0.1.0") -> Path:
    """Returns where `install` puts a version unless told otherwise."""
    return cache_dir() / "infinicore" / version


def probe(root: Path) -> InstalledInfiniCore:
    """Finds headers and libraries below an INFINI_ROOT and tells their API release.

    Raises:
        InfiniCoreError: Something is missing; the message lists every path that was looked at.
    """
    root = root.expanduser().absolute()
    if not root.exists():
        raise _no_root(root)
    include_dir = root / "include"
    lib_dirs = (root / "lib", root / "lib" / "lib")
    lib_dir = next((d for d in lib_dirs if all((d / n).is_file() for n in _LIBRARIES[:2])), None)
    if lib_dir is None or not all((include_dir / name).is_file() for name in _HEADERS):
        looked = [*(include_dir / name for name in _HEADERS)]
        looked += [folder / name for folder in lib_dirs for name in _LIBRARIES[:2]]
        raise InfiniCoreError(
            "no InfiniCore installation here",
            where=root,
            got=_BENEATH.join(
                f"{'found  ' if path.is_file() else 'missing'} {path}" for path in looked
            ),
            expected="include/ and, in lib/ or lib/lib/, the libraries",
            hint="--infinicore DIR takes the folder of InfiniCore's installation; "
            "`qwen3-codegen infinicore install` makes one",
        )
    devices = (root / _DEVICES).read_text("utf-8").split() if (root / _DEVICES).is_file() else None
    return InstalledInfiniCore(
        root, include_dir, lib_dir, _release_of(include_dir), tuple(devices) if devices else None
    )


def _no_root(root: Path) -> InfiniCoreError:
    """A folder that is not there, or a version that was taken for one."""
    install = "`qwen3-codegen infinicore install`"
    if re.fullmatch(r"v?\d+(\.\d+)+", root.name):
        hint = f"{install} installs {', '.join(_SHA256)} for the CPU, and no other release"
    else:
        hint = (
            f"--infinicore DIR takes the folder of InfiniCore's installation; {install} makes one"
        )
    return InfiniCoreError("there is no such InfiniCore installation", where=root, hint=hint)


def install(
    root: Path,
    *,
    version: str = "0.1.0",
    source: Path | None = None,
    device: str = "cpu",
    progress: Progress = lambda text: None,
) -> Path:
    """Builds InfiniCore into ``root``; does nothing when it is there already.

    Args:
        root: The INFINI_ROOT to make; it appears complete or not at all.
        version: Version of the source distribution.
        source: An unpacked source tree or a source archive; None downloads the archive with pip,
            from whatever index pip is configured for.
        device: Only ``cpu`` can be built here.
        progress: Told what is being done, in a few words.

    Returns:
        ``root``, absolute.

    Raises:
        InfiniCoreError: Unknown version or device, a failed download, a wrong archive, sources that
            do not compile, or something else in the way at ``root``.
        BuildError: CMake cannot work in a folder of this name.
    """
    _check_request(version, device)
    root = root.expanduser().absolute()
    check_build_folder(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.parent / f".{root.name}.lock"):
        if root.exists() and any(root.iterdir()):
            probe(root)
            return root
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as scratch:
            tree = _source_tree(version, source, Path(scratch), progress)
            progress("compiling InfiniCore")
            built = _build(tree, Path(scratch))
            (built / _DEVICES).write_text(f"{device}\n", encoding="utf-8")
            probe(built)
            if root.exists():
                root.rmdir()
            built.rename(root)
    return root


def _check_request(version: str, device: str) -> None:
    if version not in _SHA256:
        raise InfiniCoreError(
            f"InfiniCore {version} cannot be installed",
            expected=", ".join(_SHA256),
            hint=nearest(version, _SHA256),
        )
    if device != "cpu":
        raise InfiniCoreError(
            f"InfiniCore's part for '{device}' cannot be built here",
            expected="cpu",
            hint="build it with InfiniCore's own build and the vendor's compiler, then pass its "
            "INFINI_ROOT",
        )


def _release_of(include_dir: Path) -> str:
    """Tells the releases apart as no version macro does: by macro name and rope's algorithms."""
    core = (include_dir / "infinicore.h").read_text(encoding="utf-8", errors="replace")
    rope = (include_dir / "infiniop/ops/rope.h").read_text(encoding="utf-8", errors="replace")
    if re.search(r"#\s*define\s+__INFINI_C\b", core) or "INFINI_DEVICE_HYGON" in core:
        return "2026-08"
    return "0.1.0" if "INFINIOP_ROPE_ALGO_COUNT" in rope else "2025-08"


def _source_tree(version: str, source: Path | None, scratch: Path, progress: Progress) -> Path:
    """Returns an unpacked source tree."""
    if source is not None and source.is_dir():
        tree = source.absolute()
    else:
        archive = source if source is not None else _download(version, scratch, progress)
        _check_digest(archive, version)
        tree = _unpack(archive, scratch / "source")
    if not (tree / "src/infinirt/infinirt.cc").is_file():
        raise InfiniCoreError(
            "this is not InfiniCore's source", where=tree, expected="src/infinirt/infinirt.cc in it"
        )
    return tree


def _download(version: str, scratch: Path, progress: Progress) -> Path:
    """Gets the source archive; pip checks its digest before it reads anything from it."""
    progress(f"downloading InfiniCore {version}")
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"infinicore=={version} --hash=sha256:{_SHA256[version]}\n")
    downloads = scratch / "downloads"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "--quiet", "--disable-pip-version-check"]
    command += ["--dest", str(downloads), "--requirement", str(requirements)]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    archives = sorted(downloads.glob("*.tar.gz")) if downloads.is_dir() else []
    if result.returncode != 0 or not archives:
        raise InfiniCoreError(
            f"pip could not download InfiniCore {version}",
            got=_BENEATH.join(_tail(result.stderr, 8).splitlines()),
            hint="check pip's index and proxy settings, or get the source archive "
            f"infinicore-{version}.tar.gz elsewhere and pass it as the source",
        )
    return archives[0]


def _check_digest(archive: Path, version: str) -> None:
    try:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise InfiniCoreError(f"cannot read the source archive: {error}", where=archive) from error
    if digest != _SHA256[version]:
        raise InfiniCoreError(
            f"this is not the source archive of InfiniCore {version}",
            where=archive,
            got=f"sha256 {digest}",
            expected=f"sha256 {_SHA256[version]}",
        )


def _unpack(archive: Path, target: Path) -> Path:
    """Unpacks plain files and folders that stay below one top folder; returns that folder."""
    with tarfile.open(archive, "r:gz") as tar:
        members = tar.getmembers()
        tops = {PurePosixPath(member.name).parts[:1] for member in members}
        for member in members:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                raise InfiniCoreError("unsafe entry in an archive", where=archive, got=member.name)
        if len(tops) != 1 or sum(member.size for member in members) > _MAX_UNPACKED_BYTES:
            raise InfiniCoreError("not a source distribution", where=archive)
        for member in members:
            path = target / member.name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                path.write_bytes(content.read())
    return target / tops.pop()[0]


def _build(tree: Path, scratch: Path) -> Path:
    """Compiles and installs the CPU part below ``scratch``; returns the INFINI_ROOT made."""
    built, build = scratch / "root", scratch / "build"
    bin_dirs = {"cmake": Path(cmake.CMAKE_BIN_DIR), "ninja": Path(ninja.BIN_DIR)}
    tools = {name: _tool(folder, name) for name, folder in bin_dirs.items()}
    configure = [tools["cmake"], "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}"]
    configure += ["-S", str(cpp_dir() / "infinicore/registry"), "-B", str(build)]
    configure += [f"-DINFINICORE_SOURCE={tree}", f"-DCMAKE_INSTALL_PREFIX={built}"]
    _run([*configure, "-DCMAKE_BUILD_TYPE=Release"])
    _run([tools["ninja"], "-C", str(build), "install"])
    shutil.rmtree(build)
    return built


def _tool(folder: Path, name: str) -> str:
    """Returns the tool that came as a package, else the system's."""
    packaged = folder / name
    return str(packaged) if packaged.is_file() else shutil.which(name) or name


def _run(command: list[str]) -> None:
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        raise InfiniCoreError(
            "InfiniCore did not compile",
            got=f"exit code {result.returncode} of {Path(command[0]).name}\n{_tail(result.stdout)}",
            hint="a C++17 compiler with OpenMP is needed (Debian: apt install g++)",
        )


def _tail(output: str, lines: int = 30) -> str:
    return "\n".join(f"    {line}" for line in output.splitlines()[-lines:])
