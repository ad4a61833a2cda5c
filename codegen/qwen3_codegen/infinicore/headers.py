"""Writes C headers that declare one API release, and the rule table of the embedded library.

The headers are compatible with InfiniCore's own (same file names, enumerators, function names and
arguments), so the same engine source compiles against either. They hold the operators recorded in
`modelspecs/infinicore`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import jinja2

from qwen3_codegen.infinicore.api import (
    DEFAULT_RELEASE,
    RELEASES,
    Argument,
    CEnum,
    CStruct,
    DeviceSupport,
    InfiniCoreApi,
    Library,
    Operator,
    load_api,
)
from qwen3_codegen.paths import templates_dir

__all__ = ["render_headers", "write_headers"]


@dataclass(frozen=True, slots=True)
class NumberView:
    """A name and its number, both as printed."""

    name: str
    number: str


@dataclass(frozen=True, slots=True)
class EnumView:
    """A C enumeration."""

    name: str
    values: tuple[NumberView, ...]


@dataclass(frozen=True, slots=True)
class FunctionView:
    """A C function and its parameter declarations."""

    name: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CoreHeader:
    """Feeds `infinicore.h` and the three descriptor headers."""

    release: str
    enums: tuple[EnumView, ...]


@dataclass(frozen=True, slots=True)
class LibraryHeader:
    """Feeds `infinirt.h` and `infiniccl.h`."""

    release: str
    guard: str
    base: str
    types: tuple[str, ...]
    enums: tuple[EnumView, ...]
    structs: tuple[CStruct, ...]
    functions: tuple[FunctionView, ...]


@dataclass(frozen=True, slots=True)
class OperatorIndex:
    """Feeds `infiniop.h`."""

    release: str
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OperatorHeader:
    """Feeds `infiniop/ops/<operator>.h`."""

    release: str
    guard: str
    summary: str
    descriptor_type: str
    enums: tuple[EnumView, ...]
    functions: tuple[FunctionView, ...]


@dataclass(frozen=True, slots=True)
class TensorView:
    """One row of a tensor rule table."""

    name: str
    group: int
    ranks: str
    strides: str


@dataclass(frozen=True, slots=True)
class SupportView:
    """The rules that one or more devices share."""

    tensors_name: str
    dtypes_name: str
    tensors: tuple[TensorView, ...]
    alternatives: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device and where its rules stand."""

    name: str
    c_name: str
    tensors_name: str = ""
    dtypes_name: str = ""


@dataclass(frozen=True, slots=True)
class RefusalView:
    """A function that does nothing on a device but return a status."""

    function: str
    device: str
    status: str


@dataclass(frozen=True, slots=True)
class RulesView:
    """The rules of one operator."""

    name: str
    macro: str
    rules_name: str
    devices_name: str
    has_workspace: str
    supports: tuple[SupportView, ...]
    devices: tuple[DeviceView, ...]


@dataclass(frozen=True, slots=True)
class ApiTable:
    """Feeds `qwen3_api_table.hpp`."""

    release: str
    release_flags: tuple[NumberView, ...]
    devices: tuple[DeviceView, ...]
    refusals: tuple[RefusalView, ...]
    operators: tuple[RulesView, ...]


_View = CoreHeader | LibraryHeader | OperatorIndex | OperatorHeader | ApiTable


def write_headers(release: str, directory: Path) -> tuple[Path, ...]:
    """Writes the headers of a release and returns their paths, sorted.

    A file is touched only when its text changes, and headers of operators that the release does
    not have are removed, so one directory can be switched between releases.

    Raises:
        InfiniCoreError: The release is unknown.
    """
    texts = render_headers(release)
    for name, text in texts.items():
        _write_if_changed(directory / name, text)
    for stale in (directory / "infiniop" / "ops").glob("*.h"):
        if stale.relative_to(directory).as_posix() not in texts:
            stale.unlink()
    return tuple(sorted(directory / name for name in texts))


def render_headers(release: str = DEFAULT_RELEASE) -> Mapping[str, str]:
    """Returns the headers of a release, from relative path to text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir() / "infinicore"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML
    )
    return {
        path: environment.get_template(template)
        .render({field.name: getattr(view, field.name) for field in fields(view)})
        .lstrip("\n")
        for path, template, view in _files(load_api(release))
    }


def _files(api: InfiniCoreApi) -> Iterator[tuple[str, str, _View]]:
    core = CoreHeader(api.release, _core_enums(api))
    yield "infinicore.h", "infinicore.h.jinja", core
    for name in ("handle", "tensor_descriptor", "operator_descriptor"):
        yield f"infiniop/{name}.h", f"{name}.h.jinja", core
    infinirt = _library(api, api.infinirt, "INFINIRT_API_H_", "infinicore.h")
    infiniccl = _library(api, api.infiniccl, "INFINICCL_API_H_", "infinirt.h")
    yield "infinirt.h", "library.h.jinja", infinirt
    yield "infiniccl.h", "library.h.jinja", infiniccl
    names = tuple(api.operators)
    yield "infiniop.h", "infiniop.h.jinja", OperatorIndex(api.release, names)
    for operator in api.operators.values():
        yield f"infiniop/ops/{operator.name}.h", "operator.h.jinja", _operator(api, operator)
    yield "qwen3_api_table.hpp", "api_table.hpp.jinja", _table(api)


def _enum_view(enum: CEnum) -> EnumView:
    return EnumView(enum.name, tuple(NumberView(n, str(v)) for n, v in enum.values.items()))


def _core_enums(api: InfiniCoreApi) -> tuple[EnumView, ...]:
    statuses = {f"INFINI_STATUS_{name}": value for name, value in api.statuses.items()}
    devices = {api.device_constant(name): value for name, value in api.devices.items()}
    devices["INFINI_DEVICE_TYPE_COUNT"] = max(devices.values()) + 1
    dtypes = {dtype.c_name: dtype.number for dtype in api.dtypes.values()}
    return (
        _enum_view(CEnum("infiniStatus_t", statuses)),
        _enum_view(CEnum("infiniDevice_t", devices)),
        _enum_view(CEnum("infiniDtype_t", dtypes)),
    )


def _library(api: InfiniCoreApi, library: Library, guard: str, base: str) -> LibraryHeader:
    return LibraryHeader(
        release=api.release,
        guard=guard,
        base=base,
        types=library.types,
        enums=tuple(_enum_view(enum) for enum in library.enums),
        structs=library.structs,
        functions=tuple(
            FunctionView(function.name, function.args or ("void",))
            for function in library.functions
        ),
    )


def _parameters(arguments: tuple[Argument, ...]) -> tuple[str, ...]:
    return tuple(
        f"{arg.c_type}{'' if arg.c_type.endswith('*') else ' '}{arg.name}" for arg in arguments
    )


def _operator(api: InfiniCoreApi, operator: Operator) -> OperatorHeader:
    descriptor = f"{operator.descriptor_type} desc"
    functions = [FunctionView(operator.create_function, _parameters(operator.create_args))]
    if operator.has_workspace:
        functions.append(FunctionView(operator.workspace_function, (descriptor, "size_t *size")))
    functions.append(FunctionView(operator.run_function, _parameters(operator.run_args)))
    functions.append(FunctionView(operator.destroy_function, (descriptor,)))
    return OperatorHeader(
        release=api.release,
        guard=f"INFINIOP_OPS_{operator.name.upper()}_H_",
        summary=operator.summary,
        descriptor_type=operator.descriptor_type,
        enums=tuple(_enum_view(enum) for enum in operator.enums),
        functions=tuple(functions),
    )


def _table(api: InfiniCoreApi) -> ApiTable:
    flags = (
        NumberView(
            f"QWEN3_RELEASE_{name.replace('-', '_').replace('.', '_')}",
            str(int(name == api.release)),
        )
        for name in RELEASES
    )
    return ApiTable(
        release=api.release,
        release_flags=tuple(flags),
        devices=tuple(DeviceView(name, api.device_constant(name)) for name in api.devices),
        refusals=tuple(
            RefusalView(function.name, api.device_constant(device), f"INFINI_STATUS_{status}")
            for function in api.infinirt.functions
            for device, status in function.refused.items()
        ),
        operators=tuple(_rules(api, operator) for operator in api.operators.values()),
    )


def _rules(api: InfiniCoreApi, operator: Operator) -> RulesView:
    distinct: list[DeviceSupport] = []
    devices = []
    for device, support in operator.devices.items():
        if support not in distinct:
            distinct.append(support)
        names = _support_names(operator, distinct.index(support))
        devices.append(DeviceView(device, api.device_constant(device), *names))
    return RulesView(
        name=operator.name,
        macro=f"QWEN3_OP_{operator.name.upper()}",
        rules_name=f"k{operator.symbol}Rules",
        devices_name=f"k{operator.symbol}Devices",
        has_workspace=str(operator.has_workspace).lower(),
        supports=tuple(
            _support(api, support, *_support_names(operator, index))
            for index, support in enumerate(distinct)
        ),
        devices=tuple(devices),
    )


def _support_names(operator: Operator, index: int) -> tuple[str, str]:
    return f"k{operator.symbol}Tensors{index}", f"k{operator.symbol}Dtypes{index}"


def _support(
    api: InfiniCoreApi, support: DeviceSupport, tensors_name: str, dtypes_name: str
) -> SupportView:
    groups = list(dict.fromkeys(rule.group for rule in support.tensors))
    tensors = tuple(
        TensorView(
            rule.name,
            groups.index(rule.group),
            hex(sum(1 << rank for rank in rule.ranks)),
            "k" + "".join(part.capitalize() for part in rule.strides.value.split("_")),
        )
        for rule in support.tensors
    )
    alternatives = tuple(
        tuple(hex(sum(1 << api.dtypes[name].number for name in item[group])) for group in groups)
        for item in support.dtypes
    )
    return SupportView(tensors_name, dtypes_name, tensors, alternatives)


def _write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
