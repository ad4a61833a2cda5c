"""Requests sent to a server at a rate, so many at once at most."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen3_codegen.bench.requests import AnswerTimes, Wanted, ask
from qwen3_codegen.bench.stream import Address, StreamError, exchange
from qwen3_codegen.errors import CodegenError

__all__ = ["Load", "arrival_times", "run_load", "served_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a server is put under."""

    wanted: Sequence[Wanted]
    concurrency: int
    """Most requests in flight."""
    request_rate: float = math.inf
    """Requests per second, on average; ``inf`` sends as soon as there is room."""
    seed: int = 0
    """Of the arrival times."""


def arrival_times(count: int, rate: float, seed: int) -> list[float]:
    """Returns when requests are sent, in seconds: a Poisson process, the first at 0."""
    draw = random.Random(seed)
    times = [0.0] * count
    for index in range(1, count):
        times[index] = times[index - 1] + (0.0 if math.isinf(rate) else draw.expovariate(rate))
    return times


async def run_load(
    address: Address,
    model: str,
    load: Load,
    on_answer: Callable[[AnswerTimes], None] = lambda answer: None,
) -> list[AnswerTimes]:
    """Sends all requests and returns how each went, in the order of the requests.

    Args:
        address: The server's.
        model: Name to ask for.
        load: What to send.
        on_answer: Called with each answer when it is complete.
    """
    places = asyncio.Semaphore(load.concurrency)
    began = time.perf_counter()

    async def send(wanted: Wanted, after: float) -> AnswerTimes:
        await asyncio.sleep(max(0.0, began + after - time.perf_counter()))
        async with places:
            answer = await ask(address, model, wanted)
        on_answer(answer)
        return answer

    arrivals = arrival_times(len(load.wanted), load.request_rate, load.seed)
    sends = [send(wanted, after) for wanted, after in zip(load.wanted, arrivals, strict=True)]
    return list(await asyncio.gather(*sends))


async def served_model(address: Address) -> str:
    """Returns the first name a server serves.

    Raises:
        CodegenError: There is no such server, or it lists no model.
    """
    try:
        answer = await exchange(address, "GET", "/v1/models")
        if answer.status != 200:
            raise StreamError(f"HTTP {answer.status}")
        return str(json.loads(answer.body)["data"][0]["id"])
    except (StreamError, ValueError, LookupError, TypeError) as error:
        raise CodegenError(
            "the server names no model",
            where=f"{address.host}:{address.port}",
            got=error,
            hint="--url names a server that speaks OpenAI's API",
        ) from None
