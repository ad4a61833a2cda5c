"""What Anthropic's clients see of failures, and that no work is left where one leaves."""

from __future__ import annotations

import json
import socket

import anthropic
import pytest

from tests.server.live import assert_idle, client_that_leaves, metric
from tests.server.test_life import wait_until
from tests.server.test_messages import PATH, TIME, USER, ask, events

COUNT = "/v1/messages/count_tokens"
LONG = "on and on " * 100


def error_of(response, status: int) -> dict:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["message"]
    return body["error"]


def block(kind: str, **fields) -> dict:
    return {"type": kind, **fields}


def user(*blocks: object) -> dict:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def assistant(*blocks: object) -> dict:
    return {"messages": [USER, {"role": "assistant", "content": list(blocks)}, USER]}


IMAGE = block("image", source={"type": "base64", "media_type": "image/png", "data": "AA=="})
WRONG = {
    "no max_tokens": ({"max_tokens": None}, "max_tokens"),
    "max_tokens is 0": ({"max_tokens": 0}, "max_tokens"),
    "no messages": ({"messages": []}, "messages"),
    "messages are text": ({"messages": "Hi"}, "messages"),
    "a message is text": ({"messages": ["Hi"]}, "messages.0"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    "a role of a list": ({"messages": [{"role": [], "content": "x"}]}, "messages.0.role"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content"),
    "a number as content": (
        {"messages": [{"role": "user", "content": 3}]},
        "messages.0.content",
    ),
    "a block of text": (user("Hi"), "messages.0.content.0"),
    "an image": (user(block("text", text="Look:"), IMAGE), "messages.0.content.1"),
    "a document": (user(block("document")), "messages.0.content.0"),
    "a block without a type": (user({"text": "Hi"}), "messages.0.content.0"),
    "a text of a number": (user(block("text", text=3)), "messages.0.content.0.text"),
    "a call by the user": (user(block("tool_use")), "messages.0.content.0"),
    "an image as a result": (
        user(block("tool_result", tool_use_id="1", content=[IMAGE])),
        "messages.0.content.0.content.0",
    ),
    "a result of nothing": (user(block("tool_result")), "messages.0.content.0.tool_use_id"),
    "a result by the model": (
        assistant(block("tool_result", tool_use_id="1")),
        "messages.1.content.0",
    ),
    "a call without a name": (
        assistant(block("tool_use", id="1", input={})),
        "messages.1.content.0.name",
    ),
    "a call without an id": (
        assistant(block("tool_use", name="f", input={})),
        "messages.1.content.0.id",
    ),
    "a call of a text": (
        assistant(block("tool_use", id="1", name="f", input="{}")),
        "messages.1.content.0.input",
    ),
    "a thought of nothing": (assistant(block("thinking")), "messages.1.content.0.thinking"),
    "an answer begun": ({"messages": [USER, {"role": "assistant", "content": "{"}]}, "messages.1"),
    "an image as the system": ({"system": [IMAGE]}, "system.0"),
    "a system of a number": ({"system": 3}, "system"),
    "a tool of a server": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tools.0.type",
    ),
    "a tool without a schema": ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
    "a tool without a name": ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
    "a choice without tools": ({"tool_choice": {"type": "any"}}, "tool_choice"),
    "a choice of another tool": (
        {"tools": [TIME], "tool_choice": {"type": "tool", "name": "f"}},
        "tool_choice.name",
    ),
    "a choice of OpenAI's": ({"tools": [TIME], "tool_choice": "auto"}, "tool_choice"),
    "an unknown choice": ({"tools": [TIME], "tool_choice": {"type": "all"}}, "tool_choice.type"),
    "unknown thinking": ({"thinking": {"type": "deep"}}, "thinking.type"),
    "no schema": ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
    "temperature too low": ({"temperature": -1}, "temperature"),
    "temperature too high": ({"temperature": 2.1}, "temperature"),
    "temperature is text": ({"temperature": "hot"}, "temperature"),
    "top_p": ({"top_p": 2}, "top_p"),
    "an empty stop": ({"stop_sequences": [""]}, "stop_sequences.0"),
    "half a character": (user(block("text", text="\ud800")), ""),
    "a result first": (user(block("tool_result", tool_use_id="1")), "no call came before"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request(http, name):
    fields, place = WRONG[name]
    content = json.dumps({**ask("Hi"), **fields}).encode()
    for path in (PATH, COUNT):
        response = http.post(path, content=content, headers={"Content-Type": "application/json"})
        if path == COUNT and {"max_tokens", "temperature", "top_p", "stop_sequences"} & set(fields):
            assert response.status_code == 200  # they are no part of a conversation
            continue
        error = error_of(response, 400)
        assert error["type"] == "invalid_request_error"
        assert place in error["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_errors_as_the_client_sees_them(api, http, stream):
    with pytest.raises(anthropic.NotFoundError, match="claude-sonnet") as missing:
        api.messages.create(**ask("Hi", model="claude-sonnet", stream=stream))
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.NotFoundError):
        api.messages.count_tokens(model="claude-sonnet", messages=[USER])
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: .* 2048 tokens"):
        api.messages.create(**ask("x" * 10_000, stream=stream))
    long = [{"role": "user", "content": "x" * 10_000_000}]
    with pytest.raises(anthropic.APIStatusError) as too_long:
        api.messages.create(**ask("", messages=long, stream=stream))
    assert (too_long.value.status_code, too_long.value.type) == (413, "request_too_large")
    error_of(http.post(PATH, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    error_of(http.post(PATH, content=b"{", headers={"Content-Type": "application/json"}), 400)
    error_of(http.get(PATH), 405)
    error_of(http.post("/v1/messages/batches", json={}), 404)


@pytest.mark.parametrize("stream", [True, False])
def test_keys(serve, stream):
    running = serve(api_keys=["right"])
    options = {"base_url": running.url, "max_retries": 0}
    wrong = anthropic.Anthropic(api_key="wrong", **options)
    with wrong, pytest.raises(anthropic.AuthenticationError) as refused:
        wrong.messages.create(**ask("Hi", stream=stream))
    assert refused.value.type == "authentication_error"
    assert refused.value.request_id
    for key in ("api_key", "auth_token"):
        with anthropic.Anthropic(**{key: "right"}, **options) as client:
            assert client.messages.create(**ask("Hi")).content[0].text == "Hi"


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_queue(serve, stream):
    running = serve(engine={"step_seconds": 0.02, "options": {"max_num_seqs": 1}}, max_queue=1)
    body = ask(LONG, stream=True, max_tokens=1000)
    with (
        running.http() as http,
        http.stream("POST", PATH, json=body),
        http.stream("POST", PATH, json=body),
    ):
        with running.http() as another:
            wait_until(lambda: metric(another, "num_requests_waiting") == 1)
        options = {"base_url": running.url, "api_key": "none", "max_retries": 0}
        client = anthropic.Anthropic(**options)
        with client, pytest.raises(anthropic.RateLimitError) as refused:
            client.messages.create(**{**body, "stream": stream})
        assert refused.value.type == "rate_limit_error"


def test_while_it_loads(serve):
    running = serve(wait=False, engine={"load_seconds": 60})
    with running.http() as http:
        for path in (PATH, COUNT):
            response = http.post(path, json=ask("Hi"))
            assert error_of(response, 503)["type"] == "overloaded_error"
            assert response.headers["retry-after"]


def test_a_body_that_does_not_come(serve):
    running = serve(body_seconds=0.3)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        answer = b""
        while b"}}" not in answer:
            received = connection.recv(1000)
            assert received, answer
            answer += received
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'{"type":"error","error":{"type":"timeout_error"' in answer


def test_a_failing_step(serve):
    running = serve(engine={"fails_at": [3, 8]})
    with running.http() as http:
        found = events(http.post(PATH, json=ask("Hello", stream=True)))
        assert found[-1] == (
            "error",
            {
                "type": "error",
                "error": {
                    "type": "api_error",
                    "message": "the engine failed; the server's log has the details",
                },
            },
        )
        with anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0) as client:
            stream = client.messages.create(**ask("Hello again", stream=True))
            with pytest.raises(anthropic.APIStatusError) as failed:
                list(stream)
            assert failed.value.type == "api_error"
            assert client.messages.create(**ask("Hello")).content[0].text == "Hello"
        assert_idle(http)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_work(serve, stream):
    running = serve(engine={"step_seconds": 0.02})
    body = ask(LONG, stream=stream, max_tokens=1000)
    with running.http() as http:
        with client_that_leaves(running, PATH, body):
            wait_until(lambda: metric(http, "num_requests_running") == 1)
        assert_idle(http)
        assert metric(http, "request_abort_total") == 1
