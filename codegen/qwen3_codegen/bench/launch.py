"""A server of our own to measure, started and ended."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from qwen3_codegen.bench.stream import Address, StreamError, exchange
from qwen3_codegen.errors import CodegenError

__all__ = ["LaunchedServer", "launched_server"]

_EXIT_SECONDS = 60.0
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LaunchedServer:
    """A server that runs."""

    address: Address
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address.host}:{self.address.port}"

    def wait_until_ready(self) -> None:
        """Returns when it can answer.

        Raises:
            CodegenError: It ended instead; it has said why.
        """
        while asyncio.run(_health(self.address)) != 200:
            if self.process.poll() is not None:
                code = self.process.returncode
                raise CodegenError("the server did not start", got=f"exit code {code}")
            time.sleep(0.1)

    def stop(self) -> int:
        """Ends it as an operator does, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def launched_server(
    model: str,
    options: Sequence[str] = (),
    *,
    log: IO[str] | None = None,
    program: Sequence[str] = ("qwen3_codegen",),
) -> Iterator[LaunchedServer]:
    """Starts ``qwen3-codegen serve`` on a free port and ends it with the block.

    Args:
        model: Checkpoint.
        options: Further ones for ``serve``.
        log: Where what it says goes; None is our own standard error.
        program: Module that has the command ``serve``, and what it takes before that.
    """
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", *program, "serve", "--model", model]
    process = subprocess.Popen(
        [*command, "--port", str(port), *options],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    server = LaunchedServer(Address(_HOST, port, "", False), process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


async def _health(address: Address) -> int:
    try:
        return (await exchange(address, "GET", "/health")).status
    except StreamError:
        return 0
