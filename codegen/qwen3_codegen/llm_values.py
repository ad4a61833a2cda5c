"""What happens inside an ``LLM``: the values of prompts, by an engine that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from qwen3_codegen.compile import make_graph
from qwen3_codegen.ir.hidden_states import hidden_state_names
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.engine.batch import FloatRows
from qwen3_runtime.engine.tracing import TracedEngine, last_values, prompt_values
from qwen3_runtime.errors import RequestError

POOLINGS = ("last", "mean")
"""What stands for a prompt: the final hidden state of its last token, or the mean of all."""


@dataclass(slots=True)
class ValueReader:
    """Runs prompts and returns what they go through; see ``LLM.trace`` and ``LLM.hidden_states``.

    Args:
        spec: The model.
        make: Gives the engine and the name of its lowering; called on first use.
    """

    spec: ModelSpec
    make: Callable[[], tuple[TracedEngine, str]]
    _made: tuple[TracedEngine, str] | None = field(default=None, init=False)

    def hidden_states(self, prompts: Sequence[Sequence[int]]) -> list[FloatRows]:
        """Returns ``[num_layers + 1, num_tokens, hidden_size]`` of each prompt."""
        engine, lowering = self._engine()
        names = hidden_state_names(make_graph(self.spec, lowering=lowering))
        return [
            np.stack([values[name] for name in names])
            for values in prompt_values(engine, prompts, names)
        ]

    def embeddings(self, prompts: Sequence[Sequence[int]], pooling: str) -> list[FloatRows]:
        """Returns the vector ``[hidden_size]`` of each prompt, of length 1."""
        if pooling not in POOLINGS:
            raise RequestError(
                "there is no such pooling", got=pooling, expected=", ".join(POOLINGS)
            )
        engine, lowering = self._engine()
        last = hidden_state_names(make_graph(self.spec, lowering=lowering))[-1]
        if pooling == "last":
            pooled = last_values(engine, prompts, last)
        else:
            rows = prompt_values(engine, prompts, [last])
            pooled = [values[last].mean(axis=0) for values in rows]
        return [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in pooled]

    def trace(self, prompts: Sequence[Sequence[int]]) -> dict[str, FloatRows]:
        """Returns every value of the only prompt by name."""
        if len(prompts) != 1:
            raise RequestError("a trace is of one prompt", got=f"{len(prompts)} prompts")
        engine, _ = self._engine()
        (values,) = prompt_values(engine, prompts)
        return values

    def _engine(self) -> tuple[TracedEngine, str]:
        if self._made is None:
            self._made = self.make()
        return self._made
