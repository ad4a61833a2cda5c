"""What stands before every route: ids and log lines, keys, and the size of bodies."""

from __future__ import annotations

import hmac
import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.page import PAGE_PATHS
from qwen3_runtime.server.settings import ServerSettings

__all__ = ["Guards"]

_log = logging.getLogger("qwen3_codegen.server")

_OPEN_PATHS = frozenset({"/health", "/version", "/favicon.ico", *PAGE_PATHS})
"""Open without a key: what probes and a page that asks for the key need."""


class Guards:
    """An ASGI middleware.

    Args:
        app: What comes after it.
        settings: Keys and limits.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._guarded(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            _log.info(
                "%s %s %s %d %.3f s",
                request_id,
                scope["method"],
                scope["path"],
                status,
                seconds,
                extra={"request_id": request_id, "status": status, "seconds": seconds},
            )

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refusal = self._without_key(scope, headers) or self._announced_too_long(headers)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        body = _BoundedBody(receive, self._settings.max_body_bytes)
        if scope["method"] in ("POST", "PUT", "PATCH") and not await body.read():
            await _refuse(self._too_long(), scope, receive, send)
            return
        await self._app(scope, body.receive, send)

    def _without_key(self, scope: Scope, headers: Headers) -> ApiError | None:
        """Every key is compared in full, so that the time says nothing of any."""
        if not self._keys or scope["path"] in _OPEN_PATHS or scope["method"] == "OPTIONS":
            return None
        kind, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if kind.lower() == "bearer" else b""
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        if any(matches):
            return None
        return ApiError(
            401,
            "this server wants an API key: Authorization: Bearer <key>",
            code="invalid_api_key",
        )

    def _announced_too_long(self, headers: Headers) -> ApiError | None:
        length = headers.get("content-length", "0")
        is_number = length.isascii() and length.isdigit()
        if is_number and int(length) > self._settings.max_body_bytes:
            return self._too_long()
        return None

    def _too_long(self) -> ApiError:
        return ApiError(413, f"a body has at most {self._settings.max_body_bytes} bytes")


class _BoundedBody:
    """Reads a body that may be longer than it says, and gives it on in one piece."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._body: bytes | None = None

    async def read(self) -> bool:
        """Reads all of it; False when it is too long."""
        pieces, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                break
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._limit:
                return False
            if not message.get("more_body", False):
                break
        self._body = b"".join(pieces)
        return True

    async def receive(self) -> Message:
        """Gives the body first, then what else comes, such as the client's leaving."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(error.body, error.status)(scope, receive, send)
