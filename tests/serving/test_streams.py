"""Events pass as they come; pings fill silence, a limit ends it, leaving closes the source."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from qwen3_runtime.server.pings import with_pings
from qwen3_runtime.server.streams import merged


class Source:
    """Gives numbers after pauses, then fails or ends."""

    def __init__(self, pauses: list[float], failure: Exception | None = None) -> None:
        self.pauses, self.failure, self.is_closed = pauses, failure, False

    async def events(self):
        try:
            for number, pause in enumerate(self.pauses):
                await asyncio.sleep(pause)
                yield str(number)
            if self.failure is not None:
                raise self.failure
        finally:
            self.is_closed = True


def pinged(source: Source, seconds: float = 30.0):
    limit = TimeoutError("too slow")
    return with_pings(source.events(), ping="ping", every=0.1, seconds=seconds, too_slow=limit)


async def collect(events, found: list) -> None:
    async with aclosing(events):
        async for event in events:
            found.append(event)


async def drained(source: Source, **options: float) -> list[str]:
    found: list[str] = []
    await collect(pinged(source, **options), found)
    return found


def test_events_without_silence():
    source = Source([0.0] * 50 + [0.01] * 30)
    assert asyncio.run(drained(source)) == [str(number) for number in range(80)]
    assert source.is_closed


def test_silence_is_filled():
    found = asyncio.run(drained(Source([0.0, 0.45, 0.0])))
    assert [event for event in found if event != "ping"] == ["0", "1", "2"]
    assert 3 <= found.count("ping") <= 4
    assert found[1] == "ping"
    assert found[-1] == "2"


def test_a_limit_ends_it():
    source = Source([0.02] * 1000)
    with pytest.raises(TimeoutError, match="too slow"):
        asyncio.run(drained(source, seconds=0.2))
    assert source.is_closed


def test_a_failure_comes_after_what_was_before_it():
    async def read():
        found = []
        with pytest.raises(ValueError, match="broken"):
            await collect(pinged(Source([0.0, 0.0], ValueError("broken"))), found)
        return found

    assert asyncio.run(read()) == ["0", "1"]


def test_leaving_closes_the_source():
    async def leave():
        source = Source([0.0, 60.0])
        async with aclosing(pinged(source)) as events:
            assert await anext(events) == "0"
        return source

    assert asyncio.run(leave()).is_closed


@pytest.mark.parametrize("count", [1, 2])
def test_merged_sources_close_and_fail_alike(count):
    async def read():
        sources = [Source([0.0, 0.01], ValueError("broken")) for _ in range(count)]
        found = []
        with pytest.raises(ValueError, match="broken"):
            await collect(merged([source.events() for source in sources]), found)
        return sources, found

    sources, found = asyncio.run(read())
    assert all(source.is_closed for source in sources)
    assert {(index, "0") for index in range(count)} <= set(found)
