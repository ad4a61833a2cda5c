"""One HTTP exchange whose bytes are stamped as they arrive, and read when all are there.

A client that parses while others wait for it measures itself; on a machine it shares with the
server it would also slow that down. So nothing is looked at before the answer is complete.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from urllib.parse import urlsplit

__all__ = ["Address", "Exchange", "StreamError", "exchange"]

_READ_BYTES = 1 << 16


class StreamError(Exception):
    """An answer that did not come, or is none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    prefix: str
    """Path before ``/v1``, mostly empty."""
    is_tls: bool
    api_key: str | None = None

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> Address:
        """Reads ``http://host:port``, with or without ``/v1``.

        Raises:
            ValueError: It is no such URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"no http or https URL: {url}")
        is_tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, parts.port or (443 if is_tls else 80), prefix, is_tls, api_key)

    def head(self, method: str, path: str, num_bytes: int) -> bytes:
        """Returns the head of a request whose connection ends with its answer."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"{method} {self.prefix}{path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {num_bytes}",
        ]
        if self.api_key is not None:
            lines.append(f"Authorization: Bearer {self.api_key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answer; times are of ``time.perf_counter``."""

    started: float
    """When the request was about to be sent."""
    pieces: tuple[tuple[float, bytes], ...]
    """What arrived, and when."""
    is_whole: bool
    """Whether the server ended it, rather than we."""

    @property
    def status(self) -> int:
        """HTTP status.

        Raises:
            StreamError: It is no HTTP answer.
        """
        line = self._bytes.partition(b"\r\n")[0].split()
        if len(line) < 2 or not line[0].startswith(b"HTTP/") or not line[1].isdigit():
            raise StreamError("the server ended the connection without an answer")
        return int(line[1])

    @property
    def body(self) -> bytes:
        """The answer's body, without its transfer encoding."""
        return b"".join(payload for _, payload in self._payloads())

    def events(self) -> list[tuple[float, str]]:
        """Returns the data of server-sent events, each with the time its last byte came.

        Raises:
            StreamError: The answer ends within one.
        """
        found: list[tuple[float, str]] = []
        rest = b""
        for seconds, payload in self._payloads():
            rest += payload.replace(b"\r\n", b"\n")
            *whole, rest = rest.split(b"\n\n")
            for event in whole:
                lines = event.decode("utf-8", "replace").split("\n")
                text = [line[5:].lstrip() for line in lines if line.startswith("data:")]
                if text:
                    found.append((seconds, "\n".join(text)))
        if rest.strip() and self.is_whole:
            raise StreamError("the stream ended within an event")
        return found

    @property
    def _bytes(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def _payloads(self) -> Iterator[tuple[float, bytes]]:
        """The body's parts in order, each with the time its last byte came."""
        received = self._bytes
        ends = list(accumulate(len(piece) for _, piece in self.pieces))
        head, separator, _ = received.partition(b"\r\n\r\n")
        start = len(head) + len(separator)
        if b"transfer-encoding: chunked" not in head.lower():
            yield self.pieces[-1][0], received[start:]
            return
        while True:
            size_end = received.find(b"\r\n", start)
            if size_end < 0:
                break
            size = int(received[start:size_end].partition(b";")[0] or b"0", 16)
            end = size_end + 2 + size
            if size == 0:
                return
            if end > len(received):
                break
            yield self.pieces[bisect_left(ends, end)][0], received[size_end + 2 : end]
            start = end + 2
        if self.is_whole:
            raise StreamError("the connection ended before the answer did")


async def exchange(
    address: Address,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    leave_after: int | None = None,
) -> Exchange:
    """Sends a request and takes what comes.

    Args:
        address: Where to.
        method: ``GET`` or ``POST``.
        path: Below the address, with its slash.
        body: Sent as JSON.
        leave_after: Hangs up after so many pieces, as clients do whose users leave.

    Raises:
        StreamError: Nobody listens there, or the connection breaks.
    """
    content = b"" if body is None else json.dumps(body).encode()
    request = address.head(method, path, len(content)) + content
    tls = ssl.create_default_context() if address.is_tls else None
    pieces: list[tuple[float, bytes]] = []
    started = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
    except OSError as error:
        raise StreamError(f"no answer from {address.host}:{address.port}: {error}") from None
    try:
        writer.write(request)
        while leave_after is None or len(pieces) < leave_after:
            piece = await reader.read(_READ_BYTES)
            if not piece:
                return Exchange(started, tuple(pieces), True)
            pieces.append((time.perf_counter(), piece))
        return Exchange(started, tuple(pieces), False)
    except OSError as error:
        raise StreamError(f"the connection broke: {error}") from None
    finally:
        writer.transport.abort()
