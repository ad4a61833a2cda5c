"""Perplexity of a text, with sliding windows.

After Hugging Face's guide (https://huggingface.co/docs/transformers/perplexity): windows of
``ctx_len`` tokens begin ``stride`` tokens apart; each scores the tokens that no window before it
has scored, and reads those before them as context:

    perplexity = exp(-1/N * sum_i log p(token_i | tokens before i in its window))

over the N scored tokens. The first token of the text has nothing before it and is not scored; with
``stride == ctx_len`` neither is the first of any other window. Every scored token counts the same;
the guide's own loop weighs each window after the first by one token too few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qwen3_runtime.engine.batch import Engine
from qwen3_runtime.engine.core import EngineCore, EngineRequest
from qwen3_runtime.engine.prefill import check_ids
from qwen3_runtime.errors import RequestError
from qwen3_runtime.sampling import SamplingParams

__all__ = ["Perplexity", "Window", "measure_perplexity", "sliding_windows"]


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens ``begin`` to ``end`` of a text, of which those from ``first_scored`` on are scored."""

    begin: int
    end: int
    first_scored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """How well a model foresees a text."""

    perplexity: float
    mean_nll: float
    """Mean negative log-likelihood of a scored token, in nats."""
    num_tokens: int
    """Of the text, as far as windows reached."""
    num_scored_tokens: int
    num_windows: int
    ctx_len: int
    stride: int


def sliding_windows(num_tokens: int, ctx_len: int, stride: int) -> Iterator[Window]:
    """Yields the windows over a text; every token but those without context is scored once."""
    scored_to = 0
    for begin in range(0, num_tokens, stride):
        end = min(begin + ctx_len, num_tokens)
        if max(scored_to, begin + 1) < end:
            yield Window(begin, end, max(scored_to, begin + 1))
        scored_to = end
        if end == num_tokens:
            return


def measure_perplexity(
    engine: Engine,
    token_ids: Sequence[int],
    *,
    ctx_len: int | None = None,
    stride: int | None = None,
    max_windows: int | None = None,
    on_progress: Callable[[int], None] = lambda num_tokens: None,
) -> Perplexity:
    """Scores a text; as many windows at once as the engine takes sequences.

    Args:
        engine: A loaded engine; what its cache held is forgotten.
        token_ids: The text.
        ctx_len: Tokens of a window; None is what the engine takes.
        stride: From one window to the next; None is half a window.
        max_windows: Ends after so many; None goes to the end of the text.
        on_progress: Told the number of tokens just scored, window by window.

    Raises:
        RequestError: The text or the lengths cannot be served.
        EngineError: A step failed, or the model gave NaN.
    """
    length = engine.max_model_len if ctx_len is None else ctx_len
    step = max(1, length // 2) if stride is None else stride
    _check(engine, length, step, len(token_ids))
    ids = check_ids(token_ids, engine.vocab_size, "the text")
    windows = list(sliding_windows(len(ids), length, step))[:max_windows]
    sums = []
    for window, logprobs in _scored(engine, ids, windows):
        sums.append(math.fsum(logprobs))
        on_progress(window.end - window.first_scored)
    num_scored = sum(window.end - window.first_scored for window in windows)
    mean_nll = -math.fsum(sums) / num_scored
    return Perplexity(
        perplexity=math.exp(mean_nll) if mean_nll < 700 else math.inf,
        mean_nll=mean_nll,
        num_tokens=windows[-1].end,
        num_scored_tokens=num_scored,
        num_windows=len(windows),
        ctx_len=length,
        stride=step,
    )


def _check(engine: Engine, ctx_len: int, stride: int, num_tokens: int) -> None:
    if not 2 <= ctx_len <= engine.max_model_len:
        raise RequestError(
            "ctx_len is out of range", got=ctx_len, expected=f"2 to {engine.max_model_len}"
        )
    if not 1 <= stride <= ctx_len:
        raise RequestError(
            "stride is out of range",
            got=stride,
            expected=f"1 to {ctx_len}, so that no token is left out",
        )
    if num_tokens < 2:
        raise RequestError("a text has at least two tokens to be scored", got=num_tokens)


def _scored(
    engine: Engine, ids: Sequence[int], windows: Sequence[Window]
) -> Iterator[tuple[Window, list[float]]]:
    """Yields windows as they are done, with the log-probabilities of their scored tokens."""
    core = EngineCore(engine)
    params = SamplingParams(temperature=0.0, prompt_logprobs=0)
    coming = iter(enumerate(windows))
    in_flight = 0
    try:
        while True:
            while in_flight < engine.max_num_seqs and (following := next(coming, None)):
                index, window = following
                core.add(
                    EngineRequest(
                        request_id=str(index),
                        prompt_token_ids=tuple(ids[window.begin : window.end]),
                        params=params,
                        max_tokens=0,
                    )
                )
                in_flight += 1
            if not core.has_work:
                return
            for output in core.step():
                in_flight -= 1
                if output.error is not None:
                    raise output.error
                window = windows[int(output.request_id)]
                # Entry 0 is of the window's second token.
                first = window.first_scored - window.begin - 1
                yield window, [one.logprob for one in (output.prompt_logprobs or ())[first:]]
    finally:
        core.abort(map(str, range(len(windows))))
