"""Failures as OpenAI's error object, on Anthropic's routes as its, with the right status."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from qwen3_runtime.errors import (
    EngineGoneError,
    QueueFullError,
    RequestError,
    RuntimeFault,
    TokenizerError,
    printable,
)
from qwen3_runtime.server.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from qwen3_runtime.server.wire import JsonResponse

__all__ = [
    "ApiError",
    "api_error",
    "error_response",
    "install_handlers",
    "is_messages_path",
    "messages_error",
]

_log = logging.getLogger("qwen3_codegen.server")

_MAX_CHARS = 2000
_FIELDS = (
    ChatCompletionRequest.model_fields.keys()
    | CompletionRequest.model_fields.keys()
    | EmbeddingRequest.model_fields.keys()
)
"""Faults may also be in files of this machine, which are nobody's business."""
_QUOTED_FIELD = re.compile(r"'(\w+)' ")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}

_MESSAGES_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """A failure as a client sees it.

    Args:
        status: HTTP status.
        message: One or more sentences for people.
        param: Field of the request that is wrong.
        code: Word for programs, such as ``context_length_exceeded``.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = printable(message[:_MAX_CHARS])
        self.param = None if param is None else printable(param[:_MAX_CHARS])
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }


def messages_error(error: ApiError) -> dict[str, Any]:
    """Returns a failure as Anthropic's error object, which has no place for the field's name."""
    text = error.message
    if error.param is not None and error.param not in text:
        text = f"{error.param}: {text}"
    if error.code == "context_length_exceeded":  # coding agents know it by these words
        text = f"prompt is too long: {text}"
    kind = _MESSAGES_TYPES.get(error.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": text}}


def is_messages_path(path: str) -> bool:
    """Returns whether a path is one of Anthropic's API."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def api_error(error: Exception) -> ApiError:
    """Returns any failure as an ``ApiError``; what nobody foresaw is logged and hidden."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            return ApiError(429, "too many requests wait; try again later", code="queue_full")
        case RequestError():
            return ApiError(400, _sentence(error), param=_param(error), code=_code(error))
        case TokenizerError():
            return ApiError(400, _sentence(error))
        case EngineGoneError():
            return ApiError(503, f"{error.message}; the server's log says more", code="failed")
        case RuntimeFault():
            _log.error("%s", error)
            return ApiError(500, "the engine failed; the server's log has the details")
        case _:
            _log.error("a request failed", exc_info=error)
            return ApiError(500, "an error inside the server; its log has the details")


def _param(error: RequestError) -> str | None:
    """The field of the request; those of sampling parameters stand in the message."""
    quoted = _QUOTED_FIELD.match(error.message)
    if quoted is not None:
        return quoted[1]
    where = error.where or ""
    return where if re.split(r"[.\[]", where)[0] in _FIELDS else None


def _code(error: RequestError) -> str | None:
    return "context_length_exceeded" if "maximum context length" in error.message else None


def _sentence(error: RuntimeFault) -> str:
    """The fault in one line, without places of this machine."""
    parts = [error.message]
    if error.got is not None:
        parts.append(f"got {error.got}")
    if error.expected is not None:
        parts.append(f"expected {error.expected}")
    return "; ".join(parts)


def install_handlers(app: FastAPI) -> None:
    """Lets every failure of a route end in an error object."""

    async def answer(request: Request, error: Exception) -> JsonResponse:
        return error_response(api_error(error), request.url.path)

    async def invalid(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = [str(part) for part in first.get("loc", ()) if part != "body"]
        is_json = first.get("type") == "json_invalid"
        message = "the body is no valid JSON" if is_json else str(first.get("msg", "invalid"))
        param = None if is_json or not place else ".".join(place)
        text = message if param is None else f"{param[:200]}: {message}"
        return error_response(ApiError(400, text, param=param), request.url.path)

    async def http(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, HTTPException)
        text = str(error.detail)
        if error.status_code in (404, 405):
            text = f"there is no {request.method} {request.url.path}"
        return error_response(ApiError(error.status_code, text), request.url.path, error.headers)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in (ApiError, RuntimeFault, Exception):
        app.add_exception_handler(kind, answer)


def error_response(
    error: ApiError, path: str, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    """Returns a failure as an answer, in the form of its route, with the headers it asks for."""
    own = {
        401: {"WWW-Authenticate": "Bearer"},
        429: {"Retry-After": "1"},
        503: {"Retry-After": "1"},
    }
    body = messages_error(error) if is_messages_path(path) else error.body
    return JsonResponse(body, error.status, {**(headers or {}), **own.get(error.status, {})})
