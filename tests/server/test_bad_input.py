"""What is wrong with a request is said as OpenAI says it, and nothing else is disturbed."""

from __future__ import annotations

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests.server.live import assert_idle, say

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "Hi"}
HALF = "\ud800"


def error_of(response, status: int) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "/work" not in response.text
    assert "Traceback" not in response.text
    return error


def chat(**fields) -> dict:
    return {"messages": [USER], **fields}


def tool(name: object = "f", **fields) -> dict:
    return {"type": "function", "function": {"name": name, **fields}}


def call(**function) -> dict:
    return {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}


WRONG_CHATS = {
    "no messages": ({}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "messages are text": ({"messages": "Hi"}, "messages"),
    "message is text": ({"messages": ["Hi"]}, "messages.0"),
    "bad role": (chat(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
    "role is a list": (chat(messages=[{"role": [], "content": "x"}]), "messages[0].role"),
    "no content": (chat(messages=[{"role": "user"}]), "messages[0].content"),
    "content is a number": (chat(messages=[{"role": "user", "content": 3}]), "messages[0].content"),
    "an image": (
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        "messages[0].content[0]",
    ),
    "arguments are no JSON": (
        chat(messages=[USER, call(name="f", arguments="{")]),
        "messages[1].tool_calls[0].function.arguments",
    ),
    "arguments nest too deeply": (
        chat(messages=[USER, call(name="f", arguments='{"a": ' + "[" * 100_000)]),
        "messages[1].tool_calls[0].function.arguments",
    ),
    "call without a name": (
        chat(messages=[USER, call(arguments="{}")]),
        "messages[1].tool_calls[0].function.name",
    ),
    "tool answer to nothing": (
        chat(messages=[USER, {"role": "tool", "content": "x"}]),
        "messages[1].tool_call_id",
    ),
    "refused by the template": (
        chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]),
        None,
    ),
    "negative max_tokens": (chat(max_tokens=-1), "max_tokens"),
    "zero max_completion_tokens": (chat(max_completion_tokens=0), "max_completion_tokens"),
    "min above max": (chat(max_tokens=2, min_tokens=3), "min_tokens"),
    "temperature too low": (chat(temperature=-0.1), "temperature"),
    "temperature too high": (chat(temperature=2.1), "temperature"),
    "temperature is text": (chat(temperature="hot"), "temperature"),
    "top_p": (chat(top_p=1.5), "top_p"),
    "top_k": (chat(top_k=-2), "top_k"),
    "n is 0": (chat(n=0), "n"),
    "n is a million": (chat(n=1_000_000), "n"),
    "a seed of 30 digits": (chat(seed=10**30), "seed"),
    "logit_bias of a word": (chat(logit_bias={"word": 1}), "logit_bias"),
    "logit_bias outside": (chat(logit_bias={"999999": 1}), "logit_bias"),
    "empty stop": (chat(stop=[""]), "stop"),
    "100 stops": (chat(stop=[str(index) for index in range(100)]), "stop"),
    "top_logprobs alone": (chat(top_logprobs=2), "top_logprobs"),
    "too many top_logprobs": (chat(logprobs=True, top_logprobs=50), "top_logprobs"),
    "tool without a name": (chat(tools=[tool(None)]), "tools[0].function.name"),
    "tool of parameters": (chat(tools=[tool(parameters=3)]), "tools[0].function.parameters"),
    "a choice of no tool": (chat(tool_choice="required"), "tool_choice"),
    "an unknown choice": (
        chat(tools=[tool()], tool_choice={"function": {"name": ["f"]}}),
        "tool_choice",
    ),
    "response_format is unknown": (chat(response_format={"type": "xml"}), "response_format.type"),
    "no schema": (
        chat(response_format={"type": "json_schema", "json_schema": {}}),
        "response_format.json_schema.schema",
    ),
    "no schema at all": (chat(guided_json={"type": "nonsense"}), "guided_json"),
    "a bad expression": (chat(guided_regex="(("), "guided_regex"),
    "an expression of millions": (chat(guided_regex="((a{999}){999}){999}"), "guided_regex"),
    "a bad grammar": (chat(guided_grammar="start: nothing_of_that_name"), "guided_grammar"),
    "a bad grammar, streamed": (chat(guided_grammar="start: (", stream=True), "guided_grammar"),
    "a schema of OpenAI's form": (
        chat(
            response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
        ),
        "response_format",
    ),
    "a tool that must be called": (
        chat(tools=[tool(parameters={"type": "nonsense"})], tool_choice="required"),
        "tools",
    ),
    "choices of other things": (chat(guided_choice=["a", ""]), "guided_choice"),
    "unknown structured output": (chat(structured_outputs={"xml": "x"}), "structured_outputs"),
    "old functions": (chat(functions=[{"name": "f"}]), "functions"),
    "old call of a function": (chat(function_call="auto"), "function_call"),
    "two grammars": (chat(guided_regex="a", guided_json={}), None),
    "half a character": (chat(messages=[{"role": "user", "content": HALF}]), None),
    "a reserved variable": (
        chat(chat_template_kwargs={"messages": []}),
        "chat_template_kwargs",
    ),
    "prompt_logprobs in a stream": (chat(prompt_logprobs=1, stream=True), "prompt_logprobs"),
}


@pytest.mark.parametrize("name", WRONG_CHATS)
def test_a_wrong_chat(http, name):
    body, param = WRONG_CHATS[name]
    content = json.dumps(body).encode()
    response = http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    error = error_of(response, 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [10**12]}, "prompt[0]"),
        ({"prompt": ""}, "prompt[0]"),
        ({"prompt": ["x"] * 1000}, "prompt"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "temperature": 2.1}, "temperature"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
    ],
)
def test_a_wrong_completion(http, fields, param):
    assert error_of(http.post(TEXT, json=fields), 400)["param"] == param


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b"[" * 100_000,
        b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"seed": ' + b"9" * 10_000 + b"}",
        b"[]",
        b"3",
        b"null",
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "top_p": Infinity}',
        b'{"messages": [{"role": "user", "content": "x"}], "top_k": NaN}',
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_request(http, content):
    response = http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    error_of(response, 400)


def test_deep_values(http):
    deep: object = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}, "type": "object"}
    for body in (
        chat(response_format={"type": "json_schema", "json_schema": {"schema": deep}}),
        chat(tools=[tool(parameters=deep)]),
        chat(chat_template_kwargs={"a": deep}),
    ):
        response = http.post(CHAT, json={**body, "max_tokens": 4})
        assert response.status_code in (200, 400), response.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_another_content_type(http, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    content = json.dumps(chat()).encode()
    error_of(http.post(CHAT, content=content, headers=headers), 415)


def test_a_long_body(http):
    body = chat(messages=[{"role": "user", "content": "x" * 10_000_000}])
    error_of(http.post(CHAT, json=body), 413)

    def pieces():
        for _ in range(100):
            yield b"x" * 100_000

    headers = {"Content-Type": "application/json"}
    error_of(http.post(CHAT, content=pieces(), headers=headers), 413)


@pytest.mark.parametrize(
    "begun", [b"GET /health HTTP/1.1\r\nX: ", b"GET /", b"GET /health HTTP/1.1\r\n"]
)
def test_a_head_without_end(begun, server):
    """Whoever sends it is answered and cut off before it takes memory."""
    address = urlsplit(server.url)
    line = b"X-Y: z\r\n" if begun.endswith(b"\r\n") else b"endless-"
    head = (begun + line * 8192)[: (1 << 16) + 1]  # what was left unread would reset the connection
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head)
        while piece := connection.recv(4096):
            received += piece
    assert received.startswith(b"HTTP/1.1 400 ")


def test_a_long_prompt(http):
    body = chat(messages=[{"role": "user", "content": "x" * 500_000}])
    error = error_of(http.post(CHAT, json=body), 400)
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 2048 tokens" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", CHAT, 405),
        ("DELETE", CHAT, 405),
        ("PATCH", "/health", 405),
        ("OPTIONS", CHAT, 405),
    ],
)
def test_another_method_or_path(http, method, path, status):
    error_of(http.request(method, path, json={}), status)


def test_head(http):
    response = http.head(CHAT)
    assert (response.status_code, response.content) == (405, b"")
    assert response.headers["allow"] == "POST"
    assert http.head("/health").status_code == 200


@pytest.mark.parametrize("model", ["gpt-4", HALF, "x" * 1_000_000, "a\r\nX-Evil: 1"])
def test_an_unknown_model(http, model):
    content = json.dumps(chat(model=model)).encode()
    response = http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert error_of(response, 404)["code"] == "model_not_found"
    assert len(response.content) < 3000
    assert "x-evil" not in response.headers


def test_a_log_line_stays_one(http, server):
    http.get("/%0d%0a2026%20INFO%20forged%1b[31m", headers={"X-Request-Id": "mine-1"})
    server.wait_for("mine-1 GET")
    (line,) = (line for line in server.stderr.split("\n") if "mine-1" in line)
    assert "forged" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("given", ["a b", "x" * 200, "näh"])
def test_only_decent_request_ids_are_kept(http, given):
    assert http.get("/health", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    response = http.get("/health", headers={"X-Request-Id": given.encode()})
    assert len(response.headers["x-request-id"]) == 32


def test_others_are_not_disturbed(http, server):
    text = "a long answer that goes on while others fail " * 8
    answers = []

    def ask() -> None:
        with server.http() as own:
            body = {"messages": say(text)}
            answers.append(own.post(CHAT, json=body).json()["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for body, _ in WRONG_CHATS.values():
        content = json.dumps(body).encode()
        http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    for thread in threads:
        thread.join()
    assert answers == [text] * 3
    assert_idle(http)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"prompt": "hello world " * 100_000}),
        ("/detokenize", {"tokens": [5] * 400_000}),
        (CHAT, chat(messages=[{"role": "user", "content": "hello world " * 100_000}])),
    ],
    ids=["tokenize", "detokenize", "chat"],
)
def test_a_long_text_holds_nobody_up(http, server, path, body):
    took = []

    def send() -> None:
        with server.http() as own:
            started = time.perf_counter()
            own.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
            took.append(time.perf_counter() - started)

    thread = threading.Thread(target=send)
    thread.start()
    waits = []
    while thread.is_alive():
        started = time.perf_counter()
        assert http.get("/version").status_code == 200
        waits.append(time.perf_counter() - started)
    assert max(waits) < 0.5 * took[0]
