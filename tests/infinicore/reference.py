"""What the operators compute, in float64, and how far a correct library may be away."""

from __future__ import annotations

import numpy as np

EPSILON = {"f64": 2.0**-53, "f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of one rounding."""

SMALLEST = {"f64": 0.0, "f32": 2.0**-149, "f16": 2.0**-24, "bf16": 2.0**-133}
"""Distance of the subnormals: half of it is the rounding error near zero."""


def wide(array: np.ndarray) -> np.ndarray:
    """Returns an array as float64."""
    return np.asarray(array).astype(np.float64)


def rounding(value: np.ndarray, dtype: str, roundings: float | np.ndarray = 1.0) -> np.ndarray:
    """Returns the error that so many roundings to a type may leave in a value."""
    return roundings * (np.abs(value) * EPSILON[dtype] + SMALLEST[dtype] / 2)


def assert_within(got: np.ndarray, expected: np.ndarray, limit: np.ndarray, what: str = "") -> None:
    """Checks |got - expected| <= limit element by element; NaNs and infinities must agree."""
    got = wide(got)
    expected = wide(expected)
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite], err_msg=what)
    excess = np.where(finite, np.abs(got - expected) - np.broadcast_to(limit, got.shape), -1.0)
    if excess.size and not excess.max() <= 0:
        at = np.unravel_index(np.argmax(excess), got.shape)
        raise AssertionError(
            f"{what} at {tuple(map(int, at))}: got {got[at]!r}, expected {expected[at]!r}, "
            f"limit {np.broadcast_to(limit, got.shape)[at]!r}"
        )


def gemm(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, alpha: float, beta: float, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns alpha * a @ b + beta * c and the error a float32 sum may have."""
    wide_a, wide_b = wide(a), wide(b)
    result = alpha * (wide_a @ wide_b)
    magnitude = abs(alpha) * (np.abs(wide_a) @ np.abs(wide_b))
    if beta != 0:
        result = result + beta * wide(c)
        magnitude = magnitude + np.abs(beta * wide(c))
    # Partial sums over lanes and chunks: the error grows with the square root, not with K.
    steps = 4 + np.sqrt(a.shape[-1])
    return result, magnitude * EPSILON["f32"] * steps + rounding(result, dtype)


def rms_norm(x: np.ndarray, w: np.ndarray, epsilon: float) -> np.ndarray:
    wide_x = wide(x)
    mean = np.mean(wide_x * wide_x, axis=-1, keepdims=True)
    return wide_x * wide(w) / np.sqrt(mean + np.float64(np.float32(epsilon)))


def rope(
    x: np.ndarray, positions: np.ndarray, sine: np.ndarray, cosine: np.ndarray, interleaved: bool
) -> np.ndarray:
    """Rotates heads; x is [..., seq, heads, head_dim], positions [seq] or [batch, seq]."""
    s = wide(sine)[positions][..., None, :]
    c = wide(cosine)[positions][..., None, :]
    wide_x = wide(x)
    half = wide_x.shape[-1] // 2
    if interleaved:
        x0, x1 = wide_x[..., 0::2], wide_x[..., 1::2]
    else:
        x0, x1 = wide_x[..., :half], wide_x[..., half:]
    y0, y1 = x0 * c - x1 * s, x0 * s + x1 * c
    result = np.empty_like(wide_x)
    if interleaved:
        result[..., 0::2], result[..., 1::2] = y0, y1
    else:
        result[..., :half], result[..., half:] = y0, y1
    return result


def silu(x: np.ndarray) -> np.ndarray:
    wide_x = wide(x)
    with np.errstate(over="ignore"):
        return wide_x / (1.0 + np.exp(-wide_x))


def causal_softmax(x: np.ndarray) -> np.ndarray:
    wide_x = wide(x)
    seq, total = wide_x.shape[-2:]
    hidden = np.arange(total)[None, :] > np.arange(seq)[:, None] + (total - seq)
    scores = np.where(hidden, -np.inf, wide_x)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sample(
    logits: np.ndarray, random_val: float, topp: float, topk: int, temperature: float
) -> set[int]:
    """Returns the indices that may be drawn: one, or two where the limit is on a border."""
    values = wide(logits)
    if random_val == 0 or topp == 0 or topk == 1 or temperature == 0:
        return {int(np.argmax(values))}
    order = np.argsort(-values, kind="stable")
    running = np.cumsum(np.exp((values[order] - values[order[0]]) / temperature))
    kept = min(topk if topk > 0 else len(values), len(values))
    limit = random_val * min(running[kept - 1], topp * running[-1])
    low, high = (np.searchsorted(running, limit * (1 + slack)) for slack in (-1e-5, 1e-5))
    return {int(order[min(i, kept - 1)]) for i in range(low, high + 1)}
