"""Choosing tokens for a batch of requests, in compiled code where the engine brings it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwen3_runtime.errors import EngineError
from qwen3_runtime.sampling import reference
from qwen3_runtime.sampling.params import SamplingParams

__all__ = ["Draw", "Sampler", "sampler_for"]


@dataclass(frozen=True, slots=True)
class Draw:
    """What decides one row's token besides its logits.

    The random number depends on seed and position alone, so a request gives the same tokens
    whatever shares its batch and whenever it runs.
    """

    params: SamplingParams
    seed: int
    """Of the request; taken modulo 2**64."""
    position: int
    """Tokens of the sequence before the one to choose."""


class Sampler(Protocol):
    """Chooses one token per row."""

    def sample(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[int]:
        """Chooses the next tokens.

        Args:
            logits: float32 ``[num_rows, vocab_size]``.
            draws: One per row.

        Raises:
            EngineError: A row holds NaN or infinity, or nothing but minus infinity.
        """


class SampleRows(Protocol):
    """The function compiled engines offer as ``sample_rows``; see ``sampler.hpp``."""

    def __call__(
        self,
        logits: NDArray[np.float32],
        temperature: NDArray[np.float64],
        top_p: NDArray[np.float64],
        top_k: NDArray[np.int64],
        seed: NDArray[np.uint64],
        position: NDArray[np.uint64],
        /,
    ) -> NDArray[np.int32]: ...


@dataclass(frozen=True, slots=True)
class _RowSampler:
    """Hands rows and their parameters, as arrays, to a ``SampleRows``."""

    sample_rows: SampleRows

    def sample(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[int]:
        if logits.ndim != 2 or len(logits) != len(draws):
            raise EngineError(
                "logits and requests do not match",
                got=f"logits {logits.shape} for {len(draws)} requests",
            )
        tokens = self.sample_rows(
            np.ascontiguousarray(logits, np.float32),
            np.array([draw.params.temperature for draw in draws], np.float64),
            np.array([draw.params.top_p for draw in draws], np.float64),
            np.array([max(draw.params.top_k, 0) for draw in draws], np.int64),
            np.array([draw.seed % 2**64 for draw in draws], np.uint64),
            np.array([draw.position for draw in draws], np.uint64),
        )
        return [int(token) for token in tokens]


def sampler_for(engine: object) -> Sampler:
    """Returns the engine's own sampler (``sample_rows``), or the NumPy one with equal results."""
    return _RowSampler(getattr(engine, "sample_rows", reference.sample_rows))
