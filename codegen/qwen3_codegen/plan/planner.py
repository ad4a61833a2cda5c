"""``Graph`` and device in, ``EnginePlan`` out: the last place where anything is decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.infinicore.api import InfiniCoreApi
from qwen3_codegen.ir.graph import AttributeValue, Graph, Node, Region, Value
from qwen3_codegen.ir.ops import ATTENTION_OPS, ops_of
from qwen3_codegen.passes.rewriting import used_rope_tables
from qwen3_codegen.plan import native, portable
from qwen3_codegen.plan.activations import (
    activation_dtype,
    cache_dtype,
    row_dtype,
    with_activations,
)
from qwen3_codegen.plan.context import EngineContext, RegionContext
from qwen3_codegen.plan.records import (
    Action,
    BufferPlan,
    Definition,
    EnginePlan,
    KernelCall,
    MemoryPlan,
    OpChoice,
    Origin,
    RegionPlan,
    RotatedHeads,
    Step,
    TargetPlan,
    TensorRef,
)
from qwen3_codegen.plan.rope_layout import interleave_rotary_weights, interleaved_values
from qwen3_codegen.plan.storage import Place, RegionStorage, row_elements
from qwen3_codegen.plan.tracing import trace_calls, trace_inner, trace_parameters
from qwen3_codegen.plan.weights import (
    ModelWeights,
    expert_weights,
    layer_weights,
    linear_weights,
    total_bytes,
)
from qwen3_codegen.spec.model import RopeTable
from qwen3_runtime.engine.batch import CacheGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is made for, beside the graph."""

    module_name: str
    architecture: str
    target: TargetPlan
    api: InfiniCoreApi
    transpose_linear_weights: bool
    ignored_tensors: tuple[str, ...]
    spec_facts: Mapping[str, object]
    overrides: Mapping[str, object] = field(default_factory=dict)
    """What the user changed of the description, for the manifest."""
    activation_dtype: DType | None = None
    """Of values between ops; None takes the lowering's own choice."""
    kv_cache_dtype: DType | None = None
    """Of keys and values; None leaves the choice to the model."""
    digests: Mapping[str, str]
    trace: bool = False
    """Whether values can be looked at while the engine runs."""


def plan_engine(graph: Graph, request: PlanRequest) -> EnginePlan:
    """Returns the plan of an engine in the lowering of its target.

    Raises:
        LoweringError: The device lacks something the graph needs, or the lowering a dtype that was
            asked for.
    """
    _LOWERINGS[request.target.lowering].refuse_unknown_ops(graph)
    if request.target.lowering == "portable" and not _rotates_halves(request.api):
        moved = interleaved_values(graph) if request.trace else {}
        return _Planner(interleave_rotary_weights(graph), request, moved).plan()
    return _Planner(graph, request, {}).plan()


_LOWERINGS = {lowering.name: lowering for lowering in (native.LOWERING, portable.LOWERING)}


def _rotates_halves(api: InfiniCoreApi) -> bool:
    return any(argument.kind.value == "enum" for argument in api.operators["rope"].create_args)


class _Planner:
    """Walks the regions in the order they run, with one pool of buffers."""

    def __init__(
        self,
        graph: Graph,
        request: PlanRequest,
        moved: Mapping[str, Mapping[str, tuple[RotatedHeads, ...]]],
    ) -> None:
        lowering = request.target.lowering
        self._values_in = activation_dtype(graph, lowering, request.activation_dtype)
        graph = with_activations(graph, self._values_in)
        self._graph = graph
        self._ops = ops_of(graph)
        self._moved = moved
        self._request = request
        self._engine = EngineContext(
            graph=graph,
            api=request.api,
            device=request.target.device,
            device_label=request.target.device,
            transpose_linear_weights=request.transpose_linear_weights,
            cache_dtype=cache_dtype(graph, lowering, self._values_in, request.kv_cache_dtype),
            row_dtype=row_dtype(graph, lowering, self._values_in, request.activation_dtype),
        )
        self._lowering = _LOWERINGS[lowering]
        self._model_weights = ModelWeights()
        self._used_by_op: dict[str, set[str]] = {}

    def plan(self) -> EnginePlan:
        graph, request = self._graph, self._request
        hidden = self._hidden_place()
        prologue = self._plan_outer(graph.prologue, hidden, is_prologue=True)
        kinds = tuple(self._plan_kind(index, hidden) for index in range(len(graph.layer_kinds)))
        epilogue = self._plan_outer(graph.epilogue, hidden, is_prologue=False)
        prologue = replace(prologue, weights=self._model_weights.plans())
        cache_groups = _cache_groups(graph, request.target.lowering, self._engine.cache_dtype)
        buffers = self._engine.pool.plans()
        return EnginePlan(
            module_name=request.module_name,
            model_name=graph.name,
            architecture=request.architecture,
            target=request.target,
            dtype=graph.dtype,
            vocab_size=graph.vocab_size,
            max_position_embeddings=graph.max_position_embeddings,
            num_layers=len(graph.schedule),
            prologue=prologue,
            layer_kinds=kinds,
            schedule=graph.schedule,
            epilogue=epilogue,
            buffers=buffers,
            max_logit_rows=_max_logit_rows(graph.vocab_size, self._values_in),
            scratch_columns=self._engine.scratch_columns,
            constants=dict(self._engine.constants),
            rope_tables=_used_tables(graph),
            attention_shapes=tuple(self._engine.attention_shapes),
            windows=tuple(self._engine.windows),
            cache_groups=cache_groups,
            operators=tuple(sorted(self._engine.operators)),
            kernels=_kernel_instances((prologue, *kinds, epilogue)),
            choices=self._choices(),
            memory=self._memory(prologue, kinds, cache_groups, buffers),
            ignored_tensors=request.ignored_tensors,
            spec_facts=request.spec_facts,
            overrides=request.overrides,
            digests=request.digests,
            own_headers=self._own_headers(),
            activation_dtype=None if self._values_in is graph.dtype else self._values_in,
            row_dtype=self._engine.row_dtype,
        )

    def _hidden_place(self) -> Place:
        """The buffer of ``h``, which every layer reads and leaves its result in."""
        (hidden,) = self._graph.layer_kinds[0].parameters
        columns = row_elements(hidden.type)
        return Place(self._engine.pool.take(hidden, columns, set()), 0, columns, columns)

    def _plan_outer(self, region: Region, hidden: Place, *, is_prologue: bool) -> RegionPlan:
        transposed = self._transposed(region)
        weights = self._model_weights.add_region(region, transposed)
        name = region.name
        if is_prologue:
            parameters, steps = self._steps(region, weights, {}, hidden, outer=name)
        else:  # run for one part of the logit rows after the other
            fixed = {region.parameters[0].name: hidden}
            parameters, steps = self._steps(
                region, weights, fixed, None, outer=name, runs_again=True
            )
        return RegionPlan(region.name, parameters, steps, region.results[0], (), (), {})

    def _plan_kind(self, index: int, hidden: Place) -> RegionPlan:
        region = self._graph.layer_kinds[index]
        plans = layer_weights(region, self._transposed(region), expert_weights(region))
        weights = {plan.name: TensorRef(Origin.LAYER_WEIGHT, plan.name) for plan in plans}
        fixed = {region.parameters[0].name: hidden}
        parameters, steps = self._steps(region, weights, fixed, hidden)
        layers = tuple(i for i, kind in enumerate(self._graph.schedule) if kind == index)
        return RegionPlan(
            region.name,
            parameters,
            steps,
            region.results[0],
            plans,
            layers,
            dict(region.attributes),
        )

    def _transposed(self, region: Region) -> frozenset[str]:
        return linear_weights(region) if self._request.transpose_linear_weights else frozenset()

    def _steps(
        self,
        region: Region,
        weights: Mapping[str, TensorRef],
        fixed: Mapping[str, Place],
        result_place: Place | None,
        *,
        outer: str | None = None,
        runs_again: bool = False,
    ) -> tuple[tuple[Definition, ...], tuple[Step, ...]]:
        storage = RegionStorage(region, self._engine.pool, fixed, runs_again=runs_again)
        values = {value.name: value for value in region.values()}
        context = RegionContext(self._engine, storage, weights, values)
        steps = []
        if self._request.trace and fixed:
            steps.append(trace_parameters(region, [values[name] for name in fixed], outer))
        for index, node in enumerate(region.nodes):
            storage.advance(index)
            before = set(self._engine.operators)
            self._engine.operators = set()
            lower = self._lowering.find(self._ops[node.op])
            assert lower is not None, node.op  # refuse_unknown_ops
            definitions, actions = lower(node, context)
            used = self._used_by_op.setdefault(node.op, set())
            used.update(self._engine.operators, _kernels_of(actions))
            self._engine.operators |= before
            if self._request.trace:
                moved = self._moved.get(region.name, {})
                inner = trace_inner(node, actions)
                actions = (*actions, *inner, *trace_calls(node.outputs, outer, moved))
            steps.append(Step(_summary(node), node.location, definitions, actions))
        if result_place is not None:
            steps += self._move_result(region, context, result_place)
        parameters = tuple(self._parameter(values[name], place) for name, place in fixed.items())
        return parameters, tuple(steps)

    def _parameter(self, value: Value, place: Place) -> Definition:
        buffer = TensorRef(Origin.BUFFER, self._engine.pool.name(place.buffer))
        return Definition(value.name, buffer.viewed("shaped", value.type.shape), value.type)

    def _move_result(
        self, region: Region, context: RegionContext, result_place: Place
    ) -> list[Step]:
        """Brings a region's result to where the next region looks for it."""
        (result,) = region.results
        if context.storage.place(result) == result_place:
            return []
        value: Value = context.values[result]
        buffer = TensorRef(Origin.BUFFER, self._engine.pool.name(result_place.buffer))
        target = buffer.viewed("shaped", tuple(value.type.shape))
        copy = self._lowering.copy(region.nodes[-1], context, target, result)
        text = f"{result} goes to where the next layer reads it"
        return [Step(text, region.nodes[-1].location, (), (copy,))]

    def _choices(self) -> tuple[OpChoice, ...]:
        choices = []
        for op in sorted(self._used_by_op):
            operators = tuple(sorted(self._used_by_op[op]))
            reason = _reason(op, operators)
            if self._request.target.lowering == "native":
                kernel = self._ops[op].kernel
                reason = "kernels of our own" if operators else "views only"
                reason = reason if kernel is None else f"your kernel in {kernel.header}"
            choices.append(OpChoice(op, operators, reason))
        return tuple(choices)

    def _own_headers(self) -> Mapping[str, Mapping[str, str]]:
        kernels = (self._ops[op].kernel for op in sorted(self._used_by_op))
        return {kernel.header: kernel.texts for kernel in kernels if kernel is not None}

    def _memory(
        self,
        prologue: RegionPlan,
        kinds: tuple[RegionPlan, ...],
        cache_groups: tuple[CacheGroup, ...],
        buffers: tuple[BufferPlan, ...],
    ) -> MemoryPlan:
        weights = total_bytes(prologue.weights)
        weights += sum(total_bytes(kind.weights) * len(kind.layers) for kind in kinds)
        per_token = sum(b.columns * b.dtype.size for b in buffers if b.rows == "num_tokens")
        per_row = sum(b.columns * b.dtype.size for b in buffers if b.rows == "num_logit_rows")
        element = self._values_in.size
        scratch = self._engine.scratch_columns * element
        pairs = sum(len(table.inv_freq) for table in _used_tables(self._graph).values())
        shapes = len(self._engine.attention_shapes)
        is_native = self._request.target.lowering == "native"
        return MemoryPlan(
            weight_bytes=weights,
            kv_bytes_per_token=sum(group.bytes_per_token for group in cache_groups),
            activation_bytes_per_token=per_token + scratch,
            logit_bytes_per_row=per_row,
            rope_bytes_per_position=2 * pairs * (4 if is_native else element),
            mask_bytes_per_token_and_position=shapes * len(self._engine.windows) * element,
            attention_scratch_bytes=shapes * _ATTENTION_SCRATCH_BYTES,
        )


def _kernels_of(actions: Iterable[Action]) -> set[str]:
    return {action.kernel for action in actions if isinstance(action, KernelCall)}


def _kernel_instances(
    regions: Iterable[RegionPlan],
) -> tuple[tuple[str, tuple[int | str, ...]], ...]:
    """Kernels with their sizes, each once."""
    calls = {
        (action.kernel, action.sizes)
        for region in regions
        for step in region.steps
        for action in step.actions
        if isinstance(action, KernelCall)
    }
    return tuple(sorted(calls, key=lambda call: (call[0], tuple(map(str, call[1])))))


def _reason(op: str, operators: tuple[str, ...]) -> str:
    own = "gemm" if op == "linear" else op
    others = ", ".join(name for name in operators if name != own)
    if not operators:
        return "views and copies only"
    if own not in operators:
        return "decomposed"
    return f"the device has {own}; {others} around it" if others else "the device has it"


CACHE_BLOCK = 32
"""``kCacheBlock`` of ``paged_cache.hpp``."""

_ATTENTION_SCRATCH_BYTES = 64 << 20
"""``kScratchBytes`` of ``contiguous_attention.hpp``."""

_NEUTRAL = {("alpha", 1.0), ("offset", 0.0)}
"""Attributes that change nothing and need no mention."""
_NAMED_ROLES = frozenset({"bias", "residual", "gate", "up", "q_norm", "k_norm"})
"""Inputs whose part is not plain from where they stand."""


def _summary(node: Node) -> str:
    """``y = op(x, weight) {attribute=value}``: a node in one line for a reader of the engine."""
    results = ", ".join(value.name for value in node.outputs)
    arguments = [
        f"{role}={name}" if role in _NAMED_ROLES else name for role, name in node.inputs.items()
    ]
    attributes = ", ".join(
        f"{name}={_as_text(value)}"
        for name, value in node.attributes.items()
        if value is not None and (name, value) not in _NEUTRAL
    )
    call = f"{results} = {node.op}({', '.join(arguments)})"
    return f"{call} {{{attributes}}}" if attributes else call


def _as_text(value: AttributeValue) -> str:
    match value:
        case float():
            return f"{value:.8g}"
        case tuple():
            return f"[{', '.join(map(str, value))}]"
    return str(value)


def _max_logit_rows(vocab_size: int, dtype: DType) -> int:
    """As many rows as keep the logits of one go within 64 MiB, but no more than 256."""
    return max(1, min(256, (64 << 20) // (vocab_size * dtype.size)))


def _used_tables(graph: Graph) -> Mapping[str, RopeTable]:
    used = used_rope_tables(graph)
    return {name: table for name, table in graph.rope_tables.items() if name in used}


def _cache_groups(graph: Graph, lowering: str, dtype: DType) -> tuple[CacheGroup, ...]:
    """Layers with equal key/value heads, head size and window share a group."""
    layers: dict[tuple[int, int, int | None], list[int]] = {}
    for layer, kind in enumerate(graph.schedule):
        region = graph.layer_kinds[kind]
        values = {value.name: value for value in region.values()}
        attentions = [node for node in region.nodes if node.op in ATTENTION_OPS]
        if len(attentions) > 1:
            raise LoweringError(
                "a layer with several attentions is not carried out", where=attentions[1].location
            )
        for node in attentions:
            _, kv_heads, head_dim = values[node.inputs["k"]].type.shape
            window = node.attributes["window"]
            key = (int(kv_heads), int(head_dim), window if isinstance(window, int) else None)
            layers.setdefault(key, []).append(layer)
    windows = [window for _, _, window in layers]
    return tuple(
        CacheGroup(
            name=_group_name(window, kv_heads, head_dim, is_alone=windows.count(window) == 1),
            kind="contiguous" if lowering == "portable" else "paged",
            layers=tuple(members),
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            window=window,
            dtype=dtype.value,
            block_size=None if lowering == "portable" else CACHE_BLOCK,
        )
        for (kv_heads, head_dim, window), members in layers.items()
    )


def _group_name(window: int | None, kv_heads: int, head_dim: int, *, is_alone: bool) -> str:
    name = "full" if window is None else f"window_{window}"
    return name if is_alone else f"{name}_{kv_heads}x{head_dim}"
