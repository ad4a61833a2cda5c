"""The paths that kernels take, for tests to run on every one of them that the machine has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qwen3_codegen.build.toolchain import host_features, instruction_set
from qwen3_codegen.errors import BuildError

NAMES = ("portable", "avx2", "avx512")
"""From the narrowest vectors to the widest; ``avx512-bf16`` is another one in bfloat16 alone."""


def why_not(name: str) -> str | None:
    """Why this machine cannot run a path; None where it can."""
    try:
        wanted = instruction_set(name).features
    except BuildError:
        return f"{name} belongs to another architecture"
    missing = sorted(set(wanted) - set(host_features(wanted)))
    return f"this CPU lacks {', '.join(missing)}, so {name} cannot run" if missing else None


def best() -> str:
    """The path that ``--isa native`` takes in float32."""
    return [name for name in NAMES if why_not(name) is None][-1]


def on(name: str, *values: object, marks: Sequence[pytest.MarkDecorator] = ()):
    """Parameters of a test on a path; skipped, with the reason, where the machine lacks it."""
    reason = why_not(name)
    # An illegal instruction would end the worker; the summary (-ra) lists what was skipped and why.
    skip = [pytest.mark.skip(reason=reason)] if reason else []
    return pytest.param(name, *values, marks=[*marks, *skip])


every_instruction_set = pytest.mark.parametrize("isa", [on(name) for name in NAMES])
