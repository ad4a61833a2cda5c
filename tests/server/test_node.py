"""The official client for Node, of a major version that runs on Node 20."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.live import assert_idle, say
from tests.server.test_openai_client import CALL, MODEL, THOUGHT, WEATHER

SOURCES = Path(__file__).parent / "node"
NODE = shutil.which("node")


@pytest.fixture(scope="session")
def client_folder(pytestconfig) -> Path:
    """A folder with the client, kept by pytest outside the tree's sources."""
    if NODE is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = pytestconfig.cache.mkdir("node")
    lock = (SOURCES / "package-lock.json").read_bytes()
    installed = folder / "node_modules" / ".package-lock.json"
    is_current = (folder / "package-lock.json").is_file() and installed.is_file()
    if not is_current or (folder / "package-lock.json").read_bytes() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name, folder / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    shutil.copy(SOURCES / "conformance.mjs", folder / "conformance.mjs")
    return folder


@pytest.mark.network
def test_the_node_client(server, http, client_folder):
    request = {
        "model": MODEL,
        "plain": say(f"{THOUGHT}Grüße, 世界 🙂"),
        "call": say(CALL),
        "tools": [WEATHER],
        "failing": say("Hi"),
    }
    done = subprocess.run(
        [str(NODE), "conformance.mjs", server.url, json.dumps(request)],
        cwd=client_folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["models"] == ["tiny-qwen3", "qwen3"]
    whole = found["whole"]["choices"][0]
    assert whole["message"]["content"] == found["streamed"]["content"] == "Grüße, 世界 🙂"
    assert whole["message"]["reasoning_content"] == found["streamed"]["reasoning"] == "let me see"
    assert found["responded"] == "Grüße, 世界 🙂"
    assert found["streamed"]["reasons"] == [whole["finish_reason"]] == ["stop"]
    usage = found["streamed"]["usage"]
    assert usage["completion_tokens"] == found["whole"]["usage"]["completion_tokens"]
    (call,) = found["called"]["message"]["tool_calls"]
    assert found["called"]["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Zürich", "days": 2}
    assert found["error"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
    assert_idle(http)
