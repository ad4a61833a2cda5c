"""What comes of requests reaches its reader: all of it, in order, and faults after it."""

from __future__ import annotations

import asyncio

import pytest

from qwen3_runtime.engine.core import TokenOutput
from qwen3_runtime.errors import EngineError, QueueFullError
from qwen3_runtime.serving import TokenStream

FAULT = EngineError("a step failed")


class Opened:
    """A stream of requests a, b, ...; notes what is left."""

    def __init__(self, count: int = 1) -> None:
        self.left: list[tuple[str, bool]] = []
        ids = [chr(ord("a") + index) for index in range(count)]
        self.stream = TokenStream(ids, lambda *entry: self.left.append(entry))


def output(request_id: str, token: int | None, **more: object) -> TokenOutput:
    return TokenOutput(request_id, token, **more)


async def soon(action, *arguments) -> None:
    asyncio.get_running_loop().call_later(0.02, action, *arguments)


def test_all_that_came_is_taken_at_once_in_order():
    async def read():
        stream = Opened(2).stream
        given = [output("a", 1), output("b", 2), output("a", 3)]
        for each in given:
            stream.put(each)
        assert await stream.take() == list(zip((0, 1, 0), given, strict=True))
        await soon(stream.put, output("b", 4))
        assert await stream.take() == [(1, output("b", 4))]

    asyncio.run(read())


def test_accepted_waits_for_all():
    async def read():
        stream = Opened(2).stream
        stream.accept("a")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.accepted(), 0.05)
        await soon(stream.accept, "b")
        await asyncio.wait_for(stream.accepted(), 5)

    asyncio.run(read())


def test_one_refusal_refuses_all():
    async def read():
        opened = Opened(3)
        stream = opened.stream
        stream.accept("a")
        await soon(stream.fail, ["b"], QueueFullError("too many"))
        with pytest.raises(QueueFullError):
            await stream.accepted()
        stream.close()
        assert opened.left == [("a", True), ("b", False), ("c", True)]

    asyncio.run(read())


@pytest.mark.parametrize("by_output", [True, False])
def test_a_fault_comes_after_what_was_before_it(by_output):
    async def read():
        stream = Opened(2).stream
        stream.put(output("a", 1))
        if by_output:
            stream.put(output("b", None, finish_reason="error", error=FAULT))
        else:
            stream.fail(["a", "b"], FAULT)
        assert await stream.take() == [(0, output("a", 1))]
        for _ in range(2):
            with pytest.raises(EngineError, match="a step failed"):
                await stream.take()

    asyncio.run(read())


def test_a_nudge_ends_one_wait():
    async def read():
        stream = Opened().stream
        await soon(stream.nudge)
        assert await stream.take() == []
        await soon(stream.put, output("a", 1))
        assert await stream.take() == [(0, output("a", 1))]
        stream.nudge()
        stream.put(output("a", 2))
        assert await stream.take() == [(0, output("a", 2))]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.take(), 0.05)

    asyncio.run(read())


def test_the_engine_hears_once_of_what_is_left():
    opened = Opened(3)
    stream = opened.stream
    stream.put(output("c", 5, finish_reason="stop"))
    stream.leave(1)
    assert opened.left == [("b", True)]
    stream.close()
    stream.close()
    assert opened.left == [("b", True), ("a", True), ("c", False)]
