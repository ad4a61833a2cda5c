"""How far an engine may be off: every limit, with its reason.

Limits are data. A format with its own rounding (int8, int4) is one more entry of ``UNIT`` and,
where it reaches further than a rounding, one more row; no comparison knows a dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.ops import OPS

__all__ = [
    "COSINE",
    "GREEDY_BOUNDS",
    "OP_LIMITS",
    "OWN_ERROR_FACTOR",
    "RELATIVE_BOUND",
    "UNIT",
    "OpLimit",
    "cosine_limit",
    "op_limit",
    "value_limit",
]

UNIT: Mapping[DType, float] = {DType.F32: 2.0**-24, DType.BF16: 2.0**-8, DType.F16: 2.0**-11}
"""Unit round-off: rounding to nearest changes a number by at most this share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpLimit:
    """What one op may be off by, relative to the largest element of a row.

    Inputs are the engine's own, so only what happens inside the op counts.
    """

    roundings: float
    """Roundings to the engine's dtype."""
    float32: float = 0.0
    """Roundings to float32 beneath them."""
    per_root_term: float = 0.0
    """Float32 roundings per square root of the terms of the longest sum: errors of a sum in any
    order grow like a random walk."""
    portable_roundings: float | None = None
    """Where the portable lowering rounds more often."""
    reason: str


_EXACT = OpLimit(roundings=0, reason="moves numbers and computes nothing")
_ELEMENTWISE = OpLimit(
    roundings=2,
    float32=8,
    portable_roundings=8,
    reason="float32, rounded once; the portable lowering composes it of several operators",
)

OP_LIMITS: Mapping[str, OpLimit] = {
    "embedding": _EXACT,
    "reshape": _EXACT,
    "split": _EXACT,
    "concat": _EXACT,
    "gather_rows": _EXACT,
    "linear": OpLimit(
        roundings=2,
        float32=8,
        per_root_term=2,
        reason="a sum in float32 in some order, rounded once; a bias may be added after that",
    ),
    "rms_norm": OpLimit(
        roundings=2,
        float32=12,
        per_root_term=0.5,
        reason="a mean of squares in float32, a root and a product, rounded once",
    ),
    "layer_norm": OpLimit(
        roundings=2, float32=24, per_root_term=0.5, reason="as rms_norm, centred first"
    ),
    "l2_norm": OpLimit(roundings=2, float32=12, per_root_term=0.5, reason="as rms_norm"),
    "rope": OpLimit(
        roundings=2,
        float32=8,
        portable_roundings=3,
        reason="two products and a sum in float32, rounded once; tables may be in half precision",
    ),
    "attention": OpLimit(
        roundings=4,
        float32=512,
        portable_roundings=40,
        reason="the exponential turns the absolute error of a score into a relative one, so it "
        "counts as often as scores are large; the portable lowering stores scores in the dtype",
    ),
    "rotary_attention": OpLimit(
        roundings=40,
        float32=768,
        reason="as attention; queries and keys are rounded after their norm and rotation, which "
        "moves scores likewise",
    ),
    "swiglu": _ELEMENTWISE,
    "moe": OpLimit(
        roundings=4, float32=64, per_root_term=4, reason="three products and a weighted sum"
    ),
    "causal_conv1d": OpLimit(roundings=2, float32=32, reason="a short sum and an activation"),
    "gated_delta_net": OpLimit(
        roundings=4, float32=2048, reason="a state that is updated once per token"
    ),
}
"""Rows by op; elementwise ops have one in common."""

_OWN = OpLimit(
    roundings=4,
    float32=64,
    per_root_term=4,
    reason="an op of the user's own may hold a sum, differences and a few roundings",
)


def op_limit(op: str, dtype: DType, lowering: str, num_terms: int) -> float:
    """Returns the limit of one op on ``max_rel``.

    Args:
        op: Name in the op table.
        dtype: What its result is stored in.
        lowering: ``portable`` or ``native``.
        num_terms: Terms of its longest sum.
    """
    row = OP_LIMITS.get(op, _ELEMENTWISE if op in OPS else _OWN)
    roundings = row.roundings
    if lowering == "portable" and row.portable_roundings is not None:
        roundings = row.portable_roundings
    beneath = row.float32 + row.per_root_term * math.sqrt(num_terms)
    stored = 0.0 if dtype is DType.F32 else roundings * UNIT[dtype]
    inner = beneath if dtype is not DType.F32 else beneath + roundings
    return stored + inner * UNIT[DType.F32]


RELATIVE_BOUND = 2e-5
"""A float32 logit may be off by this much of the largest one (at least 1): what two float32
implementations that sum in different orders differ by on the hard models of ``tests/reference``."""

OWN_ERROR_FACTOR = 1.5
"""In half precision an engine's mean |difference| from the float32 reference may be this many times
that of the reference's own model in that dtype: nobody can ask for less than rounding costs."""

COSINE: Mapping[str, float] = {"native": 0.9995, "portable": 0.999}
"""Least cosine of half-precision logits; portable engines round attention scores, too. Less is
allowed only where the reference's own model in that dtype has less."""

GREEDY_BOUNDS = 2.0
"""A greedy token may be another one where the reference's two best are nearer than this many
bounds: each of the two logits may be off by one."""


def cosine_limit(lowering: str, own: float | None) -> float:
    """Returns the least cosine of half-precision logits.

    Args:
        lowering: ``portable`` or ``native``.
        own: That of the reference's own model in that dtype, where there is one. A model that
            magnifies errors costs it more than the usual; of small errors, ``1 - cosine`` is half
            the square.
    """
    least = COSINE[lowering]
    return least if own is None else min(least, 1 - OWN_ERROR_FACTOR**2 * (1 - own))


def value_limit(dtype: DType, scale: float, own_error: float | None) -> tuple[str, float]:
    """Returns which number of a value inside the model is bounded, and by what.

    Unlike an op's, its inputs are off already by what came before.

    Args:
        dtype: The engine's.
        scale: Mean magnitude of the value (half precision), or its largest one (float32).
        own_error: Mean |difference| of the reference's own model in that dtype, where there is one.
    """
    if dtype is DType.F32:
        return "max_abs", RELATIVE_BOUND * scale
    floor = 2 * UNIT[dtype] * scale
    if own_error is None:
        return "mean_abs", 16 * UNIT[dtype] * scale
    return "mean_abs", max(OWN_ERROR_FACTOR * own_error, floor)
