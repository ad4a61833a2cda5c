"""What crosses between the serving process and the engine's, both ways.

The pipe belongs to a parent and the child it started; nothing a client sent is unpickled from it
but inside these records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qwen3_runtime.engine.core import CoreStatus, EngineRequest, TokenOutput
from qwen3_runtime.errors import RuntimeFault

__all__ = [
    "Abort",
    "Accepted",
    "Add",
    "Command",
    "Embed",
    "Embedded",
    "EngineFacts",
    "Failed",
    "News",
    "Outputs",
    "Progress",
    "Ready",
    "Refused",
    "Stop",
]


@dataclass(frozen=True, slots=True)
class Add:
    """Queue a request."""

    request: EngineRequest


@dataclass(frozen=True, slots=True)
class Abort:
    """Take requests out, wherever they are."""

    request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Embed:
    """Make a vector of a prompt."""

    request_id: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the process; what is in flight is lost."""


Command: TypeAlias = Add | Abort | Embed | Stop
"""To the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the serving process must know of a loaded engine."""

    max_model_len: int
    max_num_seqs: int
    vocab_size: int
    num_blocks: int
    kv_cache_bytes: int
    can_embed: bool = False
    """Whether prompts can be made into vectors."""
    description: Mapping[str, object] = field(default_factory=dict)
    """Device, lowering, dtype, ops, memory: for people and ``/health``; JSON values."""
    notes: tuple[str, ...] = ()
    """One-line facts the user should know."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What loading is at."""

    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is loaded."""

    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine cannot be loaded; the process ends."""

    message: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was queued."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was not queued."""

    request_id: str
    error: RuntimeFault


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of a prompt."""

    request_id: str
    vector: NDArray[np.float32]


class Outputs(NamedTuple):
    """What a step gave, and how busy the engine is after it."""

    outputs: tuple[TokenOutput, ...]
    status: CoreStatus


News: TypeAlias = Progress | Ready | Failed | Accepted | Refused | Embedded | Outputs
"""From the engine."""
