"""``POST /v1/chat/completions``: a conversation in, its next turn out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qwen3_runtime.chat import AnswerDelta
from qwen3_runtime.sampling import TokenLogprobs
from qwen3_runtime.server.logprobs import chat_logprobs, prompt_logprobs
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.protocol import ChatCompletionRequest
from qwen3_runtime.server.streams import CHUNKS, respond
from qwen3_runtime.server.turns import ChatTurn, begin_turn

__all__ = ["chat_router"]


def chat_router(model: ServedModel, metrics: Metrics) -> APIRouter:
    """Returns the routes of chats."""
    router = APIRouter(tags=["chat"])

    @router.post("/v1/chat/completions")
    @router.post("/chat/completions")
    async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> Response:
        turn = await begin_turn(model, metrics, body)
        return await respond(
            request,
            _ChatCompletion(model, body, turn),
            turn.answers,
            stream=bool(body.stream),
            seconds=model.settings.request_seconds,
        )

    return router


class _ChatCompletion:
    """A checked request; gives its answer whole or in chunks."""

    event_form = CHUNKS

    def __init__(self, model: ServedModel, body: ChatCompletionRequest, turn: ChatTurn) -> None:
        self._model = model
        self._request = body
        self._choices = turn.choices
        self._usage = turn.usage
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": turn.model_name,
            "system_fingerprint": None,
        }
        self._counts = bool(body.stream_options and body.stream_options.include_usage)
        self._chunk_head = {**self._head, "object": "chat.completion.chunk"}
        if self._counts:  # null but in the last chunk, as OpenAI's
            self._chunk_head["usage"] = None

    def add(self, index: int, piece: TextPiece) -> None:
        """See ``Completion``."""
        choice = self._choices[index]
        self._usage.add(piece)
        choice.deltas.append(choice.take(piece))
        choice.logprobs += piece.shown_logprobs

    def body(self) -> dict[str, Any]:
        """See ``Completion``."""
        choices = [
            {
                "index": index,
                "message": self._message(choice.deltas),
                "logprobs": self._logprobs(choice.logprobs),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(self._choices)
        ]
        body = {**self._head, "object": "chat.completion", "choices": choices}
        prompt = self._choices[0].prompt_logprobs
        if self._request.prompt_logprobs is not None and prompt is not None:
            body["prompt_logprobs"] = prompt_logprobs(self._model.tokenizer, prompt)
        return {**body, "usage": self._usage.body}

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        for index in range(len(self._choices)):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def chunks(self, index: int, piece: TextPiece) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        choice = self._choices[index]
        self._usage.add(piece)
        delta = choice.take(piece)
        logprobs = self._logprobs(piece.shown_logprobs)
        if delta or logprobs:
            yield self._chunk(index, self._delta(delta), logprobs)
        if choice.finish_reason is not None:
            yield self._chunk(index, {}, finish_reason=choice.finish_reason)

    def last_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        if self._counts:
            yield {**self._chunk_head, "choices": [], "usage": self._usage.body}

    def _message(self, deltas: list[AnswerDelta]) -> dict[str, Any]:
        content = "".join(delta.content for delta in deltas)
        reasoning = "".join(delta.reasoning for delta in deltas)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if reasoning and self._request.include_reasoning:
            message |= {"reasoning_content": reasoning, "reasoning": reasoning}
        calls: list[dict[str, Any]] = []
        for part in (part for delta in deltas for part in delta.tool_calls):
            if part.id is not None:
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"id": part.id, "type": "function", "function": function})
            else:
                calls[part.index]["function"]["arguments"] += part.arguments
        if calls:
            message |= {"tool_calls": calls, "content": content or None}
        return message

    def _delta(self, delta: AnswerDelta) -> dict[str, Any]:
        body: dict[str, Any] = {}
        if delta.content:
            body["content"] = delta.content
        if delta.reasoning and self._request.include_reasoning:
            body |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        calls = []
        for part in delta.tool_calls:
            function = {"arguments": part.arguments}
            if part.id is None:
                calls.append({"index": part.index, "function": function})
            else:
                named = {"name": part.name, **function}
                calls.append(
                    {"index": part.index, "id": part.id, "type": "function", "function": named}
                )
        if calls:
            body["tool_calls"] = calls
        return body

    def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if not self._request.logprobs or not tokens:
            return None
        return chat_logprobs(self._model.need_tokenizer(), tokens)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {**self._chunk_head, "choices": [choice]}
