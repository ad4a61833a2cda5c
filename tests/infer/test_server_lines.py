"""The guides' server line starts ``qwen3-codegen serve``; their ``curl`` line gets its answer."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's line is curl's"),
]

LAUNCH = "--model-path /path/to/qwen3-model --dev cpu --ndev 1"
CURL = """
curl -N -H "Content-Type: application/json" \\
     -X POST http://127.0.0.1:8000/chat/completions \\
     -d '{
       "model": "qwen3",
       "messages": [{"role": "user", "content": "山东最高的山是？"}],
       "temperature": 1.0,
       "max_tokens": 512,
       "stream": true
     }'
"""


@pytest.fixture
def url(qwen3_folder):
    """Where the server of the guide's line is ready; its port is any free one."""
    line = LAUNCH.replace("/path/to/qwen3-model", str(qwen3_folder))
    command = [sys.executable, "-m", "qwen3_runtime.launch_server", *line.split(), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    hang = threading.Timer(240, server.kill)
    hang.start()
    try:
        said = []
        for text in server.stderr:
            said.append(text)
            if found := re.search(r"is ready at (\S+)", text):
                yield found[1]
                break
        else:
            pytest.fail("".join(said))
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    finally:
        hang.cancel()
        server.kill()
        server.wait()


def test_the_curl_line(url):
    line = CURL.replace("http://127.0.0.1:8000", url)
    done = subprocess.run(["bash", "-c", line], capture_output=True, encoding="utf-8", timeout=120)
    events = [text.removeprefix("data: ") for text in done.stdout.split("\n\n") if text]
    assert events[-1] == "[DONE]", done.stdout
    chunks = [json.loads(event) for event in events[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert choices[-1]["finish_reason"] in ("stop", "length")
    assert "".join(choice["delta"].get("content") or "" for choice in choices)
