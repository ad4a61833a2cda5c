"""Streams by themselves: comments while nothing comes, and generators that are always closed."""

from __future__ import annotations

import asyncio
import json

import pytest

from qwen3_runtime.server import streams
from qwen3_runtime.server.streams import EventStream, merged


async def body_of(stream: EventStream, receive) -> bytes:
    sent = bytearray()

    async def send(message) -> None:
        sent.extend(message.get("body", b""))

    await stream({"type": "http"}, receive, send)
    return bytes(sent)


async def never():
    await asyncio.Event().wait()


def test_comments_while_nothing_comes(monkeypatch):
    monkeypatch.setattr(streams, "_PING_SECONDS", 0.05)
    closed = []

    async def chunks():
        await asyncio.sleep(0.2)
        yield {"text": "ü\ud800"}

    stream = EventStream(chunks(), 10, lambda: closed.append(True))
    events = asyncio.run(body_of(stream, never)).decode().removesuffix("\n\n").split("\n\n")
    *comments, chunk, done = events
    assert len(comments) >= 2
    assert all(comment.startswith(":") for comment in comments)
    assert json.loads(chunk.removeprefix("data: ")) == {"text": "ü?"}
    assert done == "data: [DONE]"
    assert closed == [True]


@pytest.mark.parametrize("is_talking", [True, False])
def test_a_client_that_leaves_closes_everything(is_talking):
    closed = []

    async def chunks():
        try:
            while True:
                yield {}
                await (asyncio.sleep(0.01) if is_talking else never())
        finally:
            closed.append("chunks")

    async def leave():
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    stream = EventStream(chunks(), 10, lambda: closed.append("work"))
    asyncio.run(asyncio.wait_for(body_of(stream, leave), 5))
    assert closed == ["chunks", "work"]


def test_a_failure_closes_the_other_sources():
    closed = []

    async def source(name: str, fails: bool):
        try:
            for index in range(100):
                yield index
                await asyncio.sleep(0.001)
                if fails and index == 3:
                    raise ValueError("broken")
        finally:
            closed.append(name)

    async def read():
        async for _ in merged([source("a", False), source("b", True)]):
            pass

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(read())
    assert sorted(closed) == ["a", "b"]
