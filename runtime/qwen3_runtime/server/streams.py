"""Several answers at once, server-sent events, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from qwen3_runtime.server.errors import ApiError, api_error
from qwen3_runtime.server.pings import with_pings
from qwen3_runtime.server.wire import json_bytes

__all__ = ["EventStream", "merged", "unless_disconnected"]

T = TypeVar("T")

_PING_SECONDS = 15.0
_PING = b": still here\n\n"
"""A comment: keeps proxies from closing the connection, and clients never see it."""


async def merged(
    sources: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """Yields what several generators give, as it comes, with the number of its source.

    Leaving early closes all of them; a failure of one is raised after the others are closed.
    """
    if len(sources) == 1:  # the most common case, without a task and a queue
        async with aclosing(sources[0]) as only:
            async for first in only:
                yield 0, first
        return
    queue: asyncio.Queue[tuple[int, T | None]] = asyncio.Queue()

    async def forward(index: int, source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    queue.put_nowait((index, item))
        finally:
            queue.put_nowait((index, None))

    tasks = [asyncio.create_task(forward(*entry)) for entry in enumerate(sources)]
    try:
        for _ in tasks:
            while True:
                index, item = await queue.get()
                if item is None:
                    await tasks[index]  # raises what went wrong there
                    break
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


class EventStream(StreamingResponse):
    """Chunks as OpenAI's server-sent events, ended by ``[DONE]``.

    A failure on the way is an event with an error object.

    Args:
        chunks: What to send.
        seconds: Longest time it may take.
        on_close: Called when it is over, because all was sent or the client left.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[dict[str, Any], None],
        seconds: float,
        on_close: Callable[[], None],
    ) -> None:
        self._events = _events(chunks, seconds)
        self._seconds = seconds
        self._on_close = on_close
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._events, media_type="text/event-stream", headers=headers)

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
            self._on_close()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._events):
            await self.stream_response(send)


async def _events(
    chunks: AsyncGenerator[dict[str, Any], None], seconds: float
) -> AsyncGenerator[bytes, None]:
    pings = with_pings(
        _written(chunks), ping=_PING, every=_PING_SECONDS, seconds=seconds, too_slow=_too_slow()
    )
    async with aclosing(pings) as events:
        try:
            async for event in events:
                yield event
        except Exception as error:
            yield _event(api_error(error).body)
    yield b"data: [DONE]\n\n"


async def _written(chunks: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield _event(chunk)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json_bytes(body) + b"\n\n"
