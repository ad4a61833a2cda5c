"""Runs an ``EnginePlan`` in NumPy: the engine that would be emitted, without C++.

Buffers lie in flat memory and values are the plan's strided views of it, so a wrong place, stride
or order of calls gives wrong numbers. Memory that a step must not rely on is filled with NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qwen3_codegen.infinicore.api import InfiniCoreApi
from qwen3_codegen.plan.records import (
    Action,
    ActivationCall,
    AttentionCall,
    EnginePlan,
    OperatorCall,
    Origin,
    RegionPlan,
    RowCopy,
    TensorRef,
    TraceCall,
    WeightPlan,
)
from qwen3_runtime.checkpoint.transform import evaluate
from qwen3_runtime.engine.batch import Batch, CacheGroup, FloatRows
from tests.plan.operators import OPERATORS, check_call
from tests.plan.views import Array, Memory, View, packed


class PlanMachine:
    """An engine after ``qwen3_runtime.engine.batch.Engine`` that carries a plan out.

    Everything is computed in float64.
    """

    def __init__(
        self,
        plan: EnginePlan,
        api: InfiniCoreApi,
        read: Callable[[str], Array],
        *,
        max_model_len: int = 64,
        max_num_seqs: int = 3,
        max_num_batched_tokens: int = 32,
    ) -> None:
        self.plan, self.api = plan, api
        self.max_model_len = max_model_len
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self._read = lambda name: np.asarray(read(name), np.float64)
        bounds = {"num_tokens": max_num_batched_tokens, "num_logit_rows": plan.max_logit_rows}
        self._buffers = {
            buffer.name: _nothing(buffer.name, (bounds[buffer.rows], buffer.columns))
            for buffer in plan.buffers
        }
        self._buffers["scratch"] = _nothing(
            "scratch", (max_num_batched_tokens * plan.scratch_columns,)
        )
        self._model_weights = self._load(plan.prologue.weights, None)
        self._layer_weights = {
            layer: self._load(kind.weights, layer)
            for kind in plan.layer_kinds
            for layer in kind.layers
        }
        self._constants = {
            name: View.of(name, np.array([value])) for name, value in plan.constants.items()
        }
        self._tables = {name: self._rope(name) for name in plan.rope_tables}
        self._caches: dict[tuple[int, int, str], Array] = {}
        self.traced: dict[str, Array] = {}
        """Values of the last step."""

    @property
    def vocab_size(self) -> int:
        return self.plan.vocab_size

    @property
    def num_blocks(self) -> int:
        return 0

    @property
    def cache_groups(self) -> tuple[CacheGroup, ...]:
        return self.plan.cache_groups

    def forward(self, batch: Batch) -> FloatRows:
        return self.run(batch).astype(np.float32)

    def run(self, batch: Batch) -> Array:
        """Runs one step and returns logits in float64."""
        plan = self.plan
        assert len(batch.places) == len(plan.cache_groups)
        sizes = {"num_tokens": len(batch.token_ids), "num_logit_rows": 0}
        self.traced = {}
        self._run_region(plan.prologue, batch, sizes, None, range(0))
        for layer, kind in enumerate(plan.schedule):
            self._run_region(plan.layer_kinds[kind], batch, sizes, layer, range(0))
        logits = []
        for start in range(0, len(batch.logit_rows), plan.max_logit_rows):
            rows = range(start, min(start + plan.max_logit_rows, len(batch.logit_rows)))
            sizes["num_logit_rows"] = len(rows)
            logits.append(self._run_region(plan.epilogue, batch, sizes, None, rows))
        return np.concatenate(logits)

    def _run_region(
        self,
        region: RegionPlan,
        batch: Batch,
        sizes: Mapping[str, int],
        layer: int | None,
        logit_rows: range,
    ) -> Array:
        values: dict[str, View] = {}
        kept = {definition.reference.name for definition in region.parameters}
        for name, buffer in self._buffers.items():
            if name not in kept:
                buffer.memory.elements[:] = np.nan
        resolve = _Resolver(self, values, sizes, batch, layer)
        for definition in region.parameters:
            values[definition.name] = resolve(definition.reference)
        for step in region.steps:
            for definition in step.definitions:
                view = resolve(definition.reference)
                assert view.shape == resolve.extents(definition.type.shape), definition.name
                values[definition.name] = view
            for action in step.actions:
                self._act(action, resolve, batch, layer, logit_rows)
        return values[region.result].read()

    def _act(
        self,
        action: Action,
        resolve: _Resolver,
        batch: Batch,
        layer: int | None,
        logit_rows: range,
    ) -> None:
        match action:
            case OperatorCall():
                views = [resolve(tensor) for tensor in action.tensors]
                check_call(
                    action.operator, views, action.scalars, self.api, self.plan.target.device
                )
                OPERATORS[action.operator](*views, *action.scalars)
            case RowCopy():
                rows = batch.token_ids
                if action.rows == "logit_rows":
                    rows = batch.logit_rows[logit_rows.start : logit_rows.stop]
                resolve(action.destination).write(resolve(action.table).read()[rows])
            case ActivationCall(function="gelu_tanh"):
                self._gelu_tanh(action, resolve)
            case AttentionCall():
                assert layer is not None
                self._attention(action, resolve, batch, layer)
            case TraceCall():
                place = action.region if layer is None else f"layers.{layer}"
                self._trace(f"{place}.{action.name}", resolve(action.value).read(), action.is_part)
            case _:
                raise ValueError(action)

    def _trace(self, name: str, value: Array, is_part: bool) -> None:
        earlier = [self.traced[name]] if is_part and name in self.traced else []
        self.traced[name] = np.concatenate([*earlier, value])

    def _gelu_tanh(self, call: ActivationCall, resolve: _Resolver) -> None:
        """x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the constants as the plan gives them."""
        cubic, linear, zero = (resolve(constant).read()[0] for constant in call.constants)
        assert zero == 0.0
        x = resolve(call.input).read()
        assert resolve(call.scratch).memory.elements.size >= 3 * x.size
        resolve(call.output).write(x / (1.0 + np.exp(-(linear * x + cubic * x**3))))

    def _attention(self, call: AttentionCall, resolve: _Resolver, batch: Batch, layer: int) -> None:
        shape = self.plan.attention_shapes[call.shape_index]
        assert call.window in self.plan.windows
        (group,) = (i for i, g in enumerate(self.plan.cache_groups) if layer in g.layers)
        assert self.plan.cache_groups[group].window == call.window
        slots = batch.places[group].slots
        assert slots is not None
        query, key, value = (resolve(t).read() for t in (call.query, call.key, call.value))
        assert query.shape[1:] == (shape.num_heads, shape.head_dim)
        assert key.shape[1:] == value.shape[1:] == (shape.num_key_value_heads, shape.head_dim)
        output = np.empty_like(query)
        first = 0
        for slot, query_len, seq_len in zip(slots, batch.query_lens, batch.seq_lens, strict=True):
            rows, past = slice(first, first + query_len), seq_len - query_len
            keys = self._cached(layer, slot, "keys", key[rows], past)
            values = self._cached(layer, slot, "values", value[rows], past)
            for row in range(query_len):
                last = past + row + 1
                start = 0 if call.window is None else max(0, last - call.window)
                output[first + row] = _attend(
                    query[first + row], keys[start:last], values[start:last], call.scale
                )
            first += query_len
        resolve(call.output).write(output)

    def _cached(self, layer: int, slot: int, what: str, new: Array, past: int) -> Array:
        place = layer, int(slot), what
        old = self._caches.get(place, new[:0])
        self._caches[place] = np.concatenate([old[:past], new])
        return self._caches[place]

    def _load(self, weights: tuple[WeightPlan, ...], layer: int | None) -> dict[str, View]:
        loaded = {}
        for weight in weights:
            array = evaluate(weight.expression, self._read, layer)
            assert array.shape == weight.shape, weight.name
            loaded[weight.name] = View.of(weight.name, array)
        return loaded

    def _rope(self, name: str) -> tuple[View, View]:
        """Sines and cosines [max_model_len, rotary_dim / 2], rounded as transformers does."""
        table = self.plan.rope_tables[name]
        frequencies = table.inv_freq
        if table.long_threshold is not None and self.max_model_len > table.long_threshold:
            assert table.long_inv_freq is not None
            frequencies = table.long_inv_freq
        positions = np.arange(self.max_model_len, dtype=np.float32)
        angles = (positions[:, None] * np.asarray(frequencies, np.float32)).astype(np.float64)
        factor = np.float32(table.attention_factor)
        sin, cos = (f(angles).astype(np.float32) * factor for f in (np.sin, np.cos))
        return View.of("sin", sin.astype(np.float64)), View.of("cos", cos.astype(np.float64))

    def base(self, origin: Origin, name: str, layer: int | None) -> View:
        """What a reference of an origin other than a value starts from."""
        match origin:
            case Origin.BUFFER:
                return self._buffers[name]
            case Origin.MODEL_WEIGHT:
                return self._model_weights[name]
            case Origin.LAYER_WEIGHT:
                assert layer is not None
                return self._layer_weights[layer][name]
            case Origin.CONSTANT:
                return self._constants[name]
            case Origin.SIN_TABLE:
                return self._tables[name][0]
            case Origin.COS_TABLE:
                return self._tables[name][1]
        raise ValueError(origin)


class _Resolver:
    """From references to views, while one region runs."""

    def __init__(
        self,
        machine: PlanMachine,
        values: Mapping[str, View],
        sizes: Mapping[str, int],
        batch: Batch,
        layer: int | None,
    ) -> None:
        self._machine, self._values, self._sizes = machine, values, sizes
        self._positions = View.of("positions", batch.positions)
        self._layer = layer

    def __call__(self, reference: TensorRef) -> View:
        if reference.origin is Origin.VALUE:
            view = self._values[reference.name]
        elif reference.origin is Origin.POSITIONS:
            view = self._positions
        else:
            view = self._machine.base(reference.origin, reference.name, self._layer)
        for step in reference.views:
            arguments = [
                self.extents(argument) if isinstance(argument, tuple) else self._extent(argument)
                for argument in step.arguments
            ]
            view = getattr(view, step.method)(*arguments)
        return view

    def extents(self, shape: tuple[int | str, ...]) -> tuple[int, ...]:
        return tuple(self._extent(extent) for extent in shape)

    def _extent(self, extent: int | str) -> int:
        return self._sizes[extent] if isinstance(extent, str) else extent


def _attend(query: Array, keys: Array, values: Array, scale: float) -> Array:
    """One token: query [heads, d], keys and values [n, kv_heads, d]."""
    output = np.empty_like(query)
    per_head = query.shape[0] // keys.shape[1]
    for head in range(query.shape[0]):
        scores = scale * (keys[:, head // per_head] @ query[head])
        weights = np.exp(scores - scores.max())
        output[head] = weights @ values[:, head // per_head] / weights.sum()
    return output


def _nothing(name: str, shape: tuple[int, ...]) -> View:
    elements = np.full(int(np.prod(shape)), np.nan)
    return View(Memory(name, elements), shape, packed(shape))
