"""Answers as bytes."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

__all__ = ["JsonResponse", "json_bytes"]

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_bytes(value: object) -> bytes:
    """Returns a value as JSON in UTF-8; halves of characters, which have no UTF-8, become ``?``."""
    return _ENCODER.encode(value).encode("utf-8", "replace")


class JsonResponse(JSONResponse):
    """A body that can always be written, whatever a client or a model put into it."""

    def render(self, content: Any) -> bytes:
        """See ``starlette.responses.Response``."""
        return json_bytes(content)
