"""Python itself, its headers, and the packages that qwen3-codegen asks for."""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from qwen3_codegen.doctor.finding import Finding, missing, note, ok

DISTRIBUTION = "qwen3-codegen"
_OLDEST = (3, 10)


def python_findings() -> Iterator[Finding]:
    """Yields the interpreter, its C headers and the packages."""
    running = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info >= _OLDEST:
        yield ok("Python", running)
    else:
        oldest = ".".join(map(str, _OLDEST))
        yield missing(
            "Python", running, f"make a virtual environment with Python {oldest} or newer"
        )
    yield header_finding(Path(sysconfig.get_path("include")))
    try:
        requirements = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield note("packages", f"{DISTRIBUTION} itself is not installed", "pip install .")
        return
    yield from package_findings(requirements)


def header_finding(include_dir: Path) -> Finding:
    """Looks for Python's C header, without which no module compiles."""
    header = include_dir / "Python.h"
    if header.is_file():
        return ok("Python.h", str(header))
    return missing(
        "Python.h",
        f"not in {include_dir}",
        "install Python's headers (Debian: apt install python3-dev)",
    )


def package_findings(requirements: Iterable[str]) -> Iterator[Finding]:
    """Yields the packages that are absent or too old or new; one line when there is none.

    Args:
        requirements: As a distribution's metadata gives them; those of extras do not count.
    """
    wanted = [Requirement(text) for text in requirements]
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]
    faults = [fault for need in wanted if (fault := _package_fault(need)) is not None]
    yield from faults
    if not faults:
        yield ok("packages", f"all {len(wanted)} that {DISTRIBUTION} asks for")


def _package_fault(need: Requirement) -> Finding | None:
    mend = f"pip install '{need.name}{need.specifier}'"
    try:
        found = version(need.name)
    except PackageNotFoundError:
        return missing(f"package {need.name}", "not installed", mend)
    if need.specifier.contains(found, prereleases=True):
        return None
    return missing(f"package {need.name}", f"{found}, wanted {need.specifier}", mend)
