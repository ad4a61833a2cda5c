"""Streams by themselves: signs of life while nothing comes, limits, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qwen3_runtime.engine.core import EngineRequest, TokenOutput
from qwen3_runtime.errors import EngineError
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server import ServerSettings, streams
from qwen3_runtime.server.generation import Answers, AnswerWish, submit_answers
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.streams import CHUNKS, EventStream
from qwen3_runtime.serving import EngineClient, TokenStream
from tests.serving.loading import ToyLoader

WISH = AnswerWish(prompt_token_ids=[1, 2], params=SamplingParams(), max_tokens=9, seed=0)


class Counted:
    """The form of a stream that says how many tokens came."""

    event_form = CHUNKS

    def first_chunks(self):
        yield {"text": "ü\ud800"}

    def chunks(self, index, piece):
        yield {"index": index, "tokens": piece.num_tokens}

    def last_chunks(self):
        yield {"last": True}


class Stream:
    """An event stream whose engine is the test."""

    def __init__(self, count: int = 1, seconds: float = 10) -> None:
        self.left: list[str] = []
        self.metrics = Metrics(EngineClient(ToyLoader()))
        self.tokens = TokenStream(
            [str(index) for index in range(count)], lambda name, _: self.left.append(name)
        )
        watches = [self.metrics.watch(len(WISH.prompt_token_ids)) for _ in range(count)]
        answers = Answers([WISH] * count, self.tokens, None, watches)
        self.events = EventStream(Counted(), answers, seconds)
        self.sent = bytearray()

    def put(self, index: int, token: int, reason: str | None = None) -> None:
        self.tokens.put(TokenOutput(str(index), token, reason))

    async def send(self, receive) -> list[str]:
        async def take(message) -> None:
            self.sent.extend(message.get("body", b""))

        await asyncio.wait_for(self.events({"type": "http"}, receive, take), 5)
        return self.sent.decode().removesuffix("\n\n").split("\n\n")

    def count(self, name: str) -> float:
        return count(self.metrics, name)


def count(metrics: Metrics, name: str) -> float:
    families = text_string_to_metric_families(metrics.text().decode())
    samples = [sample for family in families for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == f"qwen3_codegen_{name}")


async def never():
    await asyncio.Event().wait()


def read(event: str) -> dict:
    return json.loads(event.removeprefix("data: "))


def test_what_comes_at_once_is_sent_in_order():
    async def run():
        stream = Stream(2)
        for entry in ((0, 5), (1, 6), (1, 7, "stop"), (0, 8, "length")):
            stream.put(*entry)
        first, *chunks, last, done = await stream.send(never)
        assert read(first) == {"text": "ü?"}
        assert [read(chunk)["index"] for chunk in chunks] == [0, 1, 1, 0]
        assert (read(last), done) == ({"last": True}, "data: [DONE]")
        assert stream.left == ["1", "0"]  # each as soon as it is over
        assert stream.count("request_success_total") == 2
        assert stream.count("generation_tokens_total") == 4

    asyncio.run(run())


def test_comments_while_nothing_comes(monkeypatch):
    monkeypatch.setattr(streams, "_PING_SECONDS", 0.1)

    async def run():
        stream = Stream()
        loop = asyncio.get_running_loop()
        for moment in (0.05, 0.12, 0.55):  # the second of them before any silence
            loop.call_later(moment, stream.put, 0, 5)
        loop.call_later(0.6, stream.put, 0, 5, "stop")
        events = await stream.send(never)
        assert [event.startswith(":") for event in events[:3]] == [False] * 3
        assert 3 <= sum(event.startswith(":") for event in events) <= 4

    asyncio.run(run())


def test_a_limit_ends_it():
    async def run():
        stream = Stream(seconds=0.2)

        async def talk():
            while True:
                stream.put(0, 5)
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(talk())
        *_, error, done = await stream.send(never)
        talking.cancel()
        assert read(error)["error"]["code"] == "timeout"
        assert done == "data: [DONE]"
        assert stream.left == ["0"]

    asyncio.run(run())


def test_a_limit_ends_silence_too():
    async def run():
        stream = Stream(seconds=0.2)
        started = time.monotonic()
        *_, error, _ = await stream.send(never)
        assert read(error)["error"]["code"] == "timeout"
        assert time.monotonic() - started >= 0.2

    asyncio.run(run())


def test_a_failure_is_an_event():
    async def run():
        stream = Stream(2)
        stream.put(0, 5)
        stream.tokens.fail(["0", "1"], EngineError("the device is gone"))
        _, chunk, error, done = await stream.send(never)
        assert read(chunk)["tokens"] == 1
        assert read(error)["error"]["type"] == "server_error"
        assert done == "data: [DONE]"
        assert stream.count("request_failure_total") == 2

    asyncio.run(run())


@pytest.mark.parametrize("is_talking", [True, False])
def test_a_client_that_leaves_ends_the_work(is_talking):
    async def run():
        stream = Stream(2)

        async def leave():
            for _ in range(10):
                await asyncio.sleep(0.01)
                if is_talking:
                    stream.put(0, 5)
            return {"type": "http.disconnect"}

        await stream.send(leave)
        assert stream.left == ["0", "1"]
        assert stream.count("request_abort_total") == 2
        assert b"[DONE]" not in stream.sent

    asyncio.run(run())


class SlowToSay(EngineClient):
    """Has the engine begin at once, and says late that it has the requests."""

    async def submit(self, requests: Sequence[EngineRequest]) -> TokenStream:
        names = [request.request_id for request in requests]
        stream = TokenStream(names, lambda name, token: None)
        stream.put(TokenOutput(names[0], 5, "stop", prefill_seconds=0.05))
        await asyncio.sleep(0.2)
        return stream


def test_time_counts_from_before_the_engine_has_the_request():
    async def run():
        client = SlowToSay(ToyLoader())
        metrics = Metrics(client)
        model = ServedModel(
            client=client,
            settings=ServerSettings(model_names=("toy",)),
            tokenizer=None,
            end_token_ids=frozenset(),
            default_params=SamplingParams(),
            default_params_without_thinking=SamplingParams(),
        )
        answers = await submit_answers(model, metrics, [WISH])
        await answers.take()
        assert count(metrics, "time_to_first_token_seconds_sum") >= 0.2
        assert count(metrics, "request_prefill_time_seconds_sum") == 0.05
        assert count(metrics, "request_queue_time_seconds_sum") >= 0.15

    asyncio.run(run())
