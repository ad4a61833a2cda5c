"""The distribution that compiler and runtime come in, and the version that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["DISTRIBUTION", "distribution_version"]

DISTRIBUTION = "qwen3-codegen"


def distribution_version() -> str | None:
    """Returns the installed version, None where the sources run without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None
