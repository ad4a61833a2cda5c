"""The sampler in NumPy: what ``runtime/cpp/sampler`` computes, step for step.

Engines without compiled code sample with it, and the compiled sampler is tested against it. Sums
run in one fixed order in float64, so both pick the same token.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qwen3_runtime.errors import EngineError

__all__ = ["adjust_rows", "logprob_rows", "philox4x32", "sample_rows", "uniform"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Returns the four 32-bit words of Philox4x32-10.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = (second >> 32) ^ b ^ low, second & _MASK
        c, d = (first >> 32) ^ d ^ high, first & _MASK
        low, high = (low + _KEY_STEPS[0]) & _MASK, (high + _KEY_STEPS[1]) & _MASK
    return a, b, c, d


def uniform(seed: int, position: int) -> float:
    """Returns the number in [0, 1), a multiple of 2**-53, that belongs to a seed and position."""
    counter = (position & _MASK, position >> 32, 0, 0)
    first, second, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32))
    return float((first | second << 32) >> 11) * 2.0**-53


def sample_rows(
    logits: NDArray[np.float32],
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    min_p: NDArray[np.float64],
    top_k: NDArray[np.int64],
    seed: NDArray[np.uint64],
    position: NDArray[np.uint64],
) -> NDArray[np.int32]:
    """Chooses one token per row of logits ``[num_rows, vocab_size]``.

    Temperature comes first, then top-k (ties with the k-th stay), then min-p, then top-p on what
    is left, as in vLLM. Of equal logits the lowest token id counts as likelier.

    Raises:
        EngineError: A row holds NaN or infinity, or nothing but minus infinity.
    """
    tokens = np.empty(len(logits), np.int32)
    for row, values in enumerate(logits):
        largest = _checked_max(values, row)
        if temperature[row] == 0.0:
            tokens[row] = int(np.argmax(values))
            continue
        kept = _top_k(values, int(top_k[row]))
        weights = _weights(values[kept], largest, float(temperature[row]))
        if min_p[row] > 0.0:
            likely = weights >= min_p[row]
            kept, weights = kept[likely], weights[likely]
        if top_p[row] < 1.0:
            chosen = _top_p(values[kept], weights, float(top_p[row]))
            kept, weights = kept[chosen], weights[chosen]
        sums = np.cumsum(weights)
        target = uniform(int(seed[row]), int(position[row])) * sums[-1]
        tokens[row] = kept[min(int(np.searchsorted(sums, target, "right")), _last(weights))]
    return tokens


def adjust_rows(
    logits: NDArray[np.float32],
    masks: NDArray[np.uint32],
    mask_rows: NDArray[np.int64],
    bias_ids: NDArray[np.int32],
    bias_values: NDArray[np.float32],
    bias_ends: NDArray[np.int64],
    context: NDArray[np.int32],
    context_ends: NDArray[np.int64],
    prompt_lens: NDArray[np.int64],
    penalties: NDArray[np.float64],
) -> None:
    """Changes rows of logits ``[num_rows, vocab_size]`` in place; see ``SamplingKernels``."""
    bias_start = context_start = 0
    for row, values in enumerate(logits):
        if mask_rows[row] >= 0:
            values[~_possible(masks[mask_rows[row]], len(values))] = -np.inf
        own = slice(bias_start, bias_ends[row])
        np.add.at(values, bias_ids[own], bias_values[own])
        tokens = context[context_start : context_ends[row]]
        _penalise(values, tokens, int(prompt_lens[row]), penalties[row])
        bias_start, context_start = int(bias_ends[row]), int(context_ends[row])


def _possible(mask: NDArray[np.uint32], vocab_size: int) -> NDArray[np.bool_]:
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size]
    return np.pad(bits, (0, vocab_size - len(bits))).astype(bool)


def _penalise(
    values: NDArray[np.float32],
    tokens: NDArray[np.int32],
    prompt_len: int,
    penalties: NDArray[np.float64],
) -> None:
    repetition, presence, frequency = penalties
    if (repetition, presence, frequency) == (1.0, 0.0, 0.0):
        return
    seen = np.unique(tokens)
    factor = np.float32(repetition)
    values[seen] = np.where(values[seen] > 0, values[seen] / factor, values[seen] * factor)
    answered, counts = np.unique(tokens[prompt_len:], return_counts=True)
    values[answered] -= (frequency * counts).astype(np.float32)
    values[answered] -= np.float32(presence)


def logprob_rows(
    logits: NDArray[np.float32], tokens: NDArray[np.int32], num_top: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Returns log-probabilities and ranks of tokens, and the likeliest; see ``SamplingKernels``."""
    rows = np.arange(len(logits))
    largest = np.array([_checked_max(values, row) for row, values in enumerate(logits)])
    wide = logits.astype(np.float64) - largest.astype(np.float64)[:, None]
    logprobs = (wide - np.log(np.exp(wide).sum(-1, keepdims=True))).astype(np.float32)
    ranks = 1 + (logits > logits[rows, tokens][:, None]).sum(-1, dtype=np.int32)
    top_ids = np.argsort(-logits, axis=-1, kind="stable")[:, :num_top].astype(np.int32)
    return logprobs[rows, tokens], ranks, top_ids, logprobs[rows[:, None], top_ids]


def _checked_max(values: NDArray[np.float32], row: int) -> np.float32:
    if np.isnan(values).any() or np.isposinf(values).any():
        token = int(np.flatnonzero(np.isnan(values) | np.isposinf(values))[0])
        raise EngineError(
            "a logit is not finite", where=f"row {row}, token {token}", got=float(values[token])
        )
    if not len(values) or np.isneginf(values).all():
        raise EngineError("no token is possible", where=f"row {row}")
    largest: np.float32 = values.max()
    return largest


def _weights(
    values: NDArray[np.float32], largest: np.float32, temperature: float
) -> NDArray[np.float64]:
    """Probabilities up to a common factor; the likeliest token weighs 1."""
    with np.errstate(over="ignore", under="ignore"):
        scaled = (values.astype(np.float64) - float(largest)) / temperature
        weights: NDArray[np.float64] = np.exp(scaled)
    return weights


def _top_k(values: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
    if not 0 < top_k < len(values):
        return np.arange(len(values))
    threshold = np.partition(values, len(values) - top_k)[len(values) - top_k]
    return np.flatnonzero(values >= threshold)


def _top_p(
    values: NDArray[np.float32], weights: NDArray[np.float64], top_p: float
) -> NDArray[np.intp]:
    """Indices, ascending, of the fewest likeliest tokens that hold ``top_p`` of the weight."""
    order = np.argsort(-values, kind="stable")
    enough = top_p * np.cumsum(weights)[-1]
    count = int(np.searchsorted(np.cumsum(weights[order]), enough, "left")) + 1
    chosen: NDArray[np.intp] = np.sort(order[:count])
    return chosen


def _last(weights: NDArray[np.float64]) -> int:
    """Index of the last token with any weight, for a draw that rounds up to the whole sum."""
    return int(np.flatnonzero(weights)[-1])
