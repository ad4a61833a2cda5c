"""Reads `modelspecs/infinicore/` into the records of `api`, checking every key and name."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from qwen3_codegen.errors import InfiniCoreError, nearest
from qwen3_codegen.infinicore.api import (
    RELEASES,
    Argument,
    ArgumentKind,
    CEnum,
    CFunction,
    CStruct,
    DeviceSupport,
    DType,
    InfiniCoreApi,
    Library,
    Operator,
    StrideRule,
    TensorRule,
)
from qwen3_codegen.paths import modelspecs_dir

__all__ = ["read_api"]

_KIND_TYPES = {
    ArgumentKind.TENSOR_DESCRIPTOR: "infiniopTensorDescriptor_t",
    ArgumentKind.OPTIONAL_TENSOR_DESCRIPTOR: "infiniopTensorDescriptor_t",
    ArgumentKind.TENSOR_IN: "const void *",
    ArgumentKind.OPTIONAL_TENSOR_IN: "const void *",
    ArgumentKind.TENSOR_OUT: "void *",
    ArgumentKind.TENSOR_INOUT: "void *",
    ArgumentKind.FLOAT: "float",
    ArgumentKind.DOUBLE: "double",
    ArgumentKind.INT: "int",
    ArgumentKind.SIZE: "size_t",
    ArgumentKind.BOOL: "bool",
}


class _Fields:
    """A YAML mapping whose keys are taken one by one; what is left over is an error."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise InfiniCoreError("a mapping belongs here", where=where, got=repr(value))
        self._left: dict[str, Any] = dict(value)
        self.where = where

    def take(self, key: str, default: object = ...) -> Any:
        if key in self._left:
            return self._left.pop(key)
        if default is ...:
            raise InfiniCoreError(f"'{key}' is missing", where=self.where)
        return default

    def close(self) -> None:
        if self._left:
            raise InfiniCoreError(f"unknown keys: {', '.join(self._left)}", where=self.where)


@functools.cache
def read_api(release: str) -> InfiniCoreApi:
    """Returns the records of one release; they are read once per process."""
    root = modelspecs_dir() / "infinicore"
    fields = _Fields(_load(root / "abi.yaml"), str(root / "abi.yaml"))
    own = _Fields(fields.take("releases")[release], f"{fields.where}: releases.{release}")
    dtypes = {
        name: DType(name, number, size) for name, (number, size) in fields.take("dtypes").items()
    }
    sets = {name: tuple(members) for name, members in fields.take("dtype_sets").items()}
    devices = own.take("devices")
    reader = _OperatorReader(release, frozenset(devices), dtypes, sets)
    operators = (reader.read(path) for path in sorted((root / "operators").glob("*.yaml")))
    api = InfiniCoreApi(
        release=release,
        extern_macro=own.take("extern_macro"),
        devices=MappingProxyType(devices),
        statuses=MappingProxyType(fields.take("statuses")),
        dtypes=MappingProxyType(dtypes),
        infinirt=_library(fields.take("infinirt"), release, f"{fields.where}: infinirt"),
        infiniccl=_library(fields.take("infiniccl"), release, f"{fields.where}: infiniccl"),
        operators=MappingProxyType({op.name: op for op in operators if op is not None}),
    )
    own.close()
    fields.close()
    return api


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InfiniCoreError(f"cannot read InfiniCore's API: {error}", where=path) from error


def _in_release(entries: Iterable[Mapping[str, Any]], release: str) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if release in entry.get("releases", RELEASES)]


def _enums(entries: Iterable[Mapping[str, Any]], release: str) -> tuple[CEnum, ...]:
    return tuple(
        CEnum(entry["name"], MappingProxyType(dict(entry["values"])))
        for entry in _in_release(entries, release)
    )


def _library(value: object, release: str, where: str) -> Library:
    fields = _Fields(value, where)
    library = Library(
        types=tuple(entry["text"] for entry in _in_release(fields.take("types"), release)),
        enums=_enums(fields.take("enums"), release),
        structs=tuple(
            CStruct(entry["name"], tuple(entry["fields"]))
            for entry in _in_release(fields.take("structs"), release)
        ),
        functions=tuple(
            CFunction(entry["name"], tuple(entry["args"]), _refused(entry, release))
            for entry in _in_release(fields.take("functions"), release)
        ),
    )
    fields.close()
    return library


def _refused(function: Mapping[str, Any], release: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            device: entry["status"]
            for entry in _in_release(function.get("refused", ()), release)
            for device in entry["devices"]
        }
    )


class _OperatorReader:
    """Reads operator files for one release."""

    def __init__(
        self,
        release: str,
        devices: frozenset[str],
        dtypes: Mapping[str, DType],
        dtype_sets: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._release = release
        self._devices = devices
        self._dtypes = dtypes
        self._dtype_sets = dtype_sets

    def read(self, path: Path) -> Operator | None:
        """Returns the operator, or None where the release does not have it."""
        fields = _Fields(_load(path), str(path))
        releases = fields.take("releases")
        if self._release not in releases:
            return None
        own = _Fields(releases[self._release], f"{path}: releases.{self._release}")
        symbol = fields.take("symbol")
        has_workspace = fields.take("workspace")
        tensors = fields.take("tensors")
        create, run = fields.take("create"), fields.take("run")
        operator = Operator(
            name=path.stem,
            symbol=symbol,
            summary=fields.take("summary"),
            has_workspace=has_workspace,
            create_args=_create_args(symbol, own.take("create", create), own.where),
            run_args=_run_args(symbol, own.take("run", run), has_workspace, own.where),
            enums=_enums(fields.take("enums", ()), self._release),
            devices=self._support(tensors, own.take("ranks", {}), own.take("devices"), own.where),
        )
        own.close()
        fields.close()
        return operator

    def _support(
        self, tensors: Mapping[str, Any], ranks: Mapping[str, Any], entries: Any, where: str
    ) -> Mapping[str, DeviceSupport]:
        support: dict[str, DeviceSupport] = {}
        for entry in entries:
            fields = _Fields(entry, f"{where}.devices")
            own_ranks = {**ranks, **fields.take("ranks", {})}
            own_strides = fields.take("strides", {})
            rules = tuple(
                TensorRule(
                    name=name,
                    group=rule["dtype"],
                    ranks=tuple(own_ranks.get(name, rule["ranks"])),
                    strides=StrideRule(own_strides.get(name, rule["strides"])),
                )
                for name, rule in tensors.items()
            )
            dtypes = tuple(self._alternative(item, where) for item in fields.take("dtypes"))
            for device in fields.take("names"):
                if device not in self._devices or device in support:
                    raise InfiniCoreError(f"device '{device}' does not belong here", where=where)
                support[device] = DeviceSupport(rules, dtypes)
            fields.close()
        return MappingProxyType(support)

    def _alternative(self, item: Mapping[str, Any], where: str) -> Mapping[str, tuple[str, ...]]:
        groups: dict[str, tuple[str, ...]] = {}
        for group, names in item.items():
            types = [one for name in names for one in self._dtype_sets.get(name, (name,))]
            for name in types:
                if name not in self._dtypes:
                    hint = nearest(name, self._dtypes)
                    raise InfiniCoreError(f"unknown dtype '{name}'", where=where, hint=hint)
            groups[group] = tuple(types)
        return MappingProxyType(groups)


def _create_args(symbol: str, texts: Iterable[str], where: str) -> tuple[Argument, ...]:
    kind = ArgumentKind
    return (
        Argument("handle", kind.HANDLE, "infiniopHandle_t"),
        Argument("desc_ptr", kind.DESCRIPTOR_OUT, f"infiniop{symbol}Descriptor_t *"),
        *(_argument(text, where) for text in texts),
    )


def _run_args(
    symbol: str, texts: Iterable[str], has_workspace: bool, where: str
) -> tuple[Argument, ...]:
    kind = ArgumentKind
    workspace = (
        Argument("workspace", kind.WORKSPACE, "void *"),
        Argument("workspace_size", kind.WORKSPACE_SIZE, "size_t"),
    )
    return (
        Argument("desc", kind.DESCRIPTOR, f"infiniop{symbol}Descriptor_t"),
        *(workspace if has_workspace else ()),
        *(_argument(text, where) for text in texts),
        Argument("stream", kind.STREAM, "void *"),
    )


def _argument(text: str, where: str) -> Argument:
    kind_name, *rest = text.split()
    try:
        kind = ArgumentKind(kind_name)
        if kind is ArgumentKind.ENUM:
            c_type, name = rest
            return Argument(name, kind, c_type)
        (name,) = rest
        return Argument(name, kind, _KIND_TYPES[kind])
    except (KeyError, ValueError):
        raise InfiniCoreError(
            "not an argument", where=where, got=text, expected="'kind name' or 'enum type name'"
        ) from None
