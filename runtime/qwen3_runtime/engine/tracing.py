"""Values of a traced engine as its graph means them, and of whole prompts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from qwen3_runtime.engine.batch import Batch, Engine, FloatRows
from qwen3_runtime.engine.manifest import TRACED_KEY, Manifest
from qwen3_runtime.engine.prefill import prompt_rows
from qwen3_runtime.errors import EngineError


class TracedEngine(Engine, Protocol):
    """An engine whose values can be looked at."""

    def trace(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, FloatRows]:
        """Runs one step and returns the values of these names, or all, in order."""
        ...


def prompt_values(
    engine: TracedEngine, prompts: Sequence[Sequence[int]], names: Collection[str] | None = None
) -> list[dict[str, FloatRows]]:
    """Runs sequences from their start and returns the values of each.

    Args:
        engine: The engine.
        prompts: Token ids.
        names: The values wanted; None is all of them.

    Returns:
        Per sequence, arrays ``[num_tokens, ...]`` by name, those of the epilogue included.

    Raises:
        RequestError: A prompt cannot be served.
        EngineError: A step failed, or has no value of such a name.
    """
    return prompt_rows(engine, prompts, lambda batch: engine.trace(batch, names))


def last_values(
    engine: TracedEngine, prompts: Sequence[Sequence[int]], name: str
) -> list[FloatRows]:
    """Runs sequences from their start and returns a value of the last token of each.

    Args:
        engine: The engine.
        prompts: Token ids.
        name: A value of the epilogue, which is computed for no token but the last.

    Returns:
        Per sequence float32 ``[...]``.

    Raises:
        RequestError: A prompt cannot be served.
        EngineError: A step failed, or has no value of such a name.
    """
    rows = prompt_rows(engine, prompts, lambda batch: engine.trace(batch, [name]), last_only=True)
    return [values[name][-1] for values in rows]


def require_names(names: Collection[str] | None, values: Collection[str], where: object) -> None:
    """Refuses names that a step has no value of.

    Raises:
        EngineError: There are some.
    """
    if missing := sorted(set(names or ()) - set(values)):
        raise EngineError(
            "the step has no such value",
            where=where,
            got=", ".join(missing),
            hint="without names all of them are returned",
        )


def in_half_split_order(
    values: Mapping[str, FloatRows], manifest: Manifest
) -> dict[str, FloatRows]:
    """Undoes what a release that rotates neighbours does to the heads of queries and keys.

    Raises:
        EngineError: The manifest is damaged.
    """
    ordered = dict(values)
    try:
        for entry in manifest[TRACED_KEY]["interleaved"]:
            for layer in entry["layers"]:
                name = f"layers.{layer}.{entry['value']}"
                if name in ordered:
                    ordered[name] = _half_split(ordered[name], entry)
    except (KeyError, TypeError) as error:
        raise EngineError("the trace of the manifest is damaged", got=repr(error)) from None
    return ordered


def _half_split(array: FloatRows, heads: Mapping[str, Any]) -> FloatRows:
    """Element 2i of a head, and 2i + 1, back to i and i + rotary_dim / 2."""
    rows: FloatRows = array.reshape(len(array), math.prod(array.shape[1:])).copy()
    columns = slice(heads["start"], heads["start"] + heads["count"])
    head_dim, rotary_dim = heads["head_dim"], heads["rotary_dim"]
    order = np.arange(heads["count"]).reshape(-1, head_dim)
    pairs = order[:, :rotary_dim].reshape(len(order), -1, 2)
    order[:, :rotary_dim] = pairs.swapaxes(1, 2).reshape(len(order), -1)
    rows[:, columns] = rows[:, columns][:, order.ravel()]
    return rows.reshape(array.shape)
