"""What stands before every route: ids and log lines, keys, and the size of bodies."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen3_runtime.errors import printable
from qwen3_runtime.server.errors import ApiError, api_error, error_response, is_messages_path
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.page import PAGE_PATHS

__all__ = ["Guards"]

_log = logging.getLogger("qwen3_codegen.server")

_OPEN_PATHS = frozenset({"/health", "/version", "/favicon.ico", *PAGE_PATHS})
"""Open without a key: what probes and a page that asks for the key need."""
_PROBED_PATHS = frozenset({"/health", "/metrics"})
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_MAX_PATH = 200
_MAX_DISCARDED = 8
"""A body that is too long is read up to so many times the limit before the connection is cut."""


class Guards:
    """An ASGI middleware.

    Args:
        app: What comes after it.
        model: Its settings say keys and limits; requests on their way are counted in it.
    """

    def __init__(self, app: ASGIApp, model: ServedModel) -> None:
        self._app = app
        self._model = model
        self._settings = model.settings
        self._keys = [key.encode() for key in model.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        ids = {"X-Request-Id": request_id}
        if is_messages_path(scope["path"]):
            ids["Request-Id"] = request_id  # as Anthropic's clients know it
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(ids)
            await send(message)

        self._model.num_in_flight += 1
        try:
            await self._guarded(scope, receive, send_with_id)
        except Exception as error:
            if status:
                raise  # half an answer is none: the connection is cut
            # Raised on, it would cut a connection whose next request the client has sent already.
            await error_response(api_error(error), scope["path"])(scope, receive, send_with_id)
        finally:
            self._model.num_in_flight -= 1
            _log_request(scope, request_id, status, time.perf_counter() - started)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        body = _BoundedBody(receive, self._settings.max_body_bytes)
        refusal = self._without_key(scope, headers)
        if refusal is None and scope["method"] in ("POST", "PUT", "PATCH"):
            refusal = await self._unreadable(headers, body)
        if refusal is not None:
            await error_response(refusal, scope["path"])(scope, receive, send)
            return
        await self._app(scope, body.receive, send)

    async def _unreadable(self, headers: Headers, body: _BoundedBody) -> ApiError | None:
        """Reads the body and returns what is wrong with it."""
        try:
            # Even one that announces to be too long is read, or clients would see a broken pipe.
            is_short = await asyncio.wait_for(body.read(), self._settings.body_seconds)
        except asyncio.TimeoutError:
            return ApiError(408, "the body did not come in time", code="timeout")
        if not is_short:
            return ApiError(413, f"a body has at most {self._settings.max_body_bytes} bytes")
        # Pages of other origins may send anything but this without asking first.
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return ApiError(415, "a body is JSON: Content-Type: application/json")
        return None

    def _without_key(self, scope: Scope, headers: Headers) -> ApiError | None:
        """Every key is compared in full, so that the time says nothing of any."""
        if not self._keys or scope["path"] in _OPEN_PATHS or scope["method"] == "OPTIONS":
            return None
        kind, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        matches = [hmac.compare_digest(given.encode("latin-1"), known) for known in self._keys]
        if any(matches):
            return None
        return ApiError(
            401,
            "this server wants an API key: Authorization: Bearer <key>",
            code="invalid_api_key",
        )


class _BoundedBody:
    """Reads a body that may be longer than it says, and gives it on in one piece."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._body: bytes | None = None

    async def read(self) -> bool:
        """Reads all of it; False when it is too long, of which nothing is kept."""
        pieces, size = [], 0
        while size <= _MAX_DISCARDED * self._limit:
            message = await self._receive()
            if message["type"] != "http.request":
                break
            piece = message.get("body", b"")
            size += len(piece)
            if size <= self._limit:
                pieces.append(piece)
            if not message.get("more_body", False):
                break
        self._body = b"".join(pieces)
        return size <= self._limit

    async def receive(self) -> Message:
        """Gives the body first, then what else comes, such as the client's leaving."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


def _request_id(headers: Headers) -> str:
    """The client's own, where it is one that may stand in headers and logs."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _log_request(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    path = printable(scope["path"][:_MAX_PATH]).replace("\n", "\\n")
    # Probes come every few seconds for as long as the server runs.
    is_probe = path in _PROBED_PATHS and status == 200
    _log.log(
        logging.DEBUG if is_probe else logging.INFO,
        "%s %s %s %d %.3f s",
        request_id,
        scope["method"],
        path,
        status,
        seconds,
        extra={
            "request_id": request_id,
            "method": scope["method"],
            "path": path,
            "status": status,
            "seconds": round(seconds, 6),
        },
    )
