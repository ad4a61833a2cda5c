"""The text side of one answer: tokens from the engine become text that is final."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from qwen3_runtime.engine.core import EngineRequest, TokenOutput
from qwen3_runtime.errors import RuntimeFault
from qwen3_runtime.sampling import SamplingParams, TokenLogprobs
from qwen3_runtime.sampling.grammar import GrammarSpec
from qwen3_runtime.server.metrics import AnswerWatch, Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.serving import TokenStream
from qwen3_runtime.text import IncrementalDetokenizer, StopChecker, Tokenizer

__all__ = ["AnswerWish", "Answers", "submit_answers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWish:
    """One answer that is wanted."""

    prompt_token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    seed: int
    grammar: GrammarSpec | None = None


@dataclass(slots=True)
class _Text:
    """Detokenizes one answer and looks for its stop strings."""

    detokenizer: IncrementalDetokenizer | None
    stop: StopChecker
    min_tokens: int
    num_tokens: int = 0
    held_logprobs: list[TokenLogprobs] = field(default_factory=list)

    @classmethod
    def of(cls, wish: AnswerWish, tokenizer: Tokenizer | None) -> _Text:
        detokenizer = None if tokenizer is None else tokenizer.stream()
        return cls(detokenizer, StopChecker(wish.params.stop), wish.params.min_tokens)

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
            prefill_seconds=output.prefill_seconds,
            finish_reason=reason,
            stopped_by=self.stop.stopped_by,
            has_end_token=output.finish_reason == "stop",
        )

    def _final(self, text: str, is_last: bool) -> str:
        may_stop = is_last or self.num_tokens > self.min_tokens
        final = self.stop.add(text, may_stop=may_stop)
        if is_last and self.stop.stopped_by is None:
            final += self.stop.finish()
        return final


class Answers:
    """The answers to one request of HTTP, all queued; to be closed, however they end."""

    def __init__(
        self,
        wishes: Sequence[AnswerWish],
        stream: TokenStream,
        tokenizer: Tokenizer | None,
        watches: Sequence[AnswerWatch],
    ) -> None:
        self._stream = stream
        self._texts = [_Text.of(wish, tokenizer) for wish in wishes]
        self._watches = watches
        self._num_running = len(wishes)

    @property
    def is_over(self) -> bool:
        """Whether all have come to their end."""
        return self._num_running == 0

    async def take(self) -> list[tuple[int, TextPiece]]:
        """Returns what has come since the last call, each piece with the number of its answer.

        The last piece of an answer has a finish reason. Nothing is returned after a nudge.

        Raises:
            RuntimeFault: A step failed, or the engine is gone.
        """
        try:
            outputs = await self._stream.take()
        except RuntimeFault:
            for watch in self._watches:
                watch.fail()
            raise
        pieces = []
        for index, output in outputs:
            if self._watches[index].is_over:
                continue  # came in the same breath as what ended it
            piece = self._texts[index].add(output)
            self._watches[index].add(piece)
            if piece.finish_reason is not None:
                self._num_running -= 1
                self._stream.leave(index)
            pieces.append((index, piece))
        return pieces

    def nudge(self) -> None:
        """Makes ``take`` return."""
        self._stream.nudge()

    def close(self) -> None:
        """Ends the engine's work on them."""
        self._stream.close()
        for watch in self._watches:
            watch.leave()


async def submit_answers(
    model: ServedModel, metrics: Metrics, wishes: Sequence[AnswerWish]
) -> Answers:
    """Queues answers, all of them or none.

    Raises:
        RequestError: The engine cannot serve one.
        QueueFullError: Too many wait.
        EngineGoneError: The engine is not there.
    """
    # Before they are queued: the engine may begin with them while this waits for its word.
    watches = [metrics.watch(len(wish.prompt_token_ids)) for wish in wishes]
    stream = await model.client.submit([_request(model, wish) for wish in wishes])
    return Answers(wishes, stream, model.tokenizer, watches)


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
