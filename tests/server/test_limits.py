"""Keys, origins, queues and time limits, each on a server of its own."""

from __future__ import annotations

import json
import socket
import time

import httpx
import openai
import pytest

from tests.server.live import assert_idle, metric, say
from tests.server.test_bad_input import CHAT, error_of

LONG = "on and on " * 100


def test_keys(serve):
    running = serve(api_keys=["first-key", "schlüssel"])
    with running.http() as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "first-key"}):
            response = http.post(CHAT, json={"messages": say("Hi")}, headers=headers)
            assert error_of(response, 401)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
            assert "key" not in response.request.content.decode()
        assert http.get("/v1/models").status_code == 401
        assert http.get("/metrics").status_code == 401
        assert http.get("/health").status_code == 200
        for headers in (
            {"Authorization": "bearer first-key"},
            {"X-Api-Key": "first-key"},
            {"Authorization": "Bearer schlüssel".encode()},
        ):
            assert http.get("/v1/models", headers=headers).status_code == 200
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong")
    with client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="first-key") as client:
        assert client.models.list().data
    assert "first-key" not in running.stderr


def test_origins(serve):
    running = serve(allowed_origins=["http://good.example"], api_keys=["k"])
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    with running.http() as http:
        good = http.options(CHAT, headers={"Origin": "http://good.example", **ask})
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "http://good.example"
        bad = http.options(CHAT, headers={"Origin": "http://bad.example", **ask})
        assert "access-control-allow-origin" not in bad.headers
        refused = http.get("/v1/models", headers={"Origin": "http://good.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "http://good.example"


def test_no_origin_unless_told(http):
    response = http.get("/v1/models", headers={"Origin": "http://bad.example"})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue(serve, stream):
    running = serve(engine={"step_seconds": 0.02, "options": {"max_num_seqs": 1}}, max_queue=1)
    with running.http() as http:
        body = {"messages": say(LONG), "stream": True}
        with http.stream("POST", CHAT, json=body), http.stream("POST", CHAT, json=body):
            time.sleep(0.2)
            with running.http() as another:
                refused = another.post(CHAT, json={**body, "stream": stream})
                assert error_of(refused, 429)["code"] == "queue_full"
                assert refused.headers["retry-after"]
                many = another.post(CHAT, json={**body, "stream": stream, "n": 3})
                error_of(many, 429)
        assert_idle(http)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long(serve, stream):
    running = serve(engine={"step_seconds": 0.05}, request_seconds=0.5)
    with running.http() as http:
        response = http.post(CHAT, json={"messages": say(LONG), "stream": stream})
        if stream:
            *_, failure, done, _ = response.text.split("\n\n")
            assert done == "data: [DONE]"
            error = json.loads(failure.removeprefix("data: "))["error"]
            assert error["code"] == "timeout"
            assert "took longer" not in response.text.replace(failure, "")
        else:
            error_of(response, 408)
        assert_idle(http)


def test_a_body_that_does_not_come(serve):
    running = serve(body_seconds=0.3)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_failing_step_fails_its_own(serve):
    running = serve(engine={"fails_at": [3]})
    with running.http() as http:
        response = http.post(CHAT, json={"messages": say("Hello"), "stream": True})
        events = [event.removeprefix("data: ") for event in response.text.strip().split("\n\n")]
        assert json.loads(events[-2])["error"]["type"] == "server_error"
        assert "the device is gone" not in response.text
        running.wait_for("the device is gone")
        response = http.post(CHAT, json={"messages": say("Hello")})
        assert response.json()["choices"][0]["message"]["content"] == "Hello"
        assert metric(http, "request_failure_total") == 1
        assert_idle(http)


def test_logs_as_json(serve):
    running = serve(log_format="json")
    with running.http() as http:
        http.get("/version", headers={"X-Request-Id": "mine"})
    running.wait_for('"mine"')
    (line,) = (line for line in running.lines if '"mine"' in line)
    entry = json.loads(line)
    assert entry["request_id"] == "mine"
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/version", 200)
    assert entry["seconds"] >= 0


def test_a_template_argument_for_all(serve):
    running = serve(template_arguments={"enable_thinking": False})
    with running.http() as http:

        def prompt(**fields) -> str:
            ids = http.post("/tokenize", json={"messages": say("Hi"), **fields}).json()["tokens"]
            return http.post("/detokenize", json={"tokens": ids}).json()["prompt"]

        assert prompt().endswith("<think>\n\n</think>\n\n")
        own = prompt(chat_template_kwargs={"enable_thinking": True})
        assert own.endswith("assistant\n")


def test_a_client_that_connects_and_goes(server):
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(5):
        socket.create_connection((host, int(port))).close()
    assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
