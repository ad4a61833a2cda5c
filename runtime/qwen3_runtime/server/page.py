"""The chat page at ``/``: files of the package as they are, under a strict policy."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

__all__ = ["PAGE_PATHS", "page_router"]

_FOLDER = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {
    "/" if path.name == "index.html" else f"/page/{path.name}": path
    for path in sorted(_FOLDER.iterdir())
    if path.suffix in _MEDIA_TYPES
}

PAGE_PATHS = frozenset(_FILES)
"""Open without a key: the page asks for it, and its files say nothing of the model."""

_HEADERS = {
    # Nothing from elsewhere, nothing inline, and no text ever becomes markup or code.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A newer version of the server brings a page that fits it.
    "Cache-Control": "no-cache",
}


def page_router() -> APIRouter:
    """Returns the routes of the page and of what it loads; no part of the API's description."""
    router = APIRouter(include_in_schema=False)
    for url_path, path in _FILES.items():
        _add_file(router, url_path, path)
    return router


def _add_file(router: APIRouter, url_path: str, path: Path) -> None:
    content, media_type = path.read_bytes(), _MEDIA_TYPES[path.suffix]

    @router.api_route(url_path, methods=["GET", "HEAD"])
    async def page_file() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)
