"""A hub of our own on this machine: the few answers of Hugging Face's that a download needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StubRepository:
    """A model on the stub."""

    files: Mapping[str, bytes]
    commit: str = COMMIT
    is_gated: bool = False
    announced: Mapping[str, int] = field(default_factory=dict)
    """Sizes that are said of files instead of the true ones."""


@dataclass
class StubHub:
    """What the stub has, what it was asked, and how it misbehaves."""

    repositories: dict[str, StubRepository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of each request, in order."""
    endpoint: str = ""
    stop_after: int | None = None
    """Send so many bytes of a weight file and then nothing more, until released."""
    released: threading.Event = field(default_factory=threading.Event)
    ignores_ranges: bool = False
    damages_weights: bool = False
    status: int | None = None
    """Answer everything with this status."""

    def asked_for(self, ending: str, method: str = "GET") -> list[str | None]:
        """Ranges of the requests for paths with an ending."""
        return [r for m, path, r in self.requests if m == method and path.endswith(ending)]


@contextmanager
def stub_hub() -> Iterator[StubHub]:
    """Runs a stub on a port of the system's choice."""
    hub = StubHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StubHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.status is not None:
            return self._send(self.hub.status, b"")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._model(match[1], match[2])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(match[1], match[2], match[3])
        if match := re.fullmatch(r"/cdn/([0-9a-f]{64})/[^/]+", path):
            return self._blob(match[1])
        return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _repository(self, name: str, revision: str) -> StubRepository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", repository.commit):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository
        return None

    def _model(self, name: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        sizes = {n: len(c) for n, c in repository.files.items()} | dict(repository.announced)
        siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        answer = {"id": name, "sha": repository.commit, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return None
        if repository.is_gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        if file not in repository.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = repository.files[file]
        headers = {"X-Repo-Commit": repository.commit}
        digest = hashlib.sha256(content).hexdigest()
        if not file.endswith(".safetensors"):
            return self._send(200, content, {**headers, "ETag": f'"{digest[:40]}"'})
        # Another host, as the real hub's: redirects on its own host are followed unasked.
        elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")
        location = f"{elsewhere}/cdn/{digest}/{file}"
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return self._send(302, b"", {**headers, **linked, "Location": location})

    def _blob(self, digest: str) -> None:
        contents = (c for r in self.hub.repositories.values() for c in r.files.values())
        content = next(c for c in contents if hashlib.sha256(c).hexdigest() == digest)
        if self.hub.damages_weights:
            content = content[:-1] + bytes([content[-1] ^ 1])
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if match is None or self.hub.ignores_ranges:
            return self._send(200, content)
        start = int(match[1])
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206, content[start:], {"Content-Range": span})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = self.hub.stop_after
        if stop is not None and len(body) > stop:
            self.wfile.write(body[:stop])
            self.wfile.flush()
            self.hub.released.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body)
