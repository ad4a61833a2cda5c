"""Checks of one operator against the reference; the embedded and the real library both take them.

`extra` is the number of roundings a library may add to the one that is right: the real one
truncates when it makes binary16 and rounds exponentials to the tensor's type before it sums.
"""

from __future__ import annotations

import numpy as np

from tests.infinicore import reference
from tests.infinicore.abi import DTYPES, Library
from tests.infinicore.reference import EPSILON, assert_within, rounding, wide

SIZES = (1, 19, 111)
FLOATS = ("f32", "bf16", "f16")


def normal(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * scale).astype(DTYPES[dtype])


def extra_of(library: Library, dtype: str) -> float:
    """Returns how many roundings more than one to allow a library that is not ours."""
    is_ours = hasattr(library.op, "qwen3_infinicore_num_threads")
    return 0.0 if is_ours or dtype != "f16" else 1.0


def gemm_layouts(m: int, k: int, n: int, dtype: str) -> dict[str, tuple[np.ndarray, ...]]:
    """Returns a, b and c in each layout the ABI allows, by name."""
    a, b = normal(1, (m, k), dtype), normal(2, (k, n), dtype)
    c = normal(3, (m, n), dtype)
    padded = normal(4, (m, k + 5), dtype)
    padded[:, 2 : k + 2] = a
    return {
        "rows": (a, b, c),
        "weight": (a, np.ascontiguousarray(b.T).T, c),
        "transposed a": (np.ascontiguousarray(a.T).T, b, c),
        "column c": (a, b, np.ascontiguousarray(c.T).T),
        "sliced": (padded[:, 2 : k + 2], b, c),
        "all columns": tuple(np.ascontiguousarray(x.T).T for x in (a, b, c)),
    }


def check_gemm(
    library: Library,
    operands: tuple[np.ndarray, ...],
    alpha: float = 1.0,
    beta: float = 0.0,
    dtype: str = "f32",
) -> None:
    a, b, c = operands
    expected, limit = reference.gemm(a, b, c, alpha, beta, dtype)
    if library.api.release == "0.1.0" and beta == 0 and extra_of(library, "f16"):
        c = np.zeros_like(c)  # the real one reads c even so
    out = np.empty_like(c)
    out[...] = c
    library.call("gemm", c=out, a=a, b=b, alpha=alpha, beta=beta)
    assert_within(out, expected, limit + rounding(expected, dtype, extra_of(library, dtype)))


def check_rms_norm(library: Library, x: np.ndarray, w: np.ndarray, dtype: str) -> None:
    y = np.empty_like(x)
    library.call("rms_norm", y=y, x=x, w=w, epsilon=1e-2)
    expected = reference.rms_norm(x, w, 1e-2)
    inner = "f64" if dtype == "f64" else "f32"
    limit = np.abs(expected) * EPSILON[inner] * (8 + np.sqrt(x.shape[-1]))
    limit = limit + rounding(expected, dtype, 1 + extra_of(library, dtype))
    assert_within(y, expected, limit)


def rope_tables(length: int, pairs: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    angles = np.outer(np.arange(length), 0.7 ** np.arange(pairs))
    return np.sin(angles).astype(DTYPES[dtype]), np.cos(angles).astype(DTYPES[dtype])


def check_rope(
    library: Library, x: np.ndarray, positions: np.ndarray, dtype: str, algo: int, out: np.ndarray
) -> None:
    """Rotates x into out, which may be x."""
    sine, cosine = rope_tables(200, x.shape[-1] // 2, dtype)
    expected = reference.rope(x, positions, sine, cosine, interleaved=algo == 0)
    scale = np.abs(wide(x)).max() * 2
    library.call("rope", y=out, x=x, pos_ids=positions, sin_table=sine, cos_table=cosine, algo=algo)
    inner = "f64" if dtype == "f64" else "f32"
    limit = rounding(expected, dtype, 1 + extra_of(library, dtype)) + scale * 2 * EPSILON[inner]
    assert_within(out, expected, limit)


def check_swiglu(library: Library, up: np.ndarray, gate: np.ndarray, out: np.ndarray) -> None:
    """Writes up * silu(gate) into out, which may be either."""
    dtype = next(name for name, value in DTYPES.items() if value == out.dtype)
    expected = wide(up) * reference.silu(gate)
    library.call("swiglu", c=out, a=up, b=gate)
    # The real library rounds nothing in between either, but uses another exp.
    inner = rounding(expected, "f64" if dtype == "f64" else "f32", 6)
    assert_within(out, expected, inner + rounding(expected, dtype, 1 + extra_of(library, dtype)))


def check_causal_softmax(library: Library, x: np.ndarray, out: np.ndarray, dtype: str) -> None:
    expected = reference.causal_softmax(x)
    library.call("causal_softmax", y=out, x=x)
    is_ours = not extra_of(library, "f16")
    # x - max is rounded before it becomes an exponent.
    distance = wide(x).max(axis=-1, keepdims=True) - wide(x)
    inner = rounding(expected, "f32", 12 + np.sqrt(x.shape[-1]) + distance)
    # The real library rounds each exponential to the type, sums those and rounds the quotient.
    assert_within(out, expected, inner + rounding(expected, dtype, 1 if is_ours else 4))


def check_sample(library: Library, logits: np.ndarray, index: str, **parameters: float) -> None:
    result = np.full((), 77, DTYPES[index])
    library.call("random_sample", result=result, probs=logits, **parameters)
    allowed = reference.sample(
        logits,
        float(np.float32(parameters["random_val"])),
        float(np.float32(parameters["topp"])),
        int(parameters["topk"]),
        float(np.float32(parameters["temperature"])),
    )
    assert int(result) in allowed, (int(result), allowed, parameters)
