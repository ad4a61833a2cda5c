"""Failures as OpenAI's error object, with the status clients act on."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from qwen3_runtime.errors import QueueFullError, RequestError, RuntimeFault, TokenizerError

__all__ = ["ApiError", "api_error", "install_handlers"]

_log = logging.getLogger("qwen3_codegen.server")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
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
        self.message = message
        self.param = param
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


def api_error(error: Exception) -> ApiError:
    """Returns any failure as an ``ApiError``; what nobody foresaw is logged and hidden."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            return ApiError(429, "too many requests wait; try again later", code="queue_full")
        case RequestError():
            return ApiError(400, _sentence(error), param=error.where, code=_code(error))
        case TokenizerError():
            return ApiError(400, _sentence(error))
        case RuntimeFault():
            _log.error("%s", error)
            return ApiError(500, _sentence(error))
        case _:
            _log.error("a request failed", exc_info=error)
            return ApiError(500, "an error inside the server; its log has the details")


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
    """Lets every failure of a route end in OpenAI's error object."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        found = api_error(error)
        headers = {"Retry-After": "1"} if found.status in (429, 503) else None
        return JSONResponse(found.body, found.status, headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = [str(part) for part in first.get("loc", ()) if part != "body"]
        is_json = first.get("type") == "json_invalid"
        message = "the body is no valid JSON" if is_json else str(first.get("msg", "invalid"))
        param = None if is_json or not place else ".".join(place)
        text = message if param is None else f"{param}: {message}"
        return await answer(request, ApiError(400, text, param=param))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            text = f"there is no {request.method} {request.url.path}"
            return await answer(request, ApiError(404, text))
        return await answer(request, ApiError(error.status_code, str(error.detail)))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in (ApiError, RuntimeFault, Exception):
        app.add_exception_handler(kind, answer)
