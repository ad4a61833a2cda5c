"""Log-probabilities in the two shapes of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen3_runtime.sampling import TokenLogprobs
from qwen3_runtime.text import Tokenizer

__all__ = ["chat_logprobs", "completion_logprobs", "prompt_logprobs"]


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """Returns ``choices[].logprobs`` of a chat completion."""
    return {
        "content": [
            {
                **_token(tokenizer, own.token_id, own.logprob),
                "top_logprobs": [_token(tokenizer, *likely) for likely in own.top],
            }
            for own in tokens
        ],
        "refusal": None,
    }


def _token(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    raw = tokenizer.token_bytes(token_id)
    return {
        "token": raw.decode("utf-8", "replace"),
        "logprob": max(logprob, -9999.0),  # JSON has no infinity
        "bytes": list(raw),
    }


def prompt_logprobs(
    tokenizer: Tokenizer | None, tokens: Sequence[TokenLogprobs]
) -> list[dict[str, Any] | None]:
    """Returns vLLM's ``prompt_logprobs``: nothing for the first token, records by id for others."""

    def record(token_id: int, logprob: float, rank: int) -> dict[str, Any]:
        text = "" if tokenizer is None else tokenizer.decode([token_id], skip_special_tokens=False)
        return {"logprob": max(logprob, -9999.0), "rank": rank, "decoded_token": text}

    return [
        None,
        *(
            {
                str(own.token_id): record(own.token_id, own.logprob, own.rank),
                **{
                    str(token): record(token, value, rank)
                    for rank, (token, value) in enumerate(own.top, 1)
                },
            }
            for own in tokens
        ),
    ]


def completion_logprobs(
    tokenizer: Tokenizer | None,
    tokens: Sequence[TokenLogprobs],
    offset: int,
    *,
    first_token_id: int | None = None,
) -> dict[str, Any]:
    """Returns ``choices[].logprobs`` of a text completion.

    Args:
        tokenizer: Without one, a token's text is ``token_id:<id>``.
        tokens: Scored tokens in order.
        offset: Characters of the answer before them.
        first_token_id: A token before them that has no score: the first of an echoed prompt.
    """

    def text_of(token_id: int) -> str:
        if tokenizer is None:
            return f"token_id:{token_id}"
        return tokenizer.token_bytes(token_id).decode("utf-8", "replace")

    ids = [own.token_id for own in tokens]
    logprobs: list[float | None] = [max(own.logprob, -9999.0) for own in tokens]
    tops: list[dict[str, float] | None] = [
        {text_of(token): max(value, -9999.0) for token, value in own.top} for own in tokens
    ]
    if first_token_id is not None:
        ids, logprobs, tops = [first_token_id, *ids], [None, *logprobs], [None, *tops]
    texts = [text_of(token_id) for token_id in ids]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": logprobs,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
