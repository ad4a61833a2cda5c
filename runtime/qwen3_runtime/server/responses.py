"""``POST /v1/responses``: items in, items out; nothing is stored."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qwen3_runtime.chat import AnswerDelta
from qwen3_runtime.sampling import TokenLogprobs
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.logprobs import chat_logprobs
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.protocol import ResponsesRequest
from qwen3_runtime.server.responses_output import Event, Output
from qwen3_runtime.server.responses_request import ResponseWish, response_wish
from qwen3_runtime.server.streams import EventForm, respond
from qwen3_runtime.server.turns import ChatTurn, begin_turn

__all__ = ["responses_router"]


def responses_router(model: ServedModel, metrics: Metrics) -> APIRouter:
    """Returns the routes of responses."""
    router = APIRouter(tags=["responses"])

    @router.post("/v1/responses")
    @router.post("/responses")
    async def create_response(body: ResponsesRequest, request: Request) -> Response:
        wish = response_wish(body)
        turn = await begin_turn(model, metrics, wish.chat)
        return await respond(
            request,
            _Response(model, body, wish, turn),
            turn.answers,
            stream=bool(body.stream),
            seconds=model.settings.request_seconds,
        )

    return router


class _Response:
    """A checked request; gives its answer whole or event by event."""

    def __init__(
        self, model: ServedModel, body: ResponsesRequest, wish: ResponseWish, turn: ChatTurn
    ) -> None:
        (self._choice,) = turn.choices
        self._usage = turn.usage
        self._output = Output(wish.namespaces)
        self._tokens = _Tokens(model, keeps_logprobs=bool(wish.chat.logprobs))
        self._num_events = 0
        self._head = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": turn.model_name,
            **_as_asked(body, wish),
        }

    @property
    def event_form(self) -> EventForm:
        """See ``Completion``."""
        return EventForm(error=self._failed, is_named=True)

    def first_chunks(self) -> Iterator[Event]:
        """See ``Completion``."""
        for name in ("created", "in_progress"):
            yield self._event(name, self._body("in_progress"))

    def chunks(self, index: int, piece: TextPiece) -> Iterator[Event]:
        """See ``Completion``."""
        yield from map(self._numbered, self._take(piece))

    def last_chunks(self) -> Iterator[Event]:
        """See ``Completion``."""
        yield from map(self._numbered, self._output.finish(self._status))
        yield self._event(self._status, self._whole())

    def add(self, index: int, piece: TextPiece) -> None:
        """See ``Completion``."""
        _run(self._take(piece))

    def body(self) -> dict[str, Any]:
        """See ``Completion``."""
        _run(self._output.finish(self._status))
        return self._whole()

    def _take(self, piece: TextPiece) -> Iterator[Event]:
        self._usage.add(piece)
        delta = self._choice.take(piece)
        logprobs = self._tokens.take(piece, delta)
        yield from self._output.add(delta, logprobs)

    @property
    def _status(self) -> str:
        return "incomplete" if self._choice.finish_reason == "length" else "completed"

    def _whole(self) -> dict[str, Any]:
        usage = self._usage
        counts = {
            "input_tokens": usage.num_prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.num_cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": usage.num_completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self._tokens.num_reasoning},
            "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
        }
        return self._body(self._status, usage=counts)

    def _body(self, status: str, **fields: Any) -> dict[str, Any]:
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            **self._head,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": None,
            "incomplete_details": reason,
            "output": self._output.body(),
            "usage": None,
            **fields,
        }

    def _failed(self, error: ApiError) -> Event:
        _run(self._output.finish("incomplete"))
        fault = {"code": "server_error", "message": error.message}
        return self._event("failed", self._body("failed", error=fault))

    def _event(self, name: str, body: dict[str, Any]) -> Event:
        return self._numbered({"type": f"response.{name}", "response": body})

    def _numbered(self, event: Event) -> Event:
        self._num_events += 1
        return {**event, "sequence_number": self._num_events - 1}


def _run(events: Iterable[Event]) -> None:
    """Lets happen what nobody is told of."""
    for _ in events:
        pass


def _as_asked(body: ResponsesRequest, wish: ResponseWish) -> dict[str, Any]:
    """What a response repeats of its request."""
    reasoning = body.reasoning or {}
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": False,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}, **(body.text or {})},
        "tool_choice": body.tool_choice or "auto",
        "tools": wish.tools,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


class _Tokens:
    """Which tokens an answer's parts are made of.

    Args:
        model: Its tokenizer gives tokens their text.
        keeps_logprobs: Whether the client wants those of the content.
    """

    def __init__(self, model: ServedModel, *, keeps_logprobs: bool) -> None:
        self._model = model
        self._keeps_logprobs = keeps_logprobs
        self._num_waiting = 0
        self._waiting: list[TokenLogprobs] = []
        self.num_reasoning = 0
        """Of the thought, its opening mark included."""

    def take(self, piece: TextPiece, delta: AnswerDelta) -> list[dict[str, Any]]:
        """Returns the log-probabilities of a delta's content.

        Text may have been held back, so the tokens of earlier pieces may be among them.
        """
        self._num_waiting += piece.num_tokens
        if self._keeps_logprobs:
            self._waiting += piece.shown_logprobs
        if not delta:
            return []
        if delta.reasoning:
            self.num_reasoning += self._num_waiting
        tokens = self._last_of(delta.content)
        self._num_waiting = 0
        self._waiting.clear()
        shown = chat_logprobs(self._model.need_tokenizer(), tokens) if tokens else {}
        return list(shown.get("content", ()))

    def _last_of(self, content: str) -> list[TokenLogprobs]:
        """As many as the content needs: what was before them are marks and white space."""
        if not self._waiting:
            return []
        tokenizer = self._model.need_tokenizer()
        first, missing = len(self._waiting), len(content.encode())
        while first and missing > 0:
            first -= 1
            missing -= len(tokenizer.token_bytes(self._waiting[first].token_id))
        return self._waiting[first:]
