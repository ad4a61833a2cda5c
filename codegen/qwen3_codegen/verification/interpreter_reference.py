"""The float64 interpreter as a reference: needs nothing but NumPy, and no architecture to exist.

It runs the graph as the architecture file says it, before any pass, so passes and lowering are
judged. What the file itself gets wrong it gets wrong, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import Interpreter, places
from qwen3_codegen.verification.measure import Array
from qwen3_codegen.verification.observed import Observations, Observed
from qwen3_runtime.engine.batch import Batch, CachePlaces, FloatRows

__all__ = ["InterpreterReference"]


class InterpreterReference:
    """A graph before all passes, in float64.

    Args:
        graph: As the frontend builds it.
        engine_graph: After all passes; names what is compared.
        read: Gives a checkpoint's tensor by name.
        max_model_len: The engine's, which chooses between rope tables.
    """

    title = "interpreter of the graph before all passes, float64"

    def __init__(
        self,
        graph: Graph,
        engine_graph: Graph,
        read: Callable[[str], Array],
        max_model_len: int,
    ) -> None:
        self._graph = graph
        self._engine_graph = engine_graph
        self._read = read
        self._max_model_len = max_model_len

    def observe(self, sequences: Sequence[Sequence[int]]) -> Observations:
        """Shows what every layer leaves; inside layers, passes give names another meaning."""
        values = self._trace(sequences)
        ends = np.cumsum([len(sequence) for sequence in sequences])[:-1]
        observations = Observations(
            logits=[rows.astype(np.float32) for rows in np.split(self._logits(values), ends)]
        )
        *inner, _ = zip(places(self._graph), places(self._engine_graph), strict=True)
        for (place, _, region), (_, _, lowered) in inner:
            source = f"{place}.{region.results[0]}"
            rows = np.split(values[source], ends)
            name = f"{place}.{lowered.results[0]}"
            observations.values.append(Observed(name=name, source=source, rows=rows))
        return observations

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[FloatRows]:
        """Returns logits of sequences, rounded to float32."""
        ends = np.cumsum([len(sequence) for sequence in sequences])[:-1]
        rows = self._logits(self._trace(sequences))
        return [part.astype(np.float32) for part in np.split(rows, ends)]

    def _logits(self, values: dict[str, Array]) -> Array:
        return values[f"epilogue.{self._graph.epilogue.results[0]}"]

    def _trace(self, sequences: Sequence[Sequence[int]]) -> dict[str, Array]:
        interpreter = Interpreter(
            self._graph,
            self._read,
            max_model_len=self._max_model_len,
            max_num_seqs=len(sequences),
            keep_weights=False,
        )
        return interpreter.trace(_whole(sequences))


def _whole(sequences: Sequence[Sequence[int]]) -> Batch:
    """All sequences from their starts as one step."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    positions = [np.arange(length, dtype=np.int32) for length in lengths]
    token_ids = np.concatenate([np.asarray(each, np.int32) for each in sequences])
    return Batch(
        token_ids=token_ids,
        positions=np.concatenate(positions),
        query_lens=lengths,
        seq_lens=lengths,
        logit_rows=np.arange(len(token_ids), dtype=np.int32),
        places=(CachePlaces(slots=np.arange(len(sequences), dtype=np.int32)),),
    )
