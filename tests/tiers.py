"""Which tests every run has, and which only `make exhaustive`.

A property that is shown on some hard models is shown again on all of them, or on every instruction
set, by the exhaustive tests; each is one more engine to compile.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.reference.cases import ReferenceCase

__all__ = ["REPRESENTATIVES", "exhaustive_beyond"]

REPRESENTATIVES = frozenset(
    {
        "qwen3-window-8",
        "qwen3-gqa-7x2",
        "qwen3-linear",
        "qwen3-moe-mixed",
        "llama-both-biases",
        "llama-llama3",
        "qwen2-tied",
        "jiuge-longrope",
        "granite",
        "olmo2",
        "gemma3",
        "gemma3-softcap",
        "phi3-longrope-long",
    }
)
"""Ids of cases: at least one of every architecture, of every shape of cache and of rotation."""


def exhaustive_beyond(
    always: frozenset[str], cases: Iterable[ReferenceCase | str], *values: object
):
    """Returns cases as parameters, before ``values``; those not of ``always`` are exhaustive."""
    return [
        pytest.param(
            case,
            *values,
            marks=() if str(case) in always else pytest.mark.exhaustive,
            id="-".join(map(str, (case, *values))),
        )
        for case in cases
    ]
