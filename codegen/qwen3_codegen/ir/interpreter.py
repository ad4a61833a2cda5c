"""Runs any graph in NumPy, straight from the references of the op table.

It is the oracle the passes and the emitted engines are compared with, and an engine of its own
for people who change a spec and want an answer without compiling. It is slow and never clever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph, Node, Region, Weight
from qwen3_codegen.ir.ops import ATTENTION_OPS, OpDef, ops_of
from qwen3_codegen.ir.ops.step import RopeAngles, Step
from qwen3_codegen.ir.weights import LAYER, tensor_templates
from qwen3_codegen.spec.model import RopeTable
from qwen3_runtime.checkpoint.tensor import FLOAT_DTYPES
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression
from qwen3_runtime.checkpoint.transform import evaluate
from qwen3_runtime.engine.batch import Batch, CacheGroup, FloatRows
from qwen3_runtime.engine.tracing import require_names
from qwen3_runtime.errors import EngineError

__all__ = ["Interpreter", "Replayed", "places", "rope_angles"]

Array: TypeAlias = npt.NDArray[Any]
_StateKey: TypeAlias = tuple[int, str, str]
"""Slot, place of the region, result of the node."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One node of one step, computed from inputs that were given."""

    place: str
    """``prologue``, ``layers.3`` or ``epilogue``."""
    layer: int | None
    node: Node
    step: int
    results: tuple[Array, ...]
    """One array per output of the node."""
    inner: Mapping[str, Array]
    """Of a fused op: what its last part should be given, if the other engine shows what it was
    given; the results are then of that."""


def places(graph: Graph) -> Iterator[tuple[str, int | None, Region]]:
    """Yields what runs, in order: the place's name in a trace, its layer, its region."""
    yield "prologue", None, graph.prologue
    for layer, kind in enumerate(graph.schedule):
        yield f"layers.{layer}", layer, graph.layer_kinds[kind]
    yield "epilogue", None, graph.epilogue


class Interpreter:
    """An engine that interprets a graph.

    Satisfies ``qwen3_runtime.engine.batch.Engine`` with one contiguous cache group for all
    layers. Each slot keeps what its sequence's stateful nodes remember; a step from position 0
    begins it anew. Not for several threads at once.

    Args:
        graph: A verified graph, before or after any pass.
        read: Gives a checkpoint's tensor by name; asked for each tensor of a layer when the
            layer first runs.
        dtype: What everything is computed in, ``float64`` or ``float32``.
        max_model_len: Most tokens of a sequence; also chooses between a rope table's short and
            long frequencies.
        max_num_seqs: Number of slots.
        keep_weights: Holds a layer's weights once they are read; otherwise every step reads them
            again, and no more than one layer is in memory.
        as_stored: Rounds every weight to its dtype in the graph, as compiled engines hold it.

    Raises:
        EngineError: ``max_model_len`` exceeds the positions the graph was made for.
    """

    def __init__(
        self,
        graph: Graph,
        read: Callable[[str], Array],
        *,
        dtype: npt.DTypeLike = np.float64,
        max_model_len: int,
        max_num_seqs: int,
        keep_weights: bool = True,
        as_stored: bool = False,
    ) -> None:
        if max_model_len > graph.max_position_embeddings:
            raise EngineError(
                "max_model_len exceeds the positions of the model",
                where=graph.name,
                got=max_model_len,
                expected=f"at most {graph.max_position_embeddings}",
            )
        self._graph = graph
        self._ops = ops_of(graph)
        self._dtype = np.dtype(dtype)
        self._read = read
        self._keep_weights = keep_weights
        self._as_stored = as_stored
        self._max_model_len = max_model_len
        self._max_num_seqs = max_num_seqs
        self._weights: dict[tuple[WeightExpression, int | None], Array] = {}
        self._num_steps = 0
        self._states: defaultdict[_StateKey, dict[str, Array]] = defaultdict(dict)

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self._graph.vocab_size

    @property
    def max_model_len(self) -> int:
        """Most tokens of a sequence."""
        return self._max_model_len

    @property
    def max_num_seqs(self) -> int:
        """Most sequences of a batch, and number of slots."""
        return self._max_num_seqs

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of a step; nothing is allocated for it, so it never binds."""
        return self._max_model_len * self._max_num_seqs

    @property
    def num_blocks(self) -> int:
        """None: the cache is contiguous."""
        return 0

    @property
    def num_steps(self) -> int:
        """Steps carried out so far."""
        return self._num_steps

    @property
    def cache_groups(self) -> tuple[CacheGroup, ...]:
        """One group for every layer; heads and sizes are those of the widest attention."""
        heads, head_dim = max(
            (_key_shape(region) for region in self._graph.layer_kinds),
            key=lambda shape: shape[0] * shape[1],
            default=(0, 0),
        )
        group = CacheGroup(
            name="cache",
            kind="contiguous",
            layers=tuple(range(len(self._graph.schedule))),
            num_key_value_heads=heads,
            head_dim=head_dim,
            window=None,
            dtype="float32",
        )
        return (group,)

    def forward(self, batch: Batch) -> FloatRows:
        """Runs one step.

        Returns:
            Logits [num_logit_rows, vocab_size].

        Raises:
            EngineError: The batch is inconsistent or exceeds the engine's bounds.
        """
        return self._run(batch, None).astype(np.float32)

    def copy_blocks(self, group: int, sources: Sequence[int], destinations: Sequence[int]) -> None:
        """Refuses: the cache is contiguous and has no blocks."""
        raise EngineError(
            "the cache group is not paged: it has no blocks to copy",
            where=self._graph.name,
            got=f"group {group} of {len(self.cache_groups)}",
        )

    def trace(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, Array]:
        """Runs one step and returns every value by name, in order, weights left out.

        Names are ``prologue.h``, ``layers.3.q_rms_norm``, ``epilogue.logits``, and inside a fused
        op ``layers.3.a.k_rope``; arrays have the interpreter's dtype. With ``names`` only the
        values of these are returned.

        Raises:
            EngineError: There is no value of such a name, or the batch does not fit.
        """
        values: dict[str, Array] = {}
        self._run(batch, values)
        require_names(names, values, self._graph.name)
        if names is None:
            return values
        return {name: array for name, array in values.items() if name in names}

    def replay(
        self,
        batches: Sequence[Batch],
        traces: Sequence[Mapping[str, Array]],
        row_dtype: DType | None = None,
    ) -> Iterator[Replayed]:
        """Computes every node by itself, from the values another engine had before it.

        What a node is off by is then its own fault: nothing is carried on from node to node. What
        stateful nodes remember of earlier steps comes from those steps' inputs. Layer by layer,
        all steps of it, so that a layer's weights are read once.

        Args:
            batches: Steps in order; sequences are told apart by their slots, from position 0 on.
            traces: What ``trace`` of the other engine gave for each; token ids need not be there.
            row_dtype: What that engine rounds the rows of a linear to, where its weight is of that
                dtype; None: it multiplies them as they are.

        Yields:
            Nodes in the order they run, each for all steps in turn.

        Raises:
            EngineError: A batch is inconsistent, or a trace lacks a value.
        """
        slots = [self._check(batch) for batch in batches]
        rope = [self._rope(batch) for batch in batches]
        for place, layer, region in places(self._graph):
            weights = {weight.name: self._weight(weight, layer) for weight in region.weights}
            rounds_rows = {w.name for w in region.weights if w.type.dtype is row_dtype}
            for node in region.nodes:
                is_rounded = node.op == "linear" and node.inputs["weight"] in rounds_rows
                rows_in = row_dtype if is_rounded else None
                for step, (batch, trace) in enumerate(zip(batches, traces, strict=True)):
                    given = _Given(trace, batch.token_ids, place, weights)
                    at = self._step(batch, slots[step], rope[step], place, node)
                    results, inner = self._alone(node, given, at, rows_in)
                    yield Replayed(place, layer, node, step, results, inner)

    def _alone(
        self, node: Node, given: _Given, step: Step, rows_in: DType | None
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """One node; another engine's values may be anything, infinities included."""
        fusion = self._ops[node.op].fusion
        with np.errstate(all="ignore"):
            inputs = {role: self._computing(given[name]) for role, name in node.inputs.items()}
            if rows_in is not None:
                inputs["x"] = self._rounded(inputs["x"], rows_in)
            inner = {} if fusion is None else fusion.inner(inputs, node.attributes, step)
            shown = {name: given.inner(node, name) for name in inner}
            if fusion is None or any(array is None for array in shown.values()):
                return _results(node, inputs, step, self._ops), {}
            given_last = {
                name: self._computing(array) for name, array in shown.items() if array is not None
            }
            return _tuple(fusion.result(given_last, node.attributes, step)), inner

    def _computing(self, array: Array) -> Array:
        """Token ids stay whole numbers."""
        return array if array.dtype.kind in "iu" else array.astype(self._dtype, copy=False)

    def _rope(self, batch: Batch) -> dict[str, RopeAngles]:
        return {
            name: rope_angles(table, batch.positions, self._max_model_len, self._dtype)
            for name, table in self._graph.rope_tables.items()
        }

    def _run(self, batch: Batch, trace: dict[str, Array] | None) -> Array:
        slots = self._check(batch)
        self._num_steps += 1
        rope = self._rope(batch)

        def run(region: Region, place: str, layer: int | None, argument: Array) -> Array:
            def step_of(node: Node) -> Step:
                return self._step(batch, slots, rope, place, node)

            weights = {weight.name: self._weight(weight, layer) for weight in region.weights}
            values = _run_region(
                region, argument, weights, step_of, self._ops, shows_inner=trace is not None
            )
            if trace is not None:
                trace.update({f"{place}.{name}": array for name, array in values.items()})
            return values[region.results[0]]

        h: Array = batch.token_ids
        for place, layer, region in places(self._graph):
            h = run(region, place, layer, h)
        return h

    def _step(
        self,
        batch: Batch,
        slots: tuple[int, ...],
        rope: Mapping[str, RopeAngles],
        place: str,
        node: Node,
    ) -> Step:
        name = node.outputs[0].name
        return Step(
            query_lens=tuple(map(int, batch.query_lens)),
            seq_lens=tuple(map(int, batch.seq_lens)),
            logit_rows=batch.logit_rows,
            rope=rope,
            state_of=lambda index: self._states[slots[index], place, name],
        )

    def _weight(self, weight: Weight, layer: int | None) -> Array:
        of_layer = any(LAYER in name for name in tensor_templates(weight.expression))
        key = (weight.expression, layer if of_layer else None)
        if key in self._weights:
            return self._weights[key]
        array = self._evaluated(weight, key[1])
        if array.shape != weight.type.shape:
            raise EngineError(
                "a weight has the wrong shape",
                where=weight.name,
                got=list(array.shape),
                expected=list(weight.type.shape),
            )
        if self._keep_weights:
            self._weights[key] = array
        return array

    def _evaluated(self, weight: Weight, layer: int | None) -> Array:
        if self._as_stored:
            return self._rounded(evaluate(weight.expression, self._read, layer), weight.type.dtype)
        return evaluate(weight.expression, self._read_in_dtype, layer)

    def _rounded(self, array: Array, dtype: DType) -> Array:
        return array.astype(FLOAT_DTYPES[dtype.value]).astype(self._dtype)

    def _read_in_dtype(self, name: str) -> Array:
        array: Array = np.asarray(self._read(name)).astype(self._dtype)
        return array

    def _check(self, batch: Batch) -> tuple[int, ...]:
        """Returns the slots of a batch after checking all of it."""
        slots = batch.places[0].slots
        if slots is None:
            raise EngineError("the cache is contiguous, the batch gives no slots")
        tokens, seqs = len(batch.token_ids), len(batch.query_lens)
        starts = batch.seq_lens - batch.query_lens
        positions = [
            np.arange(start, end) for start, end in zip(starts, batch.seq_lens, strict=True)
        ]
        rules = {
            "more sequences than slots": seqs <= self._max_num_seqs,
            "slots outside the cache": bool(np.all((slots >= 0) & (slots < self._max_num_seqs))),
            "two sequences in one slot": len(set(slots.tolist())) == len(slots) == seqs,
            "a sequence without new tokens": bool(np.all(batch.query_lens > 0)),
            "a sequence longer than max_model_len": bool(
                np.all(batch.seq_lens <= self._max_model_len)
            ),
            "lengths that do not add up to the tokens": int(batch.query_lens.sum()) == tokens,
            "positions other than the lengths say": seqs > 0
            and np.array_equal(np.concatenate(positions), batch.positions),
            "token ids outside the vocabulary": bool(
                np.all((batch.token_ids >= 0) & (batch.token_ids < self.vocab_size))
            ),
            "logit rows outside the tokens": bool(
                np.all((batch.logit_rows >= 0) & (batch.logit_rows < tokens))
            ),
        }
        for fault, holds in rules.items():
            if not holds:
                raise EngineError(f"a batch has {fault}", where=self._graph.name)
        return tuple(slots.tolist())


def _run_region(
    region: Region,
    argument: Array,
    weights: Mapping[str, Array],
    step_of: Callable[[Node], Step],
    ops: Mapping[str, OpDef],
    *,
    shows_inner: bool,
) -> dict[str, Array]:
    """Returns the parameter and every node's results by name, ``a.k_rope`` of fused ones too."""
    values = {region.parameters[0].name: argument}
    for node in region.nodes:
        inputs = {
            role: weights[name] if name in weights else values[name]
            for role, name in node.inputs.items()
        }
        step, fusion = step_of(node), ops[node.op].fusion
        if shows_inner and fusion is not None:
            inner = fusion.inner(inputs, node.attributes, step)
            values |= {f"{node.outputs[0].name}.{name}": array for name, array in inner.items()}
        arrays = _results(node, inputs, step, ops)
        for value, array in zip(node.outputs, arrays, strict=True):
            values[value.name] = array
    return values


def _results(
    node: Node, inputs: Mapping[str, Array], step: Step, ops: Mapping[str, OpDef]
) -> tuple[Array, ...]:
    return _tuple(ops[node.op].reference(inputs, node.attributes, step))


def _tuple(results: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return results if isinstance(results, tuple) else (results,)


@dataclass(frozen=True, slots=True)
class _Given:
    """The values a node of a place may read: its weights, and what a trace holds."""

    trace: Mapping[str, Array]
    token_ids: Array
    place: str
    weights: Mapping[str, Array]

    def __getitem__(self, name: str) -> Array:
        if name in self.weights:
            return self.weights[name]
        array = self.trace.get(f"{self.place}.{name}")
        if array is None and self.place == "prologue" and name == "input_ids":
            return self.token_ids
        if array is None:
            raise EngineError("a trace lacks a value", where=f"{self.place}.{name}")
        return array

    def inner(self, node: Node, name: str) -> Array | None:
        """What the last part of a fused op was given, if the trace shows it."""
        return self.trace.get(f"{self.place}.{node.outputs[0].name}.{name}")


def _key_shape(region: Region) -> tuple[int, int]:
    """Returns key/value heads and head_dim of a layer's widest attention, (0, 0) without one."""
    types = {value.name: value.type for value in region.values()}
    shapes = [types[node.inputs["k"]].shape for node in region.nodes if node.op in ATTENTION_OPS]
    sizes = [(int(heads), int(head_dim)) for _, heads, head_dim in shapes]
    return max(sizes, default=(0, 0))


def rope_angles(
    table: RopeTable, positions: Array, max_model_len: int, dtype: np.dtype[Any]
) -> RopeAngles:
    """Returns angles in float32 as transformers computes them, whatever ``dtype`` they come in.

    Args:
        table: Frequencies.
        positions: [num_tokens].
        max_model_len: Chooses between short and long frequencies.
        dtype: Of the result.
    """
    use_long = table.long_threshold is not None and max_model_len > table.long_threshold
    frequencies = table.long_inv_freq if use_long else table.inv_freq
    angles = positions[:, None].astype(np.float32) * np.asarray(frequencies, np.float32)
    factor = np.float32(table.attention_factor)

    def rounded(wide: Array) -> Array:
        table: Array = wide.astype(np.float32) * factor
        return table.astype(dtype)

    return RopeAngles(
        cos=rounded(np.cos(angles.astype(np.float64))),
        sin=rounded(np.sin(angles.astype(np.float64))),
        rotary_dim=table.rotary_dim,
        interleaved=table.interleaved,
    )
