"""Signs of life between the events of a stream, and its end in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

__all__ = ["with_pings"]

T = TypeVar("T")


async def with_pings(
    events: AsyncGenerator[T, None],
    *,
    ping: T,
    every: float,
    seconds: float,
    too_slow: Exception,
) -> AsyncGenerator[T, None]:
    """Yields events as they come, and pings while none does.

    One task reads all events, rather than a task each, which small models would feel: their tokens
    take a few milliseconds, on the processors that the serving process shares with the engine.

    Args:
        events: What to send; closed at the end.
        ping: What stands for "still here".
        every: Seconds without an event before a ping.
        seconds: Longest time for all of it.
        too_slow: Raised when that is over.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | Exception | None] = asyncio.Queue()
    last = loop.time()

    async def read() -> None:
        nonlocal last
        try:
            async for event in events:
                last = loop.time()
                queue.put_nowait(event)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)
        finally:
            await events.aclose()

    async def fill() -> None:
        nonlocal last
        while True:
            await asyncio.sleep(last + every - loop.time())
            if loop.time() - last >= every:
                last = loop.time()
                queue.put_nowait(ping)

    end = loop.call_later(seconds, queue.put_nowait, too_slow)
    tasks = [asyncio.create_task(read()), asyncio.create_task(fill())]
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        end.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
