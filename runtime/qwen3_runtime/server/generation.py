"""The text side of one answer: tokens from the engine become text that is final."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from qwen3_runtime.engine.core import EngineRequest, TokenOutput
from qwen3_runtime.sampling import SamplingParams, TokenLogprobs
from qwen3_runtime.sampling.grammar import GrammarSpec
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.serving import TokenStream
from qwen3_runtime.text import IncrementalDetokenizer, StopChecker, Tokenizer

__all__ = ["Answer", "AnswerWish", "TextPiece", "submit_answers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWish:
    """One answer that is wanted."""

    prompt_token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    seed: int
    grammar: GrammarSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPiece:
    """What has come since the piece before."""

    text: str = ""
    """Final: no later token changes it, and no stop string is part of it."""
    num_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    num_cached_tokens: int = 0
    finish_reason: str | None = None
    """``stop`` or ``length`` on the last piece."""


@dataclass(slots=True)
class _Text:
    """Detokenizes one answer and looks for its stop strings."""

    detokenizer: IncrementalDetokenizer | None
    stop: StopChecker
    min_tokens: int
    num_tokens: int = 0
    held_logprobs: list[TokenLogprobs] = field(default_factory=list)

    def add(self, output: TokenOutput) -> TextPiece:
        is_last = output.finish_reason is not None
        text = ""
        if output.token_id is not None:
            self.num_tokens += 1
            if output.logprobs is not None:
                self.held_logprobs.append(output.logprobs)
            if self.detokenizer is not None and output.finish_reason != "stop":
                text = self.detokenizer.add(output.token_id)
        if is_last and self.detokenizer is not None:
            text += self.detokenizer.finish()
        final = self._final(text, is_last)
        reason = "stop" if self.stop.stopped_by is not None else output.finish_reason
        logprobs: tuple[TokenLogprobs, ...] = ()
        if final or reason is not None:  # they travel with their text
            logprobs = tuple(self.held_logprobs)
            self.held_logprobs.clear()
        return TextPiece(
            text=final,
            num_tokens=1 if output.token_id is not None else 0,
            logprobs=logprobs,
            prompt_logprobs=output.prompt_logprobs,
            num_cached_tokens=output.num_cached_tokens,
            finish_reason=reason,
        )

    def _final(self, text: str, is_last: bool) -> str:
        if self.num_tokens <= self.min_tokens and not is_last:
            return text  # no stop string counts yet
        final = self.stop.add(text)
        if is_last and self.stop.stopped_by is None:
            final += self.stop.finish()
        return final


class Answer:
    """An answer that the engine has queued; to be closed, whether or not it came to its end."""

    def __init__(self, wish: AnswerWish, stream: TokenStream, tokenizer: Tokenizer | None) -> None:
        self.num_prompt_tokens = len(wish.prompt_token_ids)
        self._stream = stream
        self._text = _Text(
            None if tokenizer is None else tokenizer.stream(),
            StopChecker(wish.params.stop),
            wish.params.min_tokens,
        )

    async def pieces(self) -> AsyncGenerator[TextPiece, None]:
        """Yields it piece by piece, the last one with a finish reason.

        Raises:
            RuntimeFault: A step failed, or the engine is gone.
        """
        async for output in self._stream:
            piece = self._text.add(output)
            yield piece
            if piece.finish_reason is not None:
                return

    def close(self) -> None:
        """Ends the engine's work on it."""
        self._stream.close()


async def submit_answers(model: ServedModel, wishes: Sequence[AnswerWish]) -> list[Answer]:
    """Queues answers, all of them or none.

    Raises:
        RequestError: The engine cannot serve one.
        QueueFullError: Too many wait.
        EngineGoneError: The engine is not there.
    """
    tasks = [asyncio.create_task(model.client.submit(_request(model, wish))) for wish in wishes]
    try:
        streams = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, TokenStream):
                result.close()
        raise
    return [
        Answer(wish, stream, model.tokenizer) for wish, stream in zip(wishes, streams, strict=True)
    ]


def _request(model: ServedModel, wish: AnswerWish) -> EngineRequest:
    return EngineRequest(
        request_id=f"answer-{uuid.uuid4().hex}",
        prompt_token_ids=tuple(wish.prompt_token_ids),
        params=wish.params,
        max_tokens=wish.max_tokens,
        end_token_ids=frozenset() if wish.params.ignore_eos else model.end_token_ids,
        seed=wish.seed,
        grammar=wish.grammar,
    )
