"""Choosing tokens for a batch of requests, in compiled code where the engine brings it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwen3_runtime.errors import EngineError
from qwen3_runtime.sampling import reference
from qwen3_runtime.sampling.params import SamplingParams

__all__ = ["Draw", "Sampler", "SamplingKernels", "TokenLogprobs", "sampler_for"]

_NO_MASKS = np.zeros((0, 0), np.uint32)


@dataclass(frozen=True, slots=True)
class Draw:
    """What decides one row's token besides its logits.

    The random number depends on seed and position alone, so a request gives the same tokens
    whatever shares its batch and whenever it runs.
    """

    params: SamplingParams
    seed: int
    """Of the request; taken modulo 2**64."""
    token_ids: Sequence[int]
    """Prompt and answer so far; the position of a draw is their number."""
    prompt_len: int
    banned: Iterable[int] = ()
    """Tokens that must not be chosen, such as end tokens before ``min_tokens``; what is beyond the
    vocabulary, where requests may have their stop tokens, is none anyway."""
    mask: NDArray[np.uint32] | None = None
    """Bit ``t % 32`` of word ``t // 32`` says whether token ``t`` is possible; None: all are."""

    @property
    def is_plain(self) -> bool:
        """Whether the logits are taken as they are."""
        params = self.params
        penalties = (
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
        )
        is_biased = params.logit_bias or self.banned or self.mask is not None
        return not is_biased and penalties == (1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely a token was, by the logits as the model gave them."""

    token_id: int
    logprob: float
    rank: int
    """1 is the likeliest."""
    top: tuple[tuple[int, float], ...]
    """Token ids and log-probabilities of the likeliest, likeliest first."""


class SamplingKernels(Protocol):
    """What compiled engines offer, and ``sampling/reference.py`` in NumPy.

    ``R`` is the number of rows, ``V`` the vocabulary. What a row has several of lies one after
    another in one array, up to the row's entry in ``..._ends`` [R].
    """

    def sample_rows(
        self,
        logits: NDArray[np.float32],
        temperature: NDArray[np.float64],
        top_p: NDArray[np.float64],
        min_p: NDArray[np.float64],
        top_k: NDArray[np.int64],
        seed: NDArray[np.uint64],
        position: NDArray[np.uint64],
        /,
    ) -> NDArray[np.int32]:
        """Chooses a token per row of logits [R, V]; see ``runtime/cpp/sampler/sampler.hpp``."""

    def adjust_rows(
        self,
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
        /,
    ) -> None:
        """Changes logits [R, V] in place; see ``runtime/cpp/sampler/adjustment.hpp``.

        ``mask_rows`` [R] are rows of ``masks``, -1 for none; ``penalties`` [R, 3] are repetition,
        presence and frequency.
        """

    def logprob_rows(
        self, logits: NDArray[np.float32], tokens: NDArray[np.int32], num_top: int, /
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """Returns logprobs [R], ranks [R], top_ids and top_logprobs [R, num_top]."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Hands rows and what requests want of them, as arrays, to ``SamplingKernels``."""

    kernels: SamplingKernels

    def sample(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[int]:
        """Chooses the next tokens.

        Args:
            logits: float32 ``[num_rows, vocab_size]``; not changed.
            draws: One per row.

        Raises:
            EngineError: A row holds NaN or infinity, or leaves no token that is possible.
        """
        if logits.ndim != 2 or len(logits) != len(draws):
            raise EngineError(
                "logits and requests do not match",
                got=f"logits {logits.shape} for {len(draws)} requests",
            )
        tokens = self.kernels.sample_rows(
            self._adjusted(np.ascontiguousarray(logits, np.float32), draws),
            np.array([draw.params.temperature for draw in draws], np.float64),
            np.array([draw.params.top_p for draw in draws], np.float64),
            np.array([draw.params.min_p for draw in draws], np.float64),
            np.array([max(draw.params.top_k, 0) for draw in draws], np.int64),
            np.array([draw.seed % 2**64 for draw in draws], np.uint64),
            np.array([len(draw.token_ids) for draw in draws], np.uint64),
        )
        return [int(token) for token in tokens]

    def logprobs(
        self, logits: NDArray[np.float32], tokens: Sequence[int], num_top: Sequence[int]
    ) -> list[TokenLogprobs]:
        """Returns how likely tokens were.

        Args:
            logits: float32 ``[num_rows, vocab_size]``, as the model gave them.
            tokens: One per row.
            num_top: How many of the likeliest are wanted beside each.

        Raises:
            EngineError: A row holds NaN or infinity.
        """
        width = min(max(num_top, default=0), logits.shape[1])
        found, ranks, ids, values = self.kernels.logprob_rows(
            np.ascontiguousarray(logits, np.float32), np.array(tokens, np.int32), width
        )
        return [
            TokenLogprobs(
                int(token),
                float(found[row]),
                int(ranks[row]),
                tuple(zip(ids[row, :wanted].tolist(), values[row, :wanted].tolist(), strict=True)),
            )
            for row, (token, wanted) in enumerate(zip(tokens, num_top, strict=True))
        ]

    def _adjusted(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> NDArray[np.float32]:
        """The rows as requests want them; a copy where any changes."""
        changed = [row for row, draw in enumerate(draws) if not draw.is_plain]
        if not changed:
            return logits
        rows: NDArray[np.float32] = logits[changed]
        self._adjust(rows, [draws[row] for row in changed])
        if len(changed) == len(draws):
            return rows
        adjusted: NDArray[np.float32] = logits.copy()
        adjusted[changed] = rows
        return adjusted

    def _adjust(self, rows: NDArray[np.float32], draws: Sequence[Draw]) -> None:
        masks = [draw.mask for draw in draws if draw.mask is not None]
        has_mask = [draw.mask is not None for draw in draws]
        vocab_size = rows.shape[1]
        biases = [
            [
                *draw.params.logit_bias,
                *((token, -np.inf) for token in draw.banned if token < vocab_size),
            ]
            for draw in draws
        ]
        contexts = [draw.token_ids for draw in draws]
        self.kernels.adjust_rows(
            rows,
            np.stack(masks) if masks else _NO_MASKS,
            np.where(has_mask, np.cumsum(has_mask) - 1, -1).astype(np.int64),
            np.array([token for each in biases for token, _ in each], np.int32),
            np.array([value for each in biases for _, value in each], np.float32),
            _ends(biases),
            np.array([token for each in contexts for token in each], np.int32),
            _ends(contexts),
            np.array([draw.prompt_len for draw in draws], np.int64),
            np.array(
                [
                    (
                        draw.params.repetition_penalty,
                        draw.params.presence_penalty,
                        draw.params.frequency_penalty,
                    )
                    for draw in draws
                ],
                np.float64,
            ),
        )


def _ends(parts: Sequence[Sequence[object]]) -> NDArray[np.int64]:
    return np.array(list(accumulate(map(len, parts))), np.int64)


def sampler_for(engine: object) -> Sampler:
    """Returns a sampler on the engine's own kernels, or on the NumPy ones with equal results."""
    return Sampler(getattr(engine, "sampling_kernels", reference))
