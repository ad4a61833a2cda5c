"""The API table's records to ``OperatorsView``: one method per operator an engine calls."""

from __future__ import annotations

from qwen3_codegen.emission.cpp import CppIdentifier, call_arguments, comment_lines
from qwen3_codegen.emission.engine_view import engine_title
from qwen3_codegen.emission.views import OperatorsView, OperatorView
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.infinicore.api import Argument, ArgumentKind, InfiniCoreApi, Operator
from qwen3_codegen.plan.records import EnginePlan

_SCALARS = {ArgumentKind.FLOAT: "float", ArgumentKind.INT: "int"}


def operators_view(plan: EnginePlan, api: InfiniCoreApi) -> OperatorsView:
    """Returns the view of ``infinicore_ops.hpp`` for the operators of a plan."""
    return OperatorsView(
        header=(
            *comment_lines(engine_title(plan), 0),
            *comment_lines(
                "Call sites of the InfiniCore operators this engine uses, one method each: outputs "
                "first, then inputs, then attributes. A descriptor is created once per shape and "
                "reused by every layer.",
                0,
            ),
        ),
        cpp_namespace=CppIdentifier(plan.module_name),
        operators=tuple(
            _operator(index, api.operators[name]) for index, name in enumerate(plan.operators)
        ),
    )


def _operator(index: int, operator: Operator) -> OperatorView:
    tensors = [a.name for a in operator.create_args if a.kind is ArgumentKind.TENSOR_DESCRIPTOR]
    create_scalars = [a for a in operator.create_args if _is_scalar(a)]
    run_scalars = [a for a in operator.run_args if _is_scalar(a)]
    parameters = [f"const Tensor& {CppIdentifier(name)}" for name in tensors]
    parameters += [f"{_scalar_type(a)} {CppIdentifier(a.name)}" for a in create_scalars]
    parameters += [f"{_scalar_type(a)} {CppIdentifier(a.name)}" for a in run_scalars]
    method = CppIdentifier(operator.name)
    key_parts = [str(index), *tensors, *map(_key_part, create_scalars)]
    return OperatorView(
        method=method,
        comment=comment_lines(operator.summary, 2),
        parameters=call_arguments(f"void {method}", parameters, 2, tail=3),
        key_parts=call_arguments("const qwen3::DescriptorKey key", key_parts, 4),
        tensors=tuple(tensors),
        descriptor_type=operator.descriptor_type,
        create_function=operator.create_function,
        create_arguments=call_arguments(
            f"qwen3::check({operator.create_function}",
            (_create(a, operator) for a in operator.create_args),
            6,
        ),
        destroy_function=operator.destroy_function,
        workspace_function=operator.workspace_function,
        has_workspace=operator.has_workspace,
        run_function=operator.run_function,
        run_arguments=call_arguments(
            f"qwen3::check({operator.run_function}",
            (_run(a, operator) for a in operator.run_args),
            4,
        ),
    )


def _is_scalar(argument: Argument) -> bool:
    return argument.kind in _SCALARS or argument.kind is ArgumentKind.ENUM


def _scalar_type(argument: Argument) -> str:
    return _SCALARS.get(argument.kind, argument.c_type.strip())


def _key_part(argument: Argument) -> str:
    if argument.kind is ArgumentKind.ENUM:
        return f"static_cast<int>({argument.name})"
    return argument.name


def _create(argument: Argument, operator: Operator) -> str:
    match argument.kind:
        case ArgumentKind.HANDLE:
            return "device_.handle()"
        case ArgumentKind.DESCRIPTOR_OUT:
            return "&descriptor"
        case ArgumentKind.TENSOR_DESCRIPTOR:
            return f"{argument.name}_descriptor.get()"
        case _ if _is_scalar(argument):
            return argument.name
    raise _unknown(argument, operator)


def _run(argument: Argument, operator: Operator) -> str:
    match argument.kind:
        case ArgumentKind.DESCRIPTOR:
            return "cached.descriptor()"
        case ArgumentKind.WORKSPACE:
            return "workspace_.reserve(cached.workspace_size)"
        case ArgumentKind.WORKSPACE_SIZE:
            return "cached.workspace_size"
        case ArgumentKind.STREAM:
            return "device_.stream()"
        case _ if argument.kind.is_data:
            return f"{_tensor_of(argument, operator)}.data"
        case _ if _is_scalar(argument):
            return argument.name
    raise _unknown(argument, operator)


def _tensor_of(argument: Argument, operator: Operator) -> str:
    """The tensor a data pointer belongs to: the one of the same name."""
    tensors = [a.name for a in operator.create_args if a.kind is ArgumentKind.TENSOR_DESCRIPTOR]
    if argument.name not in tensors:
        raise _unknown(argument, operator)
    return argument.name


def _unknown(argument: Argument, operator: Operator) -> LoweringError:
    return LoweringError(
        f"InfiniCore's {operator.name} has an argument engines cannot pass",
        got=f"{argument.c_type} {argument.name} ({argument.kind.value})",
    )
