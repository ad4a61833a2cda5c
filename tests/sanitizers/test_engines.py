"""Whole engines under sanitizers: memory, undefined behaviour, races, leaks, hostile batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sanitizers.engines import ADDRESS, THREAD, Sanitizer, emitted

pytestmark = pytest.mark.compile

LOWERINGS = ("native", "portable")
Build = Callable[[Sanitizer, str], Path]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Callable[[Sanitizer], Path]:
    made: dict[Sanitizer, Path] = {}

    def get(sanitizer: Sanitizer) -> Path:
        if sanitizer.name not in made:
            made[sanitizer.name] = sanitizer.program(tmp_path_factory.mktemp(sanitizer.name))
        return made[sanitizer.name]

    return get


@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD], ids=lambda sanitizer: sanitizer.name)
def test_engines_beside_each_other(sanitizer, program, tmp_path):
    """A native and a portable engine in one process, several of each at once."""
    libraries = [sanitizer.engine(tmp_path / kind, emitted(kind)) for kind in LOWERINGS]
    result = sanitizer.run(program(sanitizer), *libraries)
    assert result.returncode == 0, result.stderr[-6000:]
    assert result.stdout == "ok\n"


STEP = "  begin_step(batch);\n"
FAULTS = {
    "heap-buffer-overflow": (
        ADDRESS,
        "batch_->logit_rows.data + first_row);",
        "batch_->logit_rows.data + first_row + 1);",
        "heap-buffer-overflow",
    ),
    "use-after-free": (
        ADDRESS,
        STEP,
        f"{STEP}  auto* old = new float[3]; delete[] old; logits[0] = old[num_tokens_ % 2];\n",
        "heap-use-after-free",
    ),
    "leak": (
        ADDRESS,
        STEP,
        f"{STEP}  static_cast<volatile float*>(new float[3])[1] = 0;\n",
        "LeakSanitizer: detected memory leaks",
    ),
    "shift": (
        ADDRESS,
        STEP,
        f"{STEP}  logits[0] = static_cast<float>(1 << (31 + num_tokens_));\n",
        "shift exponent",
    ),
    "race": (
        THREAD,
        STEP,
        f"{STEP}  static int steps = 0;\n  logits[0] = static_cast<float>(++steps);\n",
        "ThreadSanitizer: data race",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_put_into_an_engine_is_seen(fault, program, tmp_path):
    sanitizer, text, replacement, seen = FAULTS[fault]
    files = emitted("native")
    assert files["engine.cpp"].count(text) == 1
    files["engine.cpp"] = files["engine.cpp"].replace(text, replacement)
    result = sanitizer.run(program(sanitizer), sanitizer.engine(tmp_path, files))
    assert result.returncode != 0
    assert seen in result.stderr
