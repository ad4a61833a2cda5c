"""Runs the server: a socket, uvicorn, a word when the model is ready, an orderly end."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from qwen3_runtime.errors import EngineError
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server.app import create_app
from qwen3_runtime.server.logs import log_to_stderr, say
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.settings import ServerSettings
from qwen3_runtime.serving import EngineClient, EngineLoader
from qwen3_runtime.text import Tokenizer

__all__ = ["serve"]

_CLOSING_SECONDS = 2
"""What connections get to close, once no answer is on its way or none is waited for."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep a connection: one that is used again must not be closing just then."""
_EXIT_FAILED = 2
_NICENESS = 5
"""Of the serving process, beside its engine."""
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(
    load: EngineLoader,
    settings: ServerSettings,
    *,
    host: str,
    port: int,
    tokenizer: Tokenizer | None,
    end_token_ids: frozenset[int],
    default_params: SamplingParams,
    default_params_without_thinking: SamplingParams | None = None,
    system_prompt: str | None = None,
    tool_format: str | None = None,
    reasoning_format: str | None = None,
) -> int:
    """Serves until SIGTERM, Ctrl-C or the engine's death, and returns the exit code.

    It is the last thing a process does: both signals are ignored from its end on.

    Args:
        load: Loads the engine, in a process of its own.
        settings: What the operator chose.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        tokenizer: The model's, None where prompts are token ids only.
        end_token_ids: Tokens that end an answer.
        default_params: What requests get that say nothing.
        default_params_without_thinking: The same where a model that can think answers at once;
            None is no difference.
        system_prompt: The model's own, for conversations without one.
        tool_format: How the model writes tool calls.
        reasoning_format: How the model writes thoughts.

    Raises:
        EngineError: The address cannot be listened at.
    """
    listener = _listen(host, port)
    log_to_stderr(settings.log_format)
    url = _url(host, listener.getsockname()[1])
    client = EngineClient(load, max_queue=settings.max_queue, on_progress=say)
    model = ServedModel(
        client=client,
        settings=settings,
        tokenizer=tokenizer,
        end_token_ids=end_token_ids,
        default_params=default_params,
        default_params_without_thinking=default_params_without_thinking or default_params,
        system_prompt=system_prompt,
        tool_format=tool_format,
        reasoning_format=reasoning_format,
    )
    config = uvicorn.Config(
        create_app(model),
        host=host,
        http="h11",  # the other parser that uvicorn knows reads a head of any length into memory
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        server_header=False,
    )
    server = _Server(config, model)
    for ending in _ENDING_SIGNALS:
        signal.signal(ending, server.handle_exit)
    try:
        with listener:
            return uvloop.run(_run(server, listener, model, url))
    finally:
        # The process is about to end; a signal that comes now must not change its exit code.
        for ending in _ENDING_SIGNALS:
            signal.signal(ending, signal.SIG_IGN)


class _Server(uvicorn.Server):
    """Told to end, it listens on until answers on their way are done, and refuses new requests."""

    def __init__(self, config: uvicorn.Config, model: ServedModel) -> None:
        super().__init__(config)
        self._model = model
        self._deadline = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal; the second one does not wait."""
        if self._model.is_draining:
            self._deadline = -math.inf
            return
        say(f"ending; requests on their way: {self._model.num_in_flight}")
        self._model.is_draining = True
        self._deadline = time.monotonic() + self._model.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._model.is_draining:
            is_late = time.monotonic() >= self._deadline
            if is_late and not self.should_exit:
                self._model.client.give_up()
            if is_late or self._model.num_in_flight == 0:
                self.should_exit = True
        return await super().on_tick(counter)


async def _run(server: _Server, listener: socket.socket, model: ServedModel, url: str) -> int:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(_watch(server, model, url))
    await serving
    watching.cancel()
    results = await asyncio.gather(watching, return_exceptions=True)
    if results and isinstance(results[0], EngineError):
        return _EXIT_FAILED
    return 0


async def _watch(server: _Server, model: ServedModel, url: str) -> None:
    """Says when the model is ready; ends the server when it cannot be loaded, or its engine dies.

    Whoever keeps the server running starts it again then: without an engine it is of no use.
    """
    while not server.started:
        await asyncio.sleep(0.02)
    # All threads of a step wait for one that lost its processor to us, so on a busy machine we go
    # second; the engine's process has been started and keeps its place.
    os.nice(_NICENESS)
    if not _is_loopback(server.config.host) and not model.settings.api_keys:
        say("note: no API key is set, so whoever reaches this machine may use the model")
    say(f"{url} answers 503 until the model is loaded")
    try:
        await model.client.wait_until_loaded()
        say(_welcome(model, url))
        await model.client.wait_until_gone()
    except EngineError as error:
        if model.is_draining:
            return
        say(f"error: {model.client.failure or error}")
        server.should_exit = True
        raise


def _welcome(model: ServedModel, url: str) -> str:
    facts = model.facts
    name = model.settings.model_names[0]
    key = "-H 'Authorization: Bearer YOUR_KEY' " if model.settings.api_keys else ""
    message = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}]})
    client_key = "YOUR_KEY" if model.settings.api_keys else "none"
    memory = f", {facts.kv_cache_bytes / 1e9:.2f} GB for keys and values"
    lines = [
        *(f"note: {note}" for note in facts.notes),
        f"{name} is ready at {url}",
        f"  context {facts.max_model_len} tokens, {facts.max_num_seqs} answers at once"
        + (memory if facts.kv_cache_bytes else ""),
        f"  names: {', '.join(model.settings.model_names)}",
        "",
        f"  curl {url}/v1/chat/completions {key}-H 'Content-Type: application/json' \\",
        f"    -d '{message}'",
        "",
        "  from openai import OpenAI",
        f'  client = OpenAI(base_url="{url}/v1", api_key="{client_key}")',
        '  messages = [{"role": "user", "content": "Hello"}]',
        f'  answer = client.chat.completions.create(model="{name}", messages=messages)',
        "  print(answer.choices[0].message.content)",
    ]
    return "\n".join(lines)


# ---- the socket -----------------------------------------------------------------------------


def _listen(host: str, port: int) -> socket.socket:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, OverflowError) as error:
        raise EngineError(
            "this is no address to listen at", got=f"{host}:{port}: {error}"
        ) from None
    family, kind, protocol, _, address = infos[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise EngineError(
                "this address cannot be listened at", got=f"{host}:{port}: {error.strerror}"
            ) from None
        raise EngineError(
            f"port {port} is in use",
            got=_holder(port) or "another program listens there",
            hint=f"end it, or choose another port: --port {port + 1 if port < 65535 else 8000}",
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{port}"


def _holder(port: int) -> str | None:
    """Who listens at a port, as far as Linux lets us see."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        fields = [row.split() for row in rows]
        inodes |= {
            row[9] for row in fields if row[3] == "0A" and int(row[1].split(":")[1], 16) == port
        }
    for process in Path("/proc").glob("[0-9]*"):
        if any(f"socket:[{inode}]" in _open_files(process) for inode in inodes):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            return f"process {process.name} listens there: {command[:120]}"
    return None


def _open_files(process: Path) -> Sequence[str]:
    try:
        return [os.readlink(entry) for entry in (process / "fd").iterdir()]
    except OSError:
        return []
