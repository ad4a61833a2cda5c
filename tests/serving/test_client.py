"""The engine in its own process: streams, refusals, cancellation, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager

import pytest

from qwen3_runtime.engine.core import EngineRequest
from qwen3_runtime.errors import EngineError, QueueFullError, RequestError
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.serving import EngineClient, EngineState
from tests.engine.toy_engine import answer
from tests.serving.loading import ToyLoader
from tests.serving.processes import cpu_seconds

GREEDY = SamplingParams(temperature=0.0)
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def request(name: str, prompt=PROMPT, max_tokens: int = 6) -> EngineRequest:
    return EngineRequest(
        request_id=name, prompt_token_ids=tuple(prompt), params=GREEDY, max_tokens=max_tokens
    )


@asynccontextmanager
async def engine(loader: ToyLoader, **options):
    client = EngineClient(loader, **options)
    client.start()
    try:
        await client.wait_until_loaded()
        yield client
    finally:
        await client.stop()


async def tokens(client: EngineClient, wanted: EngineRequest) -> list[int | None]:
    stream = await client.submit([wanted])
    found = []
    try:
        while True:
            for _, output in await stream.take():
                found.append(output.token_id)
                if output.finish_reason is not None:
                    return found
    finally:
        stream.close()


def test_streams_beside_each_other():
    async def serve():
        heard = []
        async with engine(ToyLoader(), on_progress=heard.append) as client:
            assert client.facts.max_model_len == 160
            prompts = [[*PROMPT, index] for index in range(12)]
            found = await asyncio.gather(
                *(tokens(client, request(str(i), p)) for i, p in enumerate(prompts))
            )
            assert found == [answer(prompt, 6) for prompt in prompts]
        assert heard == ["reading toys"]
        assert client.state is EngineState.STOPPED

    asyncio.run(serve())


def test_refusals_reach_their_own_request():
    async def serve():
        options = {"max_num_seqs": 1}
        async with engine(ToyLoader(0.05, options=options), max_queue=1) as client:
            running = asyncio.create_task(tokens(client, request("running", max_tokens=20)))
            await asyncio.sleep(0.3)
            waiting = asyncio.create_task(tokens(client, request("waiting")))
            await asyncio.sleep(0.2)
            with pytest.raises(QueueFullError):
                await tokens(client, request("one too many"))
            with pytest.raises(RequestError, match="maximum context length is 160"):
                await tokens(client, request("long", [1] * 200))
            assert (client.status.num_running, client.status.num_waiting) == (1, 1)
            assert await waiting == answer(PROMPT, 6)
            assert await running == answer(PROMPT, 20)

    asyncio.run(serve())


def test_leaving_ends_the_work():
    async def serve():
        async with engine(ToyLoader(0.02)) as client:
            left = asyncio.create_task(tokens(client, request("left", max_tokens=150)))
            await asyncio.sleep(0.3)
            assert client.status.num_running == 1
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            for _ in range(100):
                await asyncio.sleep(0.02)
                if client.status.num_running == 0:
                    break
            assert client.status.num_running == 0
            assert client.status.num_free_blocks == client.status.num_blocks

    asyncio.run(serve())


def test_a_failing_step_is_an_error_of_its_requests_alone():
    async def serve():
        async with engine(ToyLoader(0.01, fails_at=(3,))) as client:
            with pytest.raises(EngineError, match="the device is gone"):
                await tokens(client, request("first"))
            assert await tokens(client, request("second")) == answer(PROMPT, 6)

    asyncio.run(serve())


def test_what_cannot_be_loaded_says_why():
    async def serve():
        with pytest.raises(EngineError, match=r"toys\.safetensors: it is torn"):
            async with engine(ToyLoader(fails="it is torn")):
                pass

    asyncio.run(serve())


def test_nobody_waits_for_a_process_that_is_gone():
    async def serve():
        async with engine(ToyLoader(0.05)) as client:
            waiting = asyncio.create_task(tokens(client, request("a", max_tokens=150)))
            await asyncio.sleep(0.2)
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(EngineError, match="process is gone"):
                await asyncio.wait_for(waiting, 5)
            assert client.state is EngineState.FAILED
            with pytest.raises(EngineError, match="not there"):
                await tokens(client, request("b"))

    asyncio.run(serve())


def test_an_idle_engine_takes_no_time():
    async def serve():
        async with engine(ToyLoader()) as client:
            await tokens(client, request("a"))
            before, started = cpu_seconds(client.pid), time.monotonic()
            await asyncio.sleep(1.0)
            spent = cpu_seconds(client.pid) - before
            assert spent < 0.1 * (time.monotonic() - started)

    asyncio.run(serve())
