"""``POST /v1/messages``: Anthropic's form of a conversation's next turn."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qwen3_runtime.chat import AnswerDelta, ToolCallDelta
from qwen3_runtime.server.errors import messages_error
from qwen3_runtime.server.messages_request import (
    CountTokensRequest,
    MessagesRequest,
    chat_request,
)
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.streams import EventForm, respond
from qwen3_runtime.server.tools import tool_wish
from qwen3_runtime.server.turns import ChatTurn, begin_turn, render_turn
from qwen3_runtime.server.usage import Usage
from qwen3_runtime.server.wire import JsonResponse

__all__ = ["messages_router"]

_EVENTS = EventForm(error=messages_error, is_named=True)
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def messages_router(model: ServedModel, metrics: Metrics) -> APIRouter:
    """Returns the routes of messages."""
    router = APIRouter(tags=["messages"])

    @router.post("/v1/messages")
    async def create_message(body: MessagesRequest, request: Request) -> Response:
        turn = await begin_turn(model, metrics, chat_request(body))
        return await respond(
            request,
            _Message(turn),
            turn.answers,
            stream=bool(body.stream),
            seconds=model.settings.request_seconds,
        )

    @router.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountTokensRequest) -> Response:
        model.check_name(body.model)
        model.require_engine()
        request = chat_request(body)
        rendered = await render_turn(model, request, tool_wish(request))
        return JsonResponse({"input_tokens": len(rendered.token_ids)})

    return router


class _Message:
    """A checked request; gives its answer whole or in events."""

    event_form = _EVENTS

    def __init__(self, turn: ChatTurn) -> None:
        (self._choice,) = turn.choices
        self._usage = turn.usage
        self._blocks = _Blocks()
        self._stop_sequence: str | None = None
        self._head = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": turn.model_name,
        }

    def add(self, index: int, piece: TextPiece) -> None:
        """See ``Completion``."""
        for block, text in self._blocks.add(self._take(piece)):
            block.pieces.append(text)

    def body(self) -> dict[str, Any]:
        """See ``Completion``."""
        content = [block.body for block in self._blocks.all]
        return {**self._head, "content": content, **self._end, "usage": _usage(self._usage)}

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``; what the cache had is not known before the first token."""
        message: dict[str, Any] = {**self._head, "content": [], "usage": _usage(self._usage)}
        message |= {"stop_reason": None, "stop_sequence": None}
        yield {"type": "message_start", "message": message}
        yield {"type": "ping"}

    def chunks(self, index: int, piece: TextPiece) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        opened = self._blocks.last
        for block, text in self._blocks.add(self._take(piece)):
            if block is not opened:
                yield from _stopped(opened)
                yield block.start
                opened = block
            if text:
                yield block.delta(text)

    def last_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        yield from _stopped(self._blocks.last)
        yield {"type": "message_delta", "delta": self._end, "usage": _usage(self._usage)}
        yield {"type": "message_stop"}

    def _take(self, piece: TextPiece) -> AnswerDelta:
        self._usage.add(piece)
        self._stop_sequence = piece.stopped_by
        return self._choice.take(piece)

    @property
    def _end(self) -> dict[str, Any]:
        reason = _STOP_REASONS[self._choice.finish_reason or "stop"]
        if self._stop_sequence is not None:
            reason = "stop_sequence"
        return {"stop_reason": reason, "stop_sequence": self._stop_sequence}


def _usage(usage: Usage) -> dict[str, int]:
    """As Anthropic counts: what came from the cache is no part of ``input_tokens``."""
    return {
        "input_tokens": usage.num_prompt_tokens - usage.num_cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached_tokens,
        "output_tokens": usage.num_completion_tokens,
    }


def _stopped(block: _Block | None) -> Iterator[dict[str, Any]]:
    if block is None:
        return
    if block.kind == "thinking":  # clients keep no thought that is not signed
        signature = {"type": "signature_delta", "signature": ""}
        yield {"type": "content_block_delta", "index": block.index, "delta": signature}
    yield {"type": "content_block_stop", "index": block.index}


@dataclass(slots=True)
class _Block:
    """Part of the content: text, a thought or a call."""

    index: int
    kind: str
    call: ToolCallDelta | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def start(self) -> dict[str, Any]:
        """The event that begins it."""
        return {
            "type": "content_block_start",
            "index": self.index,
            "content_block": self._body("", {}),
        }

    @property
    def body(self) -> dict[str, Any]:
        """The whole block."""
        text = "".join(self.pieces)
        return self._body(text, _object(text) if self.call is not None else {})

    def delta(self, text: str) -> dict[str, Any]:
        """Returns the event that says more of it."""
        match self.kind:
            case "text":
                delta = {"type": "text_delta", "text": text}
            case "thinking":
                delta = {"type": "thinking_delta", "thinking": text}
            case _:
                delta = {"type": "input_json_delta", "partial_json": text}
        return {"type": "content_block_delta", "index": self.index, "delta": delta}

    def _body(self, text: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.call is not None:
            named = {"id": self.call.id, "name": self.call.name}
            return {"type": "tool_use", **named, "input": arguments}
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": text, "signature": ""}
        return {"type": "text", "text": text}


class _Blocks:
    """The blocks of an answer, one after another; only the last one grows."""

    def __init__(self) -> None:
        self.all: list[_Block] = []

    @property
    def last(self) -> _Block | None:
        """The one that may still grow."""
        return self.all[-1] if self.all else None

    def add(self, delta: AnswerDelta) -> Iterator[tuple[_Block, str]]:
        """Yields what has come, each with its block, the last one or one that begins with it."""
        calls = list(delta.tool_calls)
        # The end of a call comes before the text after it, which comes before the next call.
        while calls and calls[0].id is None:
            yield self.all[-1], calls.pop(0).arguments
        if delta.reasoning:
            yield self._of_kind("thinking"), delta.reasoning
        if delta.content:
            yield self._of_kind("text"), delta.content
        for call in calls:
            if call.id is not None:
                self.all.append(_Block(len(self.all), "tool_use", call))
            yield self.all[-1], call.arguments

    def _of_kind(self, kind: str) -> _Block:
        if self.last is None or self.last.kind != kind:
            self.all.append(_Block(len(self.all), kind))
        return self.all[-1]


def _object(text: str) -> dict[str, Any]:
    """Arguments of a call; empty where the answer ended in the midst of them."""
    try:
        value = json.loads(text or "{}", parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _finite(text: str) -> float | None:
    """A number that JSON can say again."""
    number = float(text)
    return number if math.isfinite(number) else None


def _no_number(text: str) -> None:
    """``NaN`` and ``Infinity``, which models may write, are no JSON."""
