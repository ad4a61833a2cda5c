"""``RegionPlan`` to ``RegionView``: the steps of one function of the forward pass."""

from __future__ import annotations

from pathlib import PurePath

from qwen3_codegen.emission.cpp import (
    WIDTH,
    CppIdentifier,
    call_arguments,
    comment_lines,
    cpp_float,
    cpp_string,
    local_name,
    member_name,
    qualified,
    tensor_expression,
)
from qwen3_codegen.emission.views import CallView, DefinitionView, RegionView, StepView
from qwen3_codegen.plan.records import (
    Action,
    ActivationCall,
    AttentionCall,
    AttentionOptions,
    CacheTraceCall,
    Definition,
    Flag,
    FloatVector,
    HeadOptions,
    KernelArgument,
    KernelCall,
    OperatorCall,
    RegionPlan,
    RowCopy,
    Step,
    StepArgument,
    TensorRef,
    TraceCall,
)

_INDENT = 2


def region_view(region: RegionPlan) -> RegionView:
    """Returns the view of a region's steps."""
    return RegionView(
        parameters=tuple(_definition(definition) for definition in region.parameters),
        steps=tuple(_step(step) for step in region.steps),
    )


def _definition(definition: Definition) -> DefinitionView:
    name, expression = local_name(definition.name), tensor_expression(definition.reference)
    comment = f"[{', '.join(str(extent) for extent in definition.type.shape)}]"
    statement = f"{' ' * _INDENT}const Tensor {name} = {expression};  // {comment}"
    return DefinitionView(
        name=name, expression=expression, comment=comment, is_long=len(statement) > WIDTH
    )


def _step(step: Step) -> StepView:
    place = f"{PurePath(step.location.path).name}:{step.location.line}"
    return StepView(
        comment=comment_lines(f"{place}: {step.text}", _INDENT),
        definitions=tuple(_definition(definition) for definition in step.definitions),
        calls=tuple(_call(action) for action in step.actions),
    )


def _call(action: Action) -> CallView:
    match action:
        case OperatorCall():
            function, arguments = _operator(action)
        case RowCopy():
            function, arguments = _row_copy(action)
        case AttentionCall():
            function, arguments = _attention(action)
        case ActivationCall():
            function, arguments = _activation(action)
        case KernelCall():
            function, arguments = _kernel(action)
        case TraceCall():
            function, arguments = _trace(action)
        case CacheTraceCall():
            names = [cpp_string(action.keys), cpp_string(action.values)]
            function, arguments = "trace_cache", ["layer", *names]
    return CallView(function=function, arguments=call_arguments(function, arguments, _INDENT))


def _operator(call: OperatorCall) -> tuple[str, list[str]]:
    scalars = [
        cpp_float(scalar) if isinstance(scalar, float) else CppIdentifier(scalar)
        for scalar in call.scalars
    ]
    tensors = [tensor_expression(tensor) for tensor in call.tensors]
    return f"ops_.{CppIdentifier(call.operator)}", [*tensors, *scalars]


def _row_copy(copy: RowCopy) -> tuple[str, list[str]]:
    rows = ["batch_->token_ids.data", "num_tokens"]
    if copy.rows == "logit_rows":
        rows = ["batch_->logit_rows.data + first_row", "num_logit_rows"]
    return "copy_rows", [tensor_expression(copy.destination), tensor_expression(copy.table), *rows]


def _attention(call: AttentionCall) -> tuple[str, list[str]]:
    tensors = (call.output, call.query, call.key, call.value)
    return f"attention_{call.shape_index}_->run", [
        *(tensor_expression(tensor) for tensor in tensors),
        "cache_[layer]",
        "batch_->places[cache_group_of_layer_[layer]]",
        f"/*window=*/{call.window or 0}",
        f"/*scale=*/{cpp_float(call.scale)}",
    ]


def _activation(call: ActivationCall) -> tuple[str, list[str]]:
    tensors = (call.output, call.input, *call.constants, call.scratch)
    return f"qwen3::{CppIdentifier(call.function)}", [
        "ops_",
        *(tensor_expression(tensor) for tensor in tensors),
    ]


def _kernel(call: KernelCall) -> tuple[str, list[str]]:
    sizes = [str(size) if isinstance(size, int) else f"native::{size}" for size in call.sizes]
    function = f"native::{qualified(call.kernel)}<{', '.join(('Element', *sizes))}>::run"
    return function, [_kernel_argument(argument) for argument in call.arguments]


def _trace(call: TraceCall) -> tuple[str, list[str]]:
    value = tensor_expression(call.value)
    if call.region is None:
        return "trace", ["layer", cpp_string(call.name), value]
    name = cpp_string(f"{call.region}.{call.name}")
    return ("trace_rows", ["first_row", name, value]) if call.is_part else ("trace", [name, value])


def _kernel_argument(argument: KernelArgument) -> str:
    match argument:
        case TensorRef():
            return tensor_expression(argument)
        case bool():
            return str(argument).lower()
        case int():
            return str(argument)
        case tuple():
            return f"{{{', '.join(map(tensor_expression, argument))}}}"
        case Flag():
            return f"/*{CppIdentifier(argument.name)}=*/{str(argument.value).lower()}"
        case FloatVector():
            return _address(argument.weight)
        case StepArgument():
            return _STEP_ARGUMENTS[argument]
        case HeadOptions():
            return _head_options(argument)
        case AttentionOptions():
            softcap = cpp_float(argument.softcap or 0.0)
            return (
                f"{{/*scale=*/{cpp_float(argument.scale)}, /*window=*/{argument.window or 0}, "
                f"/*softcap=*/{softcap}}}"
            )
    return cpp_float(argument)


def _address(weight: TensorRef | None) -> str:
    """Where a weight in float32 lies."""
    return "nullptr" if weight is None else f"native::floats({tensor_expression(weight)})"


def _head_options(options: HeadOptions) -> str:
    if options.norm is None and options.table is None:
        return "{}"
    norm, table = options.norm, options.table
    fields = [
        _address(norm),
        cpp_float(options.epsilon),
    ]
    if table is not None:
        pairs = "kInterleaved" if table.interleaved else "kHalves"
        fields += [
            f"&rope_.{member_name(table.name)}",
            str(table.rotary_dim),
            f"native::{pairs}",
        ]
    return f"{{{', '.join(fields)}}}"


_STEP_ARGUMENTS = {
    StepArgument.CACHE: "cache_[layer]",
    StepArgument.SEQUENCES: "sequences(layer)",
    StepArgument.TOKEN_IDS: "batch_->token_ids.data",
    StepArgument.LOGIT_ROWS: "batch_->logit_rows.data + first_row",
    StepArgument.POSITIONS: "batch_->positions.data",
}
