"""How far two arrays lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Measurement", "measure", "worst"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Distances of one array from what it should be; infinite where a number is not finite."""

    max_abs: float
    """Largest |difference|."""
    max_rel: float
    """Largest |difference| in units of the largest |expected| of its row; a row is everything
    along the last dimension (a token's hidden state, one head)."""
    mean_abs: float
    cosine: float
    """Of all elements as one vector; 1 where both are zero."""
    scale: float
    """Largest |expected|."""


def measure(actual: Array, expected: Array) -> Measurement:
    """Measures ``actual`` against ``expected`` of the same shape, in float64."""
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    if not actual.size:
        return Measurement(max_abs=0.0, max_rel=0.0, mean_abs=0.0, cosine=1.0, scale=0.0)
    with np.errstate(invalid="ignore"):  # a signalling NaN, cast
        rows, right = (_rows(array) for array in (actual, expected))
    scales = np.abs(right).max(axis=1)
    scale = float(scales.max())
    if not np.isfinite(rows).all() or not math.isfinite(scale):
        return Measurement(
            max_abs=math.inf, max_rel=math.inf, mean_abs=math.inf, cosine=0.0, scale=scale
        )
    difference = np.abs(rows - right)
    off = difference.max(axis=1)
    with np.errstate(over="ignore"):
        share = off / np.where(scales == 0, np.finfo(float).tiny, scales)
    return Measurement(
        max_abs=float(off.max()),
        max_rel=float(np.where(off == 0, 0.0, share).max()),
        mean_abs=float(difference.mean()),
        cosine=_cosine(rows, right),
        scale=scale,
    )


def worst(measurements: Iterable[Measurement]) -> Measurement:
    """Returns the worst of every number, of several parts of one value."""
    parts: Sequence[Measurement] = list(measurements)
    return Measurement(
        max_abs=max(part.max_abs for part in parts),
        max_rel=max(part.max_rel for part in parts),
        mean_abs=max(part.mean_abs for part in parts),
        cosine=min(part.cosine for part in parts),
        scale=max(part.scale for part in parts),
    )


def _rows(array: Array) -> npt.NDArray[np.float64]:
    wide = array.astype(np.float64, copy=False)
    return wide.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)


def _cosine(left: Array, right: Array) -> float:
    norms = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    if norms == 0:
        return 1.0 if not left.any() and not right.any() else 0.0
    return float(np.vdot(left, right)) / norms
