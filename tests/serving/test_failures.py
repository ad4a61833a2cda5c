"""A step that fails is an error of its own requests, over HTTP too; a leak is said at the end."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import threading
from contextlib import asynccontextmanager

import httpx2 as httpx
import pytest

from qwen3_runtime.engine.core import EngineRequest
from qwen3_runtime.engine.scheduler import Scheduler
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server.app import create_app
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.settings import ServerSettings
from qwen3_runtime.serving import EngineClient
from qwen3_runtime.serving.messages import Add, Outputs, Stop
from qwen3_runtime.serving.worker import run_engine
from tests.serving.loading import ToyLoader

GREEDY = SamplingParams(temperature=0.0)
PROMPT = [3, 1, 4, 1, 5]


@asynccontextmanager
async def served(loader: ToyLoader):
    model = ServedModel(
        client=EngineClient(loader),
        settings=ServerSettings(model_names=("toy",)),
        tokenizer=None,
        end_token_ids=frozenset(),
        default_params=GREEDY,
        default_params_without_thinking=GREEDY,
    )
    app = create_app(model)
    async with app.router.lifespan_context(app):
        await model.client.wait_until_loaded()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://toy") as http:
            yield http, model.client


async def complete(http: httpx.AsyncClient, **fields: object) -> httpx.Response:
    body = {"model": "toy", "prompt": PROMPT, "max_tokens": 8, **fields}
    return await http.post("/v1/completions", json=body, timeout=30)


def test_a_failing_step_over_http():
    async def serve():
        async with served(ToyLoader(0.05, fails_at=(4,))) as (http, client):
            whole, streamed = await asyncio.gather(
                complete(http), complete(http, prompt=[*PROMPT, 9], stream=True)
            )
            assert whole.status_code == 500
            error = whole.json()["error"]
            assert "the engine failed" in error["message"]
            assert set(error) == {"message", "type", "param", "code"}
            events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data:")]
            assert "the engine failed" in json.loads(events[-2])["error"]["message"]
            assert events[-1] == "[DONE]"
            after = await complete(http)
            assert after.status_code == 200
            assert after.json()["usage"]["completion_tokens"] == 8
            assert client.status.num_free_blocks == client.status.num_blocks

    asyncio.run(serve())


def run_to_the_end() -> None:
    """An engine's process with one request, here, so that it can be spoilt."""
    their_commands, commands = multiprocessing.Pipe(duplex=False)
    news, their_news = multiprocessing.Pipe(duplex=False)
    request = EngineRequest(
        request_id="a", prompt_token_ids=tuple(PROMPT), params=GREEDY, max_tokens=3
    )

    def feed() -> None:
        commands.send(Add(request))
        while True:
            match news.recv():
                case Outputs(outputs) if any(output.finish_reason for output in outputs):
                    break
        commands.send(Stop())

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    before = signal.getsignal(signal.SIGINT)
    try:
        run_engine(ToyLoader(), their_commands, their_news, None)
    finally:
        signal.signal(signal.SIGINT, before)
        feeder.join()


def test_the_end_of_an_engine_in_order(capfd):
    run_to_the_end()
    assert "error" not in capfd.readouterr().err


def test_an_engine_that_lost_a_block_says_so(monkeypatch, capfd):
    give_back = Scheduler._give_back

    def leak(self: Scheduler, sequence) -> None:
        for blocks in sequence.blocks:
            blocks.pop()
        give_back(self, sequence)

    monkeypatch.setattr(Scheduler, "_give_back", leak)
    with pytest.raises(SystemExit) as end:
        run_to_the_end()
    assert end.value.code == 1
    assert "error: the engine lost account of its cache" in capfd.readouterr().err
