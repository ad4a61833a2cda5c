"""Where the data files of the compiler lie and where it may keep results.

Templates, model specs and C++ sources are shipped inside the package (`_share/`) by a wheel and lie
beside it in a checkout; each function looks in that order.
"""

from __future__ import annotations

import os
from pathlib import Path

from qwen3_codegen.errors import BuildError, CodegenError

__all__ = ["cache_dir", "check_build_folder", "cpp_dir", "modelspecs_dir", "templates_dir"]

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent
_UNUSABLE = frozenset(';"\\|\n\r')
"""In paths: CMake ends list elements and strings at some, ninja its lists of files at others."""


def cache_dir() -> Path:
    """Returns the folder for built engines and installed libraries; it need not exist yet.

    `$QWEN3_CODEGEN_CACHE`, else `$XDG_CACHE_HOME/qwen3-codegen`, else `~/.cache/qwen3-codegen`.
    """
    chosen = os.environ.get("QWEN3_CODEGEN_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base).expanduser() if base else Path.home() / ".cache"
    return root.absolute() / "qwen3-codegen"


def check_build_folder(folder: Path) -> None:
    """Refuses a folder that CMake or ninja would take for several, or for no text at all.

    Raises:
        BuildError: Its path holds such a character.
    """
    found = sorted(_UNUSABLE.intersection(str(folder)))
    if found:
        raise BuildError(
            "CMake and ninja cannot work in a folder of this name",
            got=repr(str(folder)),
            expected=f"a path without {' '.join(map(repr, found))}",
            hint="for the cache, QWEN3_CODEGEN_CACHE chooses another folder",
        )


def templates_dir() -> Path:
    """Returns the folder of the Jinja templates."""
    return _shared("templates", _CHECKOUT / "templates")


def modelspecs_dir() -> Path:
    """Returns the folder of the shipped specs and of InfiniCore's API."""
    return _shared("modelspecs", _CHECKOUT / "modelspecs")


def cpp_dir() -> Path:
    """Returns the folder of the C++ kernels, the embedded InfiniCore and the engine base."""
    return _shared("cpp", _CHECKOUT / "runtime" / "cpp")


def _shared(name: str, in_checkout: Path) -> Path:
    packaged = _PACKAGE / "_share" / name
    for candidate in (packaged, in_checkout):
        if candidate.is_dir():
            return candidate
    raise CodegenError(
        f"the folder '{name}' that belongs to qwen3-codegen is missing",
        got=f"neither {packaged} nor {in_checkout} exists",
        hint="install the package again",
    )
