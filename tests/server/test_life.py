"""From loading to the end: what clients see, and that no work is left when they leave."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.server.live import assert_idle, client_that_leaves, metric, say, scripted_server
from tests.server.test_bad_input import CHAT, error_of

LONG = "on and on " * 100
SLOW = {"step_seconds": 0.02}


def engine_pid(server_pid: int) -> int:
    """The child of a server that runs the engine, not Python's tracker of resources."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            is_child = f"\nPPid:\t{server_pid}\n" in status.read_text()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if is_child and b"spawn_main" in command:
            return int(status.parent.name)
    raise AssertionError("there is no engine")


def wait_until(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came true")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_client_that_leaves_ends_its_work(serve, stream, path):
    running = serve(engine={**SLOW, "options": {"max_num_seqs": 2}})
    body = {"messages": say(LONG), "prompt": say(LONG)[0]["content"], "n": 4, "stream": stream}

    with running.http() as http:
        with client_that_leaves(running, path, body):
            wait_until(lambda: metric(http, "num_requests_waiting") == 2)
            assert metric(http, "num_requests_running") == 2
        assert_idle(http)
        assert metric(http, "request_abort_total") == 4


def test_loading_and_then_serving():
    running = scripted_server(wait=False, engine={"load_seconds": 3.0})
    try:
        with running.http() as http:
            health = http.get("/health")
            assert (health.status_code, health.json()["status"]) == (503, "loading")
            for stream in (False, True):
                response = http.post(CHAT, json={"messages": say("Hi"), "stream": stream})
                assert error_of(response, 503)["code"] == "loading"
                assert response.headers["retry-after"]
            assert http.get("/v1/models").json()["data"][0]["id"] == "tiny-qwen3"
            running.wait_for("is ready at")
            assert http.get("/health").status_code == 200
            answer = http.post(CHAT, json={"messages": say("Hi")}).json()
            assert answer["choices"][0]["message"]["content"] == "Hi"
    finally:
        assert running.end() == 0


def test_what_cannot_be_loaded_ends_the_server(serve):
    running = serve(wait=False, engine={"fails": "it is torn"})
    assert running.process.wait(30) == 2
    running.wait_for(r"error: script\.safetensors: it is torn")
    assert "Traceback" not in running.stderr


def test_told_to_end_while_it_loads(serve):
    running = serve(wait=False, engine={"load_seconds": 60})
    started = time.monotonic()
    assert running.end() == 0
    assert time.monotonic() - started < 15


def test_running_answers_end_whole(serve):
    running = serve(engine=SLOW)
    text = "until the very end " * 5
    with running.http() as http, running.http() as another:
        body = {"messages": say(text), "stream": True}
        with http.stream("POST", CHAT, json=body) as response:
            lines = response.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "ending; requests on their way: 1" in running.stderr)
            for client in (another, running.http()):
                error = error_of(client.post(CHAT, json={"messages": say("Hi")}), 503)
                assert error["code"] == "shutting_down"
            assert another.get("/health").json()["status"] == "draining"
            said = "".join(re.findall(r'"content":"([^"]*)"', "\n".join(lines)))
    assert said == text
    assert running.process.wait(60) == 0
    assert "Traceback" not in running.stderr


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(serve, second):
    running = serve(engine={"step_seconds": 0.2})
    pid = engine_pid(running.process.pid)
    with running.http() as http:
        body = {"messages": say(LONG), "stream": True}
        with http.stream("POST", CHAT, json=body) as response:
            lines = response.iter_lines()  # let go, it would hang up
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "ending; requests on their way: 1" in running.stderr)
            time.sleep(0.5)
            assert running.process.poll() is None
            running.process.send_signal(second)
            *_, error, done = filter(None, lines)
    assert "the server is ending" in error
    assert done == "data: [DONE]"
    assert running.process.wait(60) == 0  # its processes end at leisure
    assert "Traceback" not in running.stderr
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_draining_takes_no_longer_than_told(serve):
    running = serve(engine={"step_seconds": 0.1}, drain_seconds=0.5)
    body = {"messages": say(LONG), "stream": True}
    with running.http() as http, http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()  # let go, it would hang up
        next(lines)
        started = time.monotonic()
        assert running.end() == 0
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_dies_ends_the_server(serve, stream):
    """Its clients hear of it first; then whoever keeps the server running starts it again."""
    running = serve(engine=SLOW)
    pid = engine_pid(running.process.pid)
    with running.http() as http:
        body = {"messages": say(LONG), "stream": stream}
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        response = http.post(CHAT, json=body)
    if stream:
        assert '"error"' in response.text
        assert response.text.rstrip().endswith("data: [DONE]")
    else:
        error_of(response, 503)
    assert running.process.wait(60) == 2
    running.wait_for(r"error: the engine's process is gone; it was ended by SIGKILL \(out of mem")
    assert "Traceback" not in running.stderr


@pytest.mark.parametrize("late", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_very_end_changes_nothing(serve, late):
    running = serve()
    running.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while running.process.poll() is None and time.monotonic() < deadline:
        running.process.send_signal(late)
        time.sleep(0.005)
    assert running.process.returncode == 0


def test_a_server_that_dies_takes_its_engine_along(serve):
    running = serve(engine=SLOW)
    pid = engine_pid(running.process.pid)
    running.process.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_port_that_is_taken(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError) as failure:
            serve(port=port)
    assert f"port {port} is in use" in str(failure.value)
    assert f"process {os.getpid()} listens there" in str(failure.value)


def test_a_log_in_json_is_nothing_else(serve):
    running = serve(log_format="json")
    with running.http() as http:
        assert http.post(CHAT, json={"messages": say("Hi")}).status_code == 200
        assert http.get("/health").status_code == 200
    running.wait_for("chat/completions")
    assert running.end() == 0
    entries = [json.loads(line) for line in running.lines]
    assert any("is ready at" in entry["message"] for entry in entries)
    assert [entry["path"] for entry in entries if "path" in entry] == [CHAT]
