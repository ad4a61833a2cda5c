"""``POST /v1/completions``: texts or token ids in, what follows them out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qwen3_runtime.engine.prefill import check_ids
from qwen3_runtime.sampling import MAX_LOGPROBS, SamplingParams, TokenLogprobs
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.generation import Answers, AnswerWish, submit_answers
from qwen3_runtime.server.logprobs import completion_logprobs, prompt_logprobs
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.params import num_choices, sampling_params
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.prompts import prompt_list
from qwen3_runtime.server.protocol import CompletionRequest
from qwen3_runtime.server.streams import CHUNKS, respond
from qwen3_runtime.server.usage import Usage
from qwen3_runtime.structured import GRAMMAR_FIELDS, grammar_of_wishes

__all__ = ["completion_router"]


def completion_router(model: ServedModel, metrics: Metrics) -> APIRouter:
    """Returns the routes of text completions."""
    router = APIRouter(tags=["completions"])

    @router.post("/v1/completions")
    @router.post("/completions")
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        completion, answers = await _prepare(model, metrics, body)
        seconds = model.settings.request_seconds
        return await respond(
            request, completion, answers, stream=bool(body.stream), seconds=seconds
        )

    return router


@dataclass(slots=True)
class _Choice:
    """One of the answers on its way."""

    first_token_id: int
    echo: str
    """The prompt's text, where it is part of the answer."""
    is_scored: bool
    """Whether the prompt's tokens are scored, too."""
    num_chars: int = 0
    is_begun: bool = False
    parts: list[dict[str, Any]] = field(default_factory=list)
    prompt_logprobs: Sequence[TokenLogprobs] | None = None


async def _prepare(
    model: ServedModel, metrics: Metrics, body: CompletionRequest
) -> tuple[_Completion, Answers]:
    """Everything that can be wrong with a request is found here, before an answer begins."""
    name = model.check_name(body.model)
    facts = model.facts
    if body.suffix:
        raise ApiError(400, "suffix is not supported", param="suffix")
    count = num_choices(body, model.settings.max_choices)
    if body.best_of not in (None, count):
        raise ApiError(400, "best_of is not supported beyond n", param="best_of")
    if body.logprobs is not None and not 0 <= body.logprobs <= MAX_LOGPROBS:
        raise ApiError(
            400, f"logprobs is {body.logprobs}, expected 0 to {MAX_LOGPROBS}", param="logprobs"
        )
    if body.max_tokens is not None and body.max_tokens < (0 if body.echo else 1):
        raise ApiError(400, f"max_tokens is {body.max_tokens}", param="max_tokens")
    params = sampling_params(
        body,
        model.default_params,
        max_tokens=body.max_tokens,
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
    grammar = grammar_of_wishes(body.model_dump(include=GRAMMAR_FIELDS))
    wishes: list[AnswerWish] = []
    echoes: list[str] = []
    for index, prompt in enumerate(prompt_list(body.prompt, "prompt")):
        ids = await model.encode(prompt) if isinstance(prompt, str) else prompt
        ids = check_ids(ids, facts.vocab_size, f"prompt[{index}]")
        is_score = body.max_tokens == 0
        first = params.seed_or_new()
        wish = AnswerWish(
            prompt_token_ids=ids,
            params=_scoring(params) if is_score else params,
            max_tokens=0 if is_score else model.room_for(len(ids), body.max_tokens),
            seed=first,
            grammar=grammar,
        )
        wishes += [replace(wish, seed=(first + index) % 2**64) for index in range(count)]
        echoes += [_text(model, prompt) if body.echo else ""] * count
    choices = [
        _Choice(wish.prompt_token_ids[0], echo, bool(body.echo))
        for wish, echo in zip(wishes, echoes, strict=True)
    ]
    usage = Usage(sum(len(wish.prompt_token_ids) for wish in wishes[::count]))
    completion = _Completion(model, body, name, choices, usage)
    return completion, await submit_answers(model, metrics, wishes)


def _scoring(params: SamplingParams) -> SamplingParams:
    """The engine ends a request without new tokens only where it scores the prompt."""
    wanted = 0 if params.prompt_logprobs is None else params.prompt_logprobs
    return replace(params, prompt_logprobs=wanted, min_tokens=0)


def _text(model: ServedModel, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    return model.tokenizer.decode(prompt) if model.tokenizer is not None else ""


class _Completion:
    """A checked request; gives its answers whole or in chunks."""

    event_form = CHUNKS

    def __init__(
        self,
        model: ServedModel,
        body: CompletionRequest,
        name: str,
        choices: list[_Choice],
        usage: Usage,
    ) -> None:
        self._model = model
        self._request = body
        self._choices = choices
        self._usage = usage
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": None,
        }
        self._counts = bool(body.stream_options and body.stream_options.include_usage)
        self._chunk_head = {**self._head, **({"usage": None} if self._counts else {})}

    def add(self, index: int, piece: TextPiece) -> None:
        """See ``Completion``."""
        choice = self._choices[index]
        choice.parts.append(self._part(choice, piece))

    def body(self) -> dict[str, Any]:
        """See ``Completion``."""
        choices = [
            {
                "index": index,
                "text": "".join(part["text"] for part in choice.parts),
                "logprobs": _joined([part["logprobs"] for part in choice.parts]),
                "finish_reason": choice.parts[-1]["finish_reason"],
                **self._of_prompt(choice),
            }
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head, "choices": choices, "usage": self._usage.body}

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        yield from ()

    def chunks(self, index: int, piece: TextPiece) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        part = self._part(self._choices[index], piece)
        if part["text"] or part["logprobs"] or part["finish_reason"]:
            yield {**self._chunk_head, "choices": [{"index": index, **part}]}

    def last_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        if self._counts:
            yield {**self._head, "choices": [], "usage": self._usage.body}

    def _part(self, choice: _Choice, piece: TextPiece) -> dict[str, Any]:
        self._usage.add(piece)
        is_first, choice.is_begun = not choice.is_begun, True
        if piece.prompt_logprobs is not None:
            choice.prompt_logprobs = piece.prompt_logprobs
        echo = choice.echo if is_first else ""
        text = echo + piece.text
        logprobs = None
        if self._request.logprobs is not None:
            prompt = piece.prompt_logprobs or () if choice.is_scored else ()
            logprobs = self._logprobs(choice, [*prompt, *piece.logprobs], is_first)
        choice.num_chars += len(text)
        return {"text": text, "logprobs": logprobs, "finish_reason": piece.finish_reason}

    def _logprobs(
        self, choice: _Choice, tokens: list[TokenLogprobs], is_first: bool
    ) -> dict[str, Any] | None:
        first = choice.first_token_id if is_first and choice.is_scored else None
        if not tokens and first is None:
            return None
        return completion_logprobs(
            self._model.tokenizer, tokens, choice.num_chars, first_token_id=first
        )

    def _of_prompt(self, choice: _Choice) -> dict[str, Any]:
        if self._request.prompt_logprobs is None or choice.prompt_logprobs is None:
            return {}
        return {"prompt_logprobs": prompt_logprobs(self._model.tokenizer, choice.prompt_logprobs)}


def _joined(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Lists of the same names, one after another; None where there are none."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    return {name: [entry for part in found for entry in part[name]] for name in found[0]}
