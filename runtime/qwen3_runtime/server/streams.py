"""Answers on their way: whole, or as server-sent events; and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from qwen3_runtime.server.errors import ApiError, api_error
from qwen3_runtime.server.generation import Answers
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.wire import JsonResponse, json_bytes

__all__ = ["CHUNKS", "Completion", "EventForm", "EventStream", "respond", "unless_disconnected"]

T = TypeVar("T")

_PING_SECONDS = 15.0
_PING = b": still here\n\n"
"""A comment: keeps proxies from closing the connection, and clients never see it."""


@dataclass(frozen=True, slots=True)
class EventForm:
    """How a protocol writes server-sent events."""

    error: Callable[[ApiError], dict[str, Any]]
    """What an event says of a failure."""
    is_named: bool = False
    """Whether the ``type`` of what is sent is the event's name, too."""
    end: bytes = b""
    """What comes after all events."""

    def event(self, body: dict[str, Any]) -> bytes:
        """Returns an event as it is sent."""
        name = f"event: {body['type']}\n".encode() if self.is_named else b""
        return name + b"data: " + json_bytes(body) + b"\n\n"

    def events(self, bodies: Iterable[dict[str, Any]]) -> bytes:
        """Returns several."""
        return b"".join(map(self.event, bodies))


CHUNKS = EventForm(error=lambda error: error.body, end=b"data: [DONE]\n\n")
"""OpenAI's chunks of completions."""


class Completion(Protocol):
    """What a route makes of the pieces of its answers."""

    @property
    def event_form(self) -> EventForm:
        """How its stream is written."""

    def first_chunks(self) -> Iterable[dict[str, Any]]:
        """Returns what a stream begins with."""

    def chunks(self, index: int, piece: TextPiece) -> Iterable[dict[str, Any]]:
        """Returns what a stream says of a piece of answer ``index``."""

    def last_chunks(self) -> Iterable[dict[str, Any]]:
        """Returns what a stream ends with, after all pieces."""

    def add(self, index: int, piece: TextPiece) -> None:
        """Keeps a piece for ``body``."""

    def body(self) -> dict[str, Any]:
        """Returns the whole, after all pieces."""


async def respond(
    request: Request, completion: Completion, answers: Answers, *, stream: bool, seconds: float
) -> Response:
    """Returns the answer a client asked for, whole or as it comes.

    Args:
        request: The client's.
        completion: Gives the answer its form.
        answers: Closed when it is over.
        stream: Whether the client wants it as it comes.
        seconds: Longest time it may take.

    Raises:
        ApiError: It took too long, or the client is gone.
        RuntimeFault: A step failed, or the engine is gone.
    """
    if stream:
        return EventStream(completion, answers, seconds)
    try:
        await unless_disconnected(request, _collect(completion, answers), seconds)
    finally:
        answers.close()
    return JsonResponse(completion.body())


async def _collect(completion: Completion, answers: Answers) -> None:
    while not answers.is_over:
        for index, piece in await answers.take():
            completion.add(index, piece)


async def unless_disconnected(request: Request, work: Awaitable[T], seconds: float) -> T:
    """Awaits work for a client that waits for the whole answer.

    Raises:
        ApiError: 408 when it takes too long; 499 when the client is gone, which nobody reads.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.create_task(_disconnected(request.receive))
    try:
        done, _ = await asyncio.wait(
            {task, watcher}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            return await task
        if watcher in done:
            raise ApiError(499, "the client is gone")
        raise _too_slow()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


def _too_slow() -> ApiError:
    return ApiError(408, "the request took longer than this server lets one take", code="timeout")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Answers as server-sent events, while they come.

    A failure on the way is an event with an error object. From a token to the socket is one task
    and no queue: what this costs, the engine does not get.

    Args:
        completion: Gives the answers their form.
        answers: What to send; closed when it is over.
        seconds: Longest time it may take.
    """

    media_type = "text/event-stream"

    def __init__(self, completion: Completion, answers: Answers, seconds: float) -> None:
        self.status_code = 200
        self.background = None
        self._completion = completion
        self._answers = answers
        self._seconds = seconds
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it, unless the client leaves, or takes nothing for far too long."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait(
                {sending, leaving},
                timeout=self._seconds + _PING_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if sending.done():
                await sending
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._answers.close()

    async def _send(self, send: Send) -> None:
        async def write(content: bytes, more_body: bool = True) -> None:
            await send({"type": "http.response.body", "body": content, "more_body": more_body})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        completion, answers, form = self._completion, self._answers, self._completion.event_form
        silence = _Silence(answers, self._seconds)
        try:
            await write(form.events(completion.first_chunks()))
            while not answers.is_over:
                pieces = await answers.take()
                silence.check_time()
                content = b"".join(form.events(completion.chunks(*piece)) for piece in pieces)
                if not content and silence.is_long:
                    content = _PING
                if content:
                    await write(content)
                    silence.begin()
            await write(form.events(completion.last_chunks()))
        except Exception as error:
            await write(form.event(form.error(api_error(error))))
        finally:
            silence.end()
        await write(form.end, more_body=False)


class _Silence:
    """The time since a client last heard something; nudges the answers when it gets long.

    Args:
        answers: Whose ``take`` is to return.
        seconds: Longest time for all of it.
    """

    def __init__(self, answers: Answers, seconds: float) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._end = self._last + seconds
        self._timer = self._loop.call_at(self._next, self._ring)

    @property
    def is_long(self) -> bool:
        """Whether it is time for a sign of life."""
        return self._loop.time() >= self._last + _PING_SECONDS

    def begin(self) -> None:
        """Notes that the client hears something now."""
        self._last = self._loop.time()

    def check_time(self) -> None:
        """Raises ``ApiError`` 408 when there is none left."""
        if self._loop.time() >= self._end:
            raise _too_slow()

    def end(self) -> None:
        """Nudges no more."""
        self._timer.cancel()

    @property
    def _next(self) -> float:
        return min(self._last + _PING_SECONDS, self._end)

    def _ring(self) -> None:
        """One timer for the whole answer: it looks when it rings, not whenever a token comes."""
        now, due = self._loop.time(), self._next
        if now >= due:
            self._answers.nudge()
            due = now + _PING_SECONDS if now >= self._end else min(now + _PING_SECONDS, self._end)
        self._timer = self._loop.call_at(due, self._ring)
