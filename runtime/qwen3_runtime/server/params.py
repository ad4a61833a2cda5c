"""Sampling parameters of a request: the client's words over the model's recommendation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.protocol import SamplingFields

__all__ = ["num_choices", "sampling_params"]

_TAKEN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "min_tokens",
    "stop",
    "stop_token_ids",
    "ignore_eos",
)


def sampling_params(
    body: SamplingFields,
    default: SamplingParams,
    *,
    max_tokens: int | None,
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """Returns checked parameters.

    Raises:
        RequestError: A value is out of range.
        ApiError: 400 where values do not go together.
    """
    if max_tokens is not None and (body.min_tokens or 0) > max_tokens:
        raise ApiError(
            400, f"min_tokens is {body.min_tokens}, max_tokens {max_tokens}", param="min_tokens"
        )
    if prompt_logprobs is None:
        prompt_logprobs = body.prompt_logprobs
    if body.prompt_logprobs is not None and body.stream:
        raise ApiError(400, "prompt_logprobs are not for streams", param="prompt_logprobs")
    given: dict[str, Any] = {
        name: getattr(body, name) for name in _TAKEN if getattr(body, name) is not None
    }
    return replace(default, **given, logprobs=logprobs, prompt_logprobs=prompt_logprobs)


def num_choices(body: SamplingFields, most: int) -> int:
    """Returns how many answers are wanted; ``ApiError`` 400 when there are too many."""
    count = 1 if body.n is None else body.n
    if not 1 <= count <= most:
        raise ApiError(400, f"n is {count}, expected 1 to {most}", param="n")
    return count
