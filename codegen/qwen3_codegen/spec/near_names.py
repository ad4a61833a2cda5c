"""The shipped model someone means who mistook its size: ``qwen3-1.5b`` is near ``qwen3-1.7b``."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["nearest_model", "nearest_name"]

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
_SAME_FAMILY = 0.8
"""Least similarity of what stands before the size."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """A model's name, taken apart."""

    family: str
    """What stands before the size."""
    billions: float
    rest: str


def nearest_model(reference: str, candidates: Iterable[str]) -> str | None:
    """Returns a hint naming the spec nearest to a name or hub id, None when none is near."""
    organisation, slash, name = reference.rpartition("/")
    found = nearest_name(name, candidates)
    if found is None:
        return None
    if not slash:
        return f"did you mean '{found}'?"
    if name.lower() == found:
        return f"its spec here is {found}"
    written = _as_written(name, found)
    if written is None:
        return f"the nearest model with a spec here is {found}"
    return f"did you mean '{organisation}/{written}'? Its spec here is {found}"


def _as_written(name: str, found: str) -> str | None:
    """``Qwen3-1.5B`` and ``qwen3-1.7b`` give ``Qwen3-1.7B``; None where more differs than sizes."""
    wanted, there = _SIZE.search(name.lower()), _SIZE.search(found)
    if wanted is None or there is None or there.end() != len(found):
        return None
    family = name[: wanted.start()]
    return family + there[0].upper() if family.lower() == found[: there.start()] else None


def nearest_name(name: str, candidates: Iterable[str]) -> str | None:
    """Returns the nearest of some model names.

    Of one family, that with the nearest number of parameters, as a ratio; among equals the one
    most alike in letters. Without a number in the name, letters alone count.
    """
    known = list(candidates)
    wanted = _parts(name)
    related = []
    for candidate in known:
        parts = _parts(candidate)
        if wanted is not None and parts is not None and _alike(wanted.family, parts.family):
            ratio = abs(math.log(wanted.billions / parts.billions))
            related.append((ratio, -_similarity(wanted.rest, parts.rest), candidate))
    if related:
        return min(related)[2]
    matches = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def _parts(name: str) -> _Parts | None:
    match = _SIZE.search(name.lower())
    if match is None or float(match[1]) == 0.0:
        return None
    billions = float(match[1]) * (1.0 if match[2] == "b" else 1e-3)
    lowered = name.lower()
    return _Parts(lowered[: match.start()].strip("-_ "), billions, lowered[match.end() :])


def _alike(a: str, b: str) -> bool:
    return _similarity(a, b) >= _SAME_FAMILY


def _similarity(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()
