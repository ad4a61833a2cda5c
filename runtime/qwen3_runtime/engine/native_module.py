"""Importing the compiled module of a generated engine, when it fits this machine and its folder."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from qwen3_runtime.engine.manifest import MANIFEST_FILE
from qwen3_runtime.errors import EngineError

BUILD_RECORD = "build.json"
"""What the module was built from; absent where something else than our builder built it."""


def load_native_module(directory: Path) -> ModuleType:
    """Imports the compiled module of an engine; engines of one name in several folders differ.

    Raises:
        EngineError: It was never built, for another Python, for a CPU with other features, from
            other sources than lie beside it, or it was built again after this process loaded it.
    """
    directory = directory.resolve()
    file = directory / f"_engine{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not file.is_file():
        built = sorted(path.name for path in directory.glob("_engine*"))
        raise EngineError(
            "the engine has no compiled module for this Python",
            where=directory,
            got=", ".join(built) or "sources only",
            expected=file.name,
            hint="qwen3-codegen build",
        )
    _check_record(directory)
    name = f"_qwen3_engines.{directory}._engine"
    identity = (file.stat().st_ino, file.stat().st_mtime_ns)
    if name not in sys.modules:
        sys.modules[name] = _import(file)
        sys.modules[name].__dict__["__file_identity__"] = identity
    module = sys.modules[name]
    if module.__dict__["__file_identity__"] != identity:
        raise EngineError(
            "the engine was built again after this process loaded it",
            where=directory,
            hint="start Python anew",
        )
    return module


def _import(file: Path) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("_engine", str(file))
    spec = importlib.util.spec_from_file_location("_engine", file, loader=loader)
    if spec is None:
        raise EngineError("the engine's module cannot be loaded", where=file)
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise EngineError("the engine's module cannot be loaded", where=file, got=error) from None
    return module


def _check_record(directory: Path) -> None:
    file = directory / BUILD_RECORD
    if not file.is_file():
        return
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        features, manifest = set(record["isa"]["features"]), record["manifest_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            "the engine's build record is damaged",
            where=file,
            got=repr(error),
            hint="build the engine again",
        ) from None
    if manifest != hashlib.sha256((directory / MANIFEST_FILE).read_bytes()).hexdigest():
        raise EngineError(
            "the engine's sources are newer than its compiled module",
            where=directory,
            hint="build the engine again",
        )
    _check_cpu(features, directory)


def _check_cpu(wanted: Collection[str], directory: Path) -> None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return
    missing = sorted(set(wanted) - set(text.split()))
    if missing:
        raise EngineError(
            "the engine was compiled for a CPU with other features",
            where=directory,
            got=f"this CPU lacks {', '.join(missing)}",
            hint="build it here, or with --isa portable",
        )
