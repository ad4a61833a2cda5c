"""Rotary frequency tables, computed as transformers computes them: in float32, step by step.

Formulas: transformers ``modeling_rope_utils`` (default, linear, yarn, llama3, longrope), with the
order of its float32 operations kept, since positions multiply the last bits of a frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwen3_codegen.spec.float32_power import power
from qwen3_codegen.spec.model import RopeTable

__all__ = ["ROPE_KEYS", "ROPE_TYPES", "RopeKeys", "rope_table"]

_F32: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RopeKeys:
    """The parameters of a rope type besides rope_type, rope_theta and partial_rotary_factor."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


ROPE_KEYS: dict[str, RopeKeys] = {
    "default": RopeKeys(),
    "linear": RopeKeys(required=("factor",)),
    "yarn": RopeKeys(
        required=("factor",),
        optional=(
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
    ),
    "llama3": RopeKeys(
        required=("factor", "low_freq_factor", "high_freq_factor"),
        optional=("original_max_position_embeddings",),
    ),
    "longrope": RopeKeys(
        required=("short_factor", "long_factor"),
        optional=("original_max_position_embeddings", "factor", "attention_factor"),
    ),
}
"""Keys by rope type."""
ROPE_TYPES = tuple(ROPE_KEYS)


def rope_table(
    name: str,
    parameters: Mapping[str, Any],
    *,
    rotary_dim: int,
    max_position_embeddings: int,
    interleaved: bool = False,
) -> RopeTable:
    """Computes a table.

    Args:
        name: The table's name.
        parameters: Checked rope parameters under transformers' names; holds ``rope_type``,
            ``rope_theta`` and, for scaled types, ``original_max_position_embeddings``.
        rotary_dim: Rotated elements of a head, even.
        max_position_embeddings: Of the model; longrope's factor when none is given.
        interleaved: Which elements form a pair.
    """
    compute, threshold = _TYPES[parameters["rope_type"]], None
    short, long, attention_factor = compute(parameters, rotary_dim, max_position_embeddings)
    if long is not None:
        threshold = int(parameters["original_max_position_embeddings"])
    return RopeTable(
        name=name,
        rotary_dim=rotary_dim,
        interleaved=interleaved,
        inv_freq=tuple(short.tolist()),
        attention_factor=attention_factor,
        long_inv_freq=None if long is None else tuple(long.tolist()),
        long_threshold=threshold,
        parameters=tuple(sorted(parameters.items())),
    )


_Frequencies: TypeAlias = tuple[_F32, "_F32 | None", float]
_Compute: TypeAlias = Callable[[Mapping[str, Any], int, int], _Frequencies]


def _powers(parameters: Mapping[str, Any], dim: int) -> _F32:
    """``theta ** (2i / dim)``, [dim / 2]."""
    exponents = np.arange(0, dim, 2).astype(np.float32) / np.float32(dim)
    return power(parameters["rope_theta"], exponents)


def _reciprocal(values: _F32, numerator: float = 1.0) -> _F32:
    """``numerator / values`` as torch computes it: the reciprocal first, then the product."""
    quotients: _F32 = (np.float32(1) / values) * np.float32(numerator)
    return quotients


def _default(parameters: Mapping[str, Any], dim: int, _: int) -> _Frequencies:
    return _reciprocal(_powers(parameters, dim)), None, 1.0


def _linear(parameters: Mapping[str, Any], dim: int, _: int) -> _Frequencies:
    inv_freq = _reciprocal(_powers(parameters, dim))
    return inv_freq / np.float32(parameters["factor"]), None, 1.0


def _llama3(parameters: Mapping[str, Any], dim: int, _: int) -> _Frequencies:
    inv_freq = _reciprocal(_powers(parameters, dim))
    factor = np.float32(parameters["factor"])
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    old_length = parameters["original_max_position_embeddings"]
    low_wavelength, high_wavelength = np.float32(old_length / low), np.float32(old_length / high)
    wavelength = _reciprocal(inv_freq, 2 * math.pi)
    scaled = np.where(wavelength > low_wavelength, inv_freq / factor, inv_freq)
    smooth = (_reciprocal(wavelength, old_length) - np.float32(low)) / np.float32(high - low)
    smoothed = (np.float32(1) - smooth) * scaled / factor + smooth * scaled
    medium = ~(wavelength < high_wavelength) & ~(wavelength > low_wavelength)
    return np.where(medium, smoothed, scaled), None, 1.0


def _yarn(parameters: Mapping[str, Any], dim: int, _: int) -> _Frequencies:
    factor = parameters["factor"]
    powers = _powers(parameters, dim)
    extrapolated = _reciprocal(powers)
    interpolated = _reciprocal(np.float32(factor) * powers)
    low, high = _yarn_range(parameters, dim)
    if low == high:
        high += 0.001
    steps = (np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = np.float32(1) - np.clip(steps, np.float32(0), np.float32(1))
    inv_freq = interpolated * (np.float32(1) - kept) + extrapolated * kept
    return inv_freq, None, _yarn_attention_factor(parameters)


def _yarn_range(parameters: Mapping[str, Any], dim: int) -> tuple[float, float]:
    """First and last dimension of the ramp between extrapolation and interpolation."""

    def correction(rotations: float) -> float:
        length = parameters["original_max_position_embeddings"]
        turns = math.log(length / (rotations * 2 * math.pi))
        return (dim * turns) / (2 * math.log(parameters["rope_theta"]))

    low = correction(parameters.get("beta_fast", 32))
    high = correction(parameters.get("beta_slow", 1))
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, dim - 1)


def _yarn_attention_factor(parameters: Mapping[str, Any]) -> float:
    given = parameters.get("attention_factor")
    if given is not None:
        return float(given)

    def mscale(weight: float) -> float:
        scale = parameters["factor"]
        return 1.0 if scale <= 1 else 0.1 * weight * math.log(scale) + 1.0

    numerator, denominator = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if numerator and denominator:
        return mscale(numerator) / mscale(denominator)
    return mscale(1)


def _longrope(
    parameters: Mapping[str, Any], dim: int, max_position_embeddings: int
) -> _Frequencies:
    original = parameters["original_max_position_embeddings"]
    factor = parameters.get("factor")
    if factor is None:
        factor = max_position_embeddings / original
    attention_factor = parameters.get("attention_factor")
    if attention_factor is None:
        attention_factor = (
            1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
        )
    powers = _powers(parameters, dim)
    short, long = (
        _reciprocal(np.array(parameters[key], dtype=np.float32) * powers)
        for key in ("short_factor", "long_factor")
    )
    return short, long, float(attention_factor)


_TYPES: dict[str, _Compute] = {
    "default": _default,
    "linear": _linear,
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
}
