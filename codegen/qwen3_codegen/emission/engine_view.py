"""``EnginePlan`` to ``EngineView``: names, literals and comments for the engine's own sources."""

from __future__ import annotations

import textwrap

from qwen3_codegen.dtypes import DType
from qwen3_codegen.emission.cpp import (
    CppIdentifier,
    cpp_braced,
    cpp_comment,
    cpp_float,
    cpp_string,
    local_name,
    pascal_case,
    snake_case,
    tensor_expression,
    wrapped,
)
from qwen3_codegen.emission.views import (
    AttentionView,
    BufferView,
    CacheGroupView,
    CallView,
    ConstantView,
    DefinitionView,
    EngineView,
    LayerKindView,
    RegionView,
    RopeView,
    StepView,
    WeightView,
)
from qwen3_codegen.plan.records import (
    Action,
    ActivationCall,
    AttentionCall,
    AttentionShape,
    Definition,
    EnginePlan,
    OperatorCall,
    RegionPlan,
    RowCopy,
    Step,
    WeightPlan,
)
from qwen3_codegen.spec.model import RopeTable

_WIDTH = 100

_DTYPES = {
    DType.F32: "INFINI_DTYPE_F32",
    DType.BF16: "INFINI_DTYPE_BF16",
    DType.F16: "INFINI_DTYPE_F16",
    DType.I32: "INFINI_DTYPE_I32",
}


def engine_title(plan: EnginePlan) -> str:
    """One line that says what an engine is."""
    return cpp_comment(
        f"Engine of {plan.model_name} ({plan.architecture}) for {plan.target.device} in "
        f"{plan.dtype.value}, on InfiniCore {plan.target.release}."
    )


def engine_view(plan: EnginePlan, regenerate: str) -> EngineView:
    """Returns the view of ``engine.hpp`` and ``engine.cpp``."""
    return EngineView(
        title=engine_title(plan),
        regenerate=cpp_comment(regenerate),
        namespace=CppIdentifier(plan.module_name),
        num_layers=plan.num_layers,
        vocab_size=plan.vocab_size,
        max_position_embeddings=plan.max_position_embeddings,
        max_logit_rows=plan.max_logit_rows,
        dtype=_DTYPES[plan.dtype],
        device_enumerator=CppIdentifier(plan.target.enumerator),
        device_literal=cpp_string(plan.target.device),
        is_emulated="true" if plan.target.emulated else "false",
        layer_kinds=tuple(
            _layer_kind(index, kind, plan) for index, kind in enumerate(plan.layer_kinds)
        ),
        schedule=wrapped((str(kind) for kind in plan.schedule), _WIDTH - 6, 4),
        weights=tuple(_weight(weight) for weight in plan.prologue.weights),
        buffers=tuple(
            BufferView(
                member=f"{CppIdentifier(buffer.name)}_",
                bound=_bound(buffer.rows),
                columns=buffer.columns,
                comment=cpp_comment(
                    f"[{_bound(buffer.rows)}, {buffer.columns}]: {', '.join(buffer.holds)}"
                ),
            )
            for buffer in plan.buffers
        ),
        scratch_columns=plan.scratch_columns,
        has_scratch=plan.scratch_columns > 0,
        constants=tuple(
            ConstantView(name=CppIdentifier(name), literal=cpp_float(value))
            for name, value in plan.constants.items()
        ),
        has_constants=bool(plan.constants),
        rope_tables=tuple(_rope(table) for table in plan.rope_tables.values()),
        has_rope=bool(plan.rope_tables),
        attentions=tuple(
            _attention(index, shape) for index, shape in enumerate(plan.attention_shapes)
        ),
        windows=cpp_braced(window or 0 for window in plan.windows),
        cache_groups=tuple(
            CacheGroupView(
                name_literal=cpp_string(group.name),
                layers=cpp_braced([wrapped(map(str, group.layers), _WIDTH - 12, 8)]),
                num_key_value_heads=group.num_key_value_heads,
                head_dim=group.head_dim,
                window=group.window or 0,
            )
            for group in plan.cache_groups
        ),
        prologue=_region(
            plan.prologue, "prologue", "From token ids to the first hidden state.", plan
        ),
        epilogue=_region(plan.epilogue, "epilogue", "From the last hidden state to logits.", plan),
    )


def _bound(rows: str) -> str:
    return "kMaxLogitRows" if rows == "num_logit_rows" else "options.max_num_batched_tokens"


def _weight(weight: WeightPlan) -> WeightView:
    return WeightView(
        member=CppIdentifier(weight.name),
        name_literal=cpp_string(weight.name),
        dtype=_DTYPES[weight.dtype],
        shape=cpp_braced(weight.shape),
        comment=f"[{', '.join(map(str, weight.shape))}] {weight.dtype.value}",
    )


def _layer_kind(index: int, kind: RegionPlan, plan: EnginePlan) -> LayerKindView:
    name = snake_case(f"{kind.name}" if kind.name.endswith("layer") else f"{kind.name}_layer")
    traits = ", ".join(f"{key} {value}" for key, value in kind.attributes.items())
    layers = f"{len(kind.layers)} of {plan.num_layers} layers"
    comment = cpp_comment(f"{kind.name}: {layers}" + (f"; {traits}" if traits else ""))
    return LayerKindView(
        index=index,
        struct=CppIdentifier(f"{pascal_case(name)}Weights"),
        member=f"{name}s_",
        comment=comment,
        weights=tuple(_weight(weight) for weight in kind.weights),
        region=_region(kind, name, comment, plan),
    )


def _region(region: RegionPlan, name: str, comment: str, plan: EnginePlan) -> RegionView:
    return RegionView(
        name=CppIdentifier(name),
        comment=comment,
        parameters=tuple(_definition(definition) for definition in region.parameters),
        steps=tuple(_step(step, plan) for step in region.steps),
        result=local_name(region.result),
    )


def _definition(definition: Definition) -> DefinitionView:
    shape = ", ".join(str(extent) for extent in definition.type.shape)
    return DefinitionView(
        name=local_name(definition.name),
        expression=tensor_expression(definition.reference),
        comment=f"[{shape}]",
    )


def _step(step: Step, plan: EnginePlan) -> StepView:
    return StepView(
        comment=tuple(
            textwrap.wrap(
                f"{cpp_comment(step.text)} -- {cpp_comment(str(step.location))}",
                width=_WIDTH - 5,
                break_long_words=False,
                break_on_hyphens=False,
            )
        ),
        definitions=tuple(_definition(definition) for definition in step.definitions),
        calls=tuple(_call(action, plan) for action in step.actions),
    )


def _call(action: Action, plan: EnginePlan) -> CallView:
    match action:
        case OperatorCall():
            function = f"ops_.{CppIdentifier(action.operator)}"
            arguments = [tensor_expression(tensor) for tensor in action.tensors]
            arguments += [
                cpp_float(scalar) if isinstance(scalar, float) else str(CppIdentifier(scalar))
                for scalar in action.scalars
            ]
        case RowCopy():
            function = "copy_rows"
            rows = "batch_->token_ids.data", "num_tokens"
            if action.rows == "logit_rows":
                rows = "batch_->logit_rows.data + first_row", "num_logit_rows"
            arguments = [
                tensor_expression(action.destination),
                tensor_expression(action.table),
                *rows,
            ]
        case AttentionCall():
            function = f"attention_{action.shape_index}_->run"
            tensors = (action.output, action.query, action.key, action.value)
            arguments = [tensor_expression(tensor) for tensor in tensors]
            arguments += [
                "cache_[layer]",
                "batch_->places[cache_group_of_layer_[layer]]",
                f"/*window=*/{action.window or 0}",
                f"/*scale=*/{cpp_float(action.scale)}",
            ]
        case ActivationCall():
            function = f"qwen3::{CppIdentifier(action.function)}"
            tensors = (action.output, action.input, *action.constants, action.scratch)
            arguments = ["ops_", *(tensor_expression(tensor) for tensor in tensors)]
    indent = 2 + len(function) + 1
    return CallView(
        function=function, arguments=wrapped(arguments, max(40, _WIDTH - indent - 2), indent)
    )


def _attention(index: int, shape: AttentionShape) -> AttentionView:
    return AttentionView(
        member=f"attention_{index}_",
        constant=f"kAttention{index}",
        shape=cpp_braced((shape.num_heads, shape.num_key_value_heads, shape.head_dim)),
        comment=f"{shape.num_heads} query and {shape.num_key_value_heads} key/value heads of "
        f"{shape.head_dim}",
    )


def _rope(table: RopeTable) -> RopeView:
    constant = pascal_case(table.name)
    expression = f"k{constant}InvFreq"
    if table.long_inv_freq is not None:
        threshold = f"options.max_model_len > k{constant}LongThreshold"
        expression = f"{threshold} ? k{constant}LongInvFreq : {expression}"
    return RopeView(
        name=CppIdentifier(table.name),
        constant=constant,
        half_dim=len(table.inv_freq),
        inv_freq=_literals(table.inv_freq),
        long_inv_freq=_literals(table.long_inv_freq or ()),
        inv_freq_expression=expression,
        has_long=table.long_inv_freq is not None,
        long_threshold=table.long_threshold or 0,
        attention_factor=cpp_float(table.attention_factor),
        comment=cpp_comment(f"rotary frequencies of table {table.name}, after scaling"),
    )


def _literals(values: tuple[float, ...]) -> str:
    return wrapped((cpp_float(value) for value in values), _WIDTH - 6, 4)
