"""What guards do with a route that breaks."""

from __future__ import annotations

import asyncio
import json

import pytest

from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server.guards import Guards
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.settings import ServerSettings
from qwen3_runtime.serving import EngineClient
from tests.serving.loading import ToyLoader

SCOPE = {"type": "http", "method": "GET", "path": "/x", "headers": []}


def guarded(route):
    model = ServedModel(
        client=EngineClient(ToyLoader()),
        settings=ServerSettings(model_names=("toy",)),
        tokenizer=None,
        end_token_ids=frozenset(),
        default_params=SamplingParams(),
        default_params_without_thinking=SamplingParams(),
    )
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def run():
        await Guards(route, model)(SCOPE, receive, send)

    return model, sent, run


def test_a_fault_nobody_foresaw_is_an_answer_like_any_other():
    """Raised on to uvicorn it would cut a connection that is used again."""

    async def breaks(scope, receive, send):
        raise ValueError("secret")

    model, sent, run = guarded(breaks)
    asyncio.run(run())
    start, body = sent
    assert start["status"] == 500
    assert json.loads(body["body"])["error"]["type"] == "server_error"
    assert b"secret" not in body["body"]
    assert model.num_in_flight == 0


def test_half_an_answer_is_none():
    async def breaks(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("secret")

    model, _, run = guarded(breaks)
    with pytest.raises(ValueError, match="secret"):
        asyncio.run(run())
    assert model.num_in_flight == 0
