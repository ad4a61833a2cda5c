"""What a reference shows of a model: values under the engine's names, and what is only in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qwen3_codegen.verification.measure import Array
from qwen3_runtime.engine.batch import FloatRows

__all__ = ["Observations", "Observed", "Reference", "Unmatched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A value of the engine as the reference has it."""

    name: str
    """The engine's name: ``layers.3.q_rms_norm``."""
    source: str
    """The reference's: ``output of model.layers.3.self_attn.q_norm``."""
    rows: Sequence[Array]
    """[num_tokens, ...] of every sequence; the shape may be the engine's with dimensions joined."""
    own: Sequence[Array] | None = None
    """The same from the reference in the engine's half precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """Something one side computes and the other does not."""

    name: str
    """The reference's module, or the engine's value."""
    layer: int | None
    op: str | None
    part: str | None = None
    """Of an op that a pass made of several: the one that is meant."""
    location: str | None
    after: str | None
    """The value of the engine that is computed just before; None is the very beginning."""
    text: str


@dataclass(slots=True)
class Observations:
    """All of it."""

    values: list[Observed] = field(default_factory=list)
    unmatched: list[Unmatched] = field(default_factory=list)
    logits: list[FloatRows] = field(default_factory=list)
    """[num_tokens, vocab_size] of every sequence."""
    own_logits: list[FloatRows] | None = None
    notes: list[str] = field(default_factory=list)
    """What to know of it: how much of the model it shows."""


class Reference(Protocol):
    """Something that computes the same model another way."""

    @property
    def title(self) -> str:
        """What it is, with its version and dtype."""
        ...

    def observe(self, sequences: Sequence[Sequence[int]]) -> Observations:
        """Runs every sequence from its start."""
        ...

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[FloatRows] | None:
        """Returns float32 logits of sequences, None where only what is recorded is known."""
        ...
