"""The real server on the echo engine, in a thread; its engine in a process as always."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server import ServerSettings
from qwen3_runtime.server.app import create_app
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.serving import EngineClient
from tests.page.echo import EOS, EchoLoader, echo_tokenizer

START_SECONDS = 60


@dataclass(frozen=True)
class LiveServer:
    url: str
    model: ServedModel
    uvicorn_server: uvicorn.Server

    def health(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/health", timeout=10) as response:
            return json.load(response)

    def wait_until_idle(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.health()["num_requests_running"]:
            assert time.monotonic() < deadline, "the engine still works"
            time.sleep(0.02)


@contextmanager
def live_server(loader: EchoLoader, api_keys: tuple[str, ...] = ()) -> Iterator[LiveServer]:
    model = ServedModel(
        client=EngineClient(loader),
        settings=ServerSettings(model_names=("echo", "parrot"), api_keys=frozenset(api_keys)),
        tokenizer=echo_tokenizer(),
        end_token_ids=frozenset({EOS}),
        default_params=SamplingParams(temperature=0.0),
        default_params_without_thinking=SamplingParams(temperature=0.0),
        reasoning_format="think",
    )
    config = uvicorn.Config(create_app(model), log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        live = LiveServer(f"http://127.0.0.1:{listener.getsockname()[1]}", model, server)
        try:
            _wait_until_ready(live)
            yield live
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def _wait_until_ready(live: LiveServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            live.health()
            return
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)
