"""Servers under test: this module run as a program serves the scripted engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server import ServerSettings, serve
from tests.server.qwen import SAID, SAY, qwen_tokenizer
from tests.server.scripted import ScriptedLoader

ROOT = Path(__file__).parents[2]
START_SECONDS = 120


def say(text: str, before: str = "") -> list[dict[str, Any]]:
    """Messages that have the scripted engine say a text."""
    return [{"role": "user", "content": f"{before}{SAY}{text}{SAID}"}]


class ServerProcess:
    """A server in a process of its own.

    Args:
        command: Its command line; it prints its address on standard error.
        wait: Whether to return only when the model is loaded.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        wait: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        found = self.wait_for(r"(http://\S+) (?:answers|is ready)")
        self.url = found[1]
        if wait:
            self.wait_for("is ready at")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def stderr(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.stderr):
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in:\n{self.stderr}")

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def end(self) -> int:
        """Ends it as a service manager does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def client_that_leaves(running: ServerProcess, path: str, body: dict[str, Any]) -> Iterator[None]:
    """Asks, and hangs up at the end of the block, whatever has come by then."""
    is_over = threading.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=60) as client:
            task = asyncio.create_task(client.post(path, json=body))
            await asyncio.to_thread(is_over.wait)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asking = threading.Thread(target=lambda: asyncio.run(ask()))
    asking.start()
    try:
        yield
    finally:
        is_over.set()
        asking.join()


def scripted_server(
    *, wait: bool = True, engine: dict[str, Any] | None = None, **settings: Any
) -> ServerProcess:
    """Starts the scripted engine's server; see ``ScriptedLoader`` and ``ServerSettings``."""
    arguments = json.dumps({"engine": engine or {}, "settings": settings})
    return ServerProcess([sys.executable, "-m", "tests.server.live", arguments], wait=wait)


def metric(http: httpx.Client, name: str) -> float:
    found = re.search(rf"^qwen3_codegen_{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def assert_idle(http: httpx.Client) -> None:
    """Fails unless the engine soon has nothing to do and all its cache is free."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    found: list[float] = []
    for _ in range(100):
        found = [metric(http, name) for name in names]
        if found == [0, 0, 0]:
            return
        time.sleep(0.05)
    raise AssertionError(f"still busy: {found}")


def main() -> int:
    arguments = json.loads(sys.argv[1])
    settings = arguments["settings"]
    tokenizer = qwen_tokenizer()
    for name in ("api_keys", "allowed_origins"):
        settings[name] = tuple(settings.get(name, ()))
    settings["api_keys"] = frozenset(settings["api_keys"])
    port = settings.pop("port", 0)
    return serve(
        ScriptedLoader(**arguments["engine"]),
        ServerSettings(**{"model_names": ("tiny-qwen3", "qwen3"), "version": "9.9", **settings}),
        host="127.0.0.1",
        port=port,
        tokenizer=tokenizer,
        end_token_ids=frozenset(tokenizer.eos_token_ids),
        default_params=SamplingParams(temperature=0.6, top_p=0.95, top_k=20),
        default_params_without_thinking=SamplingParams(temperature=0.0),
        tool_format="hermes",
        reasoning_format="think",
    )


if __name__ == "__main__":
    sys.exit(main())
