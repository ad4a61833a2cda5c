"""What an operator may set; checked where it is read, frozen from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ServerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server behaves towards its clients."""

    model_names: tuple[str, ...]
    """Names that serve, the first one is what answers carry."""
    api_keys: frozenset[str] = frozenset()
    """Any of them opens the API; without one it is open."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may call from a browser; ``*`` is any."""
    max_body_bytes: int = 8 << 20
    """Longest request body."""
    max_queue: int = 256
    """Most requests that wait for a place in the engine."""
    body_seconds: float = 60.0
    """Longest time a request's body may take to come."""
    request_seconds: float = 600.0
    """Longest time a request may take."""
    drain_seconds: float = 30.0
    """Longest time that answers on their way are waited for, once the server is to end."""
    max_choices: int = 16
    """Most answers to one request (``n``)."""
    template_arguments: Mapping[str, object] = field(default_factory=dict)
    """What every chat template gets, such as ``enable_thinking``; a request's own go first."""
    log_format: str = "text"
    """One of ``logs.LOG_FORMATS``."""
    version: str = ""
