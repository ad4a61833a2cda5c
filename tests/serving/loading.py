"""Loaders for the engine's process, which imports them by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from qwen3_runtime.errors import CheckpointError
from qwen3_runtime.serving import LoadedEngine
from qwen3_runtime.serving.messages import EngineFacts
from tests.engine.toy_engine import ToyEngine


def loaded(engine: ToyEngine, step_seconds: float, **more_facts: object) -> LoadedEngine:
    """Slows an engine's steps down and says what is known of it."""
    forward = engine.forward

    def slow(batch):
        time.sleep(step_seconds)
        return forward(batch)

    engine.forward = slow
    facts = {
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "vocab_size": engine.vocab_size,
        "num_blocks": engine.num_blocks,
        "kv_cache_bytes": 0,
    }
    return LoadedEngine(engine=engine, facts=EngineFacts(**{**facts, **more_facts}))


@dataclass(frozen=True)
class ToyLoader:
    """Loads the toy engine; each step takes ``step_seconds``."""

    step_seconds: float = 0.0
    fails: str | None = None
    fails_at: tuple[int, ...] = ()
    options: dict[str, int] = field(default_factory=dict)

    def __call__(self, notify: Callable[[str], None]) -> LoadedEngine:
        notify("reading toys")
        if self.fails is not None:
            raise CheckpointError(self.fails, where="toys.safetensors")
        engine = ToyEngine(**self.options)
        engine.fails_at = set(self.fails_at)
        return loaded(engine, self.step_seconds)
