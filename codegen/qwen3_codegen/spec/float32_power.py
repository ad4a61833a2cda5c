"""``base ** exponent`` in float32 with the bits torch gives on an x86-64 CPU.

Rope tables are powers, and a position multiplies the last bit of a frequency: one unit there is
already visible in the logits at a position of a few thousand. torch computes float32 powers with
SLEEF's vector ``powf`` (error up to one unit) on whole vectors and with the C library on the rest,
so the nearest float32 alone is not what a checkpoint's reference ran with.

Source of the algorithm and its constants: Shibata and Petrogalli, "SLEEF: A Portable Vectorized
Library of C Standard Mathematical Functions", 2020; ``pow = exp(exponent * log(base))`` in pairs
of float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["power"]

_F32: TypeAlias = npt.NDArray[np.float32]

_VECTOR = 32
"""Elements torch's loop takes at once: two AVX-512 vectors. AVX2's 16 differ only for tables whose
length leaves 16 or more over."""

_LOG_TERMS = (0.24032035470008850098, 0.28511267900466918945, 0.40000799298286437988)
_LOG_CUBE = (0.66666662693023681641, 3.6918386125961433208e-09)
_LN2 = (0.69314718246459960938, -1.904654323148236017e-09)
_LN2_STEPS = (0.693145751953125, 1.428606765330187045e-06)
_EXP_TERMS = (
    0.0013632464688271082,
    0.008365969173610210,
    0.041671082377433777,
    0.16666552424430847,
    0.49999985098838806,
)


class _Pair(NamedTuple):
    """An unevaluated sum of two float32, the second far below the first."""

    high: _F32
    low: _F32


def power(base: float, exponents: _F32) -> _F32:
    """Returns ``base ** exponents``.

    Args:
        base: At least 1; rounded to float32 first, as torch does with a Python number.
        exponents: [n], each from 0 to 1.
    """
    whole = len(exponents) - len(exponents) % _VECTOR
    rest = [math.pow(float(np.float32(base)), float(value)) for value in exponents[whole:]]
    head = exponents[:whole]
    logarithm = _log(np.full_like(head, base))
    return np.concatenate([_exp(_times(logarithm, head)), np.array(rest, dtype=np.float32)])


def _fma(a: _F32, b: _F32, c: _F32) -> _F32:
    """``a * b + c``, rounded once; the product is exact in float64."""
    wide: npt.NDArray[np.float64] = a.astype(np.float64) * b + c
    return wide.astype(np.float32)


def _constant(like: _F32, value: float) -> _F32:
    return np.full_like(like, value)


def _polynomial(x: _F32, terms: tuple[float, ...]) -> _F32:
    result = _constant(x, terms[0])
    for term in terms[1:]:
        result = _fma(result, x, _constant(x, term))
    return result


def _sum(a: _F32, b: _F32) -> _Pair:
    high = a + b
    part = high - a
    return _Pair(high, (a - (high - part)) + (b - part))


def _add(a: _Pair, b: _Pair) -> _Pair:
    high, low = _sum(a.high, b.high)
    return _Pair(high, low + (a.low + b.low))


def _add_ordered(a: _Pair, b: _Pair) -> _Pair:
    """Sum where ``a`` is the larger one."""
    high = a.high + b.high
    return _Pair(high, ((a.high - high) + b.high) + a.low + b.low)


def _multiply(a: _Pair, b: _Pair) -> _Pair:
    high = a.high * b.high
    low = _fma(a.high, b.low, _fma(a.low, b.high, _fma(a.high, b.high, -high)))
    return _Pair(high, low)


def _times(a: _Pair, b: _F32) -> _Pair:
    high = a.high * b
    return _Pair(high, _fma(a.low, b, _fma(a.high, b, -high)))


def _square(a: _Pair) -> _Pair:
    high = a.high * a.high
    return _Pair(high, _fma(a.high + a.high, a.low, _fma(a.high, a.high, -high)))


def _divide(a: _Pair, b: _Pair) -> _Pair:
    inverse = np.float32(1) / b.high
    high = a.high * inverse
    error = _fma(inverse, a.high, -high)
    slope = _fma(-b.low, inverse, _fma(-b.high, inverse, _constant(high, 1)))
    return _Pair(high, _fma(high, slope, _fma(a.low, inverse, error)))


def _log(x: _F32) -> _Pair:
    _, exponent = np.frexp(x * np.float32(1 / 0.75))
    exponent = exponent - 1
    mantissa = np.ldexp(x, -exponent)
    one = _constant(mantissa, 1)
    ratio = _divide(_sum(-one, mantissa), _sum(one, mantissa))
    square = _square(ratio)
    tail = _polynomial(square.high, _LOG_TERMS)
    cube = _Pair(*(_constant(one, value) for value in _LOG_CUBE))
    result = _times(_Pair(*(_constant(one, value) for value in _LN2)), exponent.astype(np.float32))
    result = _add_ordered(result, _Pair(ratio.high + ratio.high, ratio.low + ratio.low))
    series = _add(_times(square, tail), cube)
    return _add_ordered(result, _multiply(_multiply(square, ratio), series))


def _exp(x: _Pair) -> _F32:
    steps = np.rint((x.high + x.low) * np.float32(1 / math.log(2)))
    for step in _LN2_STEPS:
        high, low = _sum(x.high, steps * np.float32(-step))
        x = _Pair(high, low + x.low)
    high = x.high + x.low
    x = _Pair(high, (x.high - high) + x.low)
    tail = _polynomial(x.high, _EXP_TERMS)
    x = _add_ordered(x, _times(_square(x), tail))
    total = np.float32(1) + x.high
    low = ((np.float32(1) - total) + x.high) + x.low
    powers: _F32 = np.ldexp(total + low, steps.astype(np.int32))
    return powers
