from __future__ import annotations

from collections.abc import Callable, Iterator

import anthropic
import httpx
import openai
import pytest

from tests.server.live import ServerProcess, scripted_server


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """The scripted engine's server, for tests that leave it as it was."""
    running = scripted_server()
    yield running
    assert running.end() == 0, running.stderr
    assert "Traceback" not in running.stderr


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def api(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def serve() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers that a test may end or break."""
    started: list[ServerProcess] = []

    def start(**options) -> ServerProcess:
        started.append(scripted_server(**options))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
