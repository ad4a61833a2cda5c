"""InfiniCore's C API as records: operators x releases x devices with their tensor rules.

Read once from `modelspecs/infinicore/`; the planner asks which operators and types a device has,
emission prints call sites from the arguments, and the embedded library's headers and tables are
generated from the same records.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from qwen3_codegen.errors import InfiniCoreError, nearest

__all__ = [
    "DEFAULT_RELEASE",
    "RELEASES",
    "Argument",
    "ArgumentKind",
    "CEnum",
    "CFunction",
    "CStruct",
    "DType",
    "DeviceSupport",
    "InfiniCoreApi",
    "Library",
    "Operator",
    "StrideRule",
    "TensorRule",
    "load_api",
]

RELEASES = ("2025-08", "0.1.0", "2026-08")
"""API releases in order of age: the tree engines first targeted, the registry's, the newest."""

DEFAULT_RELEASE = "0.1.0"


class ArgumentKind(enum.Enum):
    """What a caller passes for one argument of a C function."""

    HANDLE = "handle"
    DESCRIPTOR_OUT = "descriptor_out"
    DESCRIPTOR = "descriptor"
    TENSOR_DESCRIPTOR = "tensor"
    OPTIONAL_TENSOR_DESCRIPTOR = "optional"
    WORKSPACE = "workspace"
    WORKSPACE_SIZE = "workspace_size"
    TENSOR_IN = "in"
    TENSOR_OUT = "out"
    TENSOR_INOUT = "inout"
    OPTIONAL_TENSOR_IN = "optional_in"
    FLOAT = "float"
    DOUBLE = "double"
    INT = "int"
    SIZE = "size"
    BOOL = "bool"
    ENUM = "enum"
    STREAM = "stream"

    @property
    def is_data(self) -> bool:
        """Whether the argument is a pointer to a tensor's elements."""
        return self in _DATA_KINDS


_DATA_KINDS = frozenset(
    {
        ArgumentKind.TENSOR_IN,
        ArgumentKind.TENSOR_OUT,
        ArgumentKind.TENSOR_INOUT,
        ArgumentKind.OPTIONAL_TENSOR_IN,
    }
)


class StrideRule(enum.Enum):
    """Which strides (in elements) a tensor may have."""

    ANY = "any"
    LAST_ONE = "last_one"
    """The last stride is 1."""
    CONTIGUOUS = "contiguous"
    """Row-major without gaps."""
    MATRIX = "matrix"
    """One of the last two strides is 1."""
    UNIQUE = "unique"
    """Any, but no stride 0 on a dimension above 1."""
    HEAD_ROWS = "head_rows"
    """Last stride 1 and the heads (dimension 1) adjacent; only dimension 0 may have gaps."""
    DENSE = "dense"
    """The library ignores the strides and reads row-major order; a caller must pass that."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a C function, in call order."""

    name: str
    kind: ArgumentKind
    c_type: str
    """As printed before the name in C++, e.g. ``const void *``."""


@dataclass(frozen=True, slots=True)
class DType:
    """An element type of the ABI."""

    name: str
    """Lower case: ``bf16``; the C name is ``INFINI_DTYPE_BF16``."""
    number: int
    size: int
    """Bytes per element."""

    @property
    def c_name(self) -> str:
        """Enumerator of the type in C."""
        return f"INFINI_DTYPE_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class TensorRule:
    """What an operator wants of one tensor on one device."""

    name: str
    group: str
    """Tensors of one group must have one and the same type."""
    ranks: tuple[int, ...]
    strides: StrideRule


@dataclass(frozen=True, slots=True)
class DeviceSupport:
    """How one device carries an operator."""

    tensors: tuple[TensorRule, ...]
    dtypes: tuple[Mapping[str, tuple[str, ...]], ...]
    """Alternatives; each maps a dtype group to the types it may take."""


@dataclass(frozen=True, slots=True)
class CEnum:
    """A C enumeration."""

    name: str
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CStruct:
    """A C structure; fields are C declarations without the semicolon."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CFunction:
    """A C function returning ``infiniStatus_t``; args are C parameter declarations."""

    name: str
    args: tuple[str, ...]
    refused: Mapping[str, str]
    """Devices on which the function does nothing but return this status (``NOT_IMPLEMENTED``)."""


@dataclass(frozen=True, slots=True)
class Library:
    """The declarations of infinirt or infiniccl, in the order they are declared."""

    types: tuple[str, ...]
    enums: tuple[CEnum, ...]
    structs: tuple[CStruct, ...]
    functions: tuple[CFunction, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of one release."""

    name: str
    """As in the headers' file names: ``rms_norm``."""
    symbol: str
    """As inside the C names: ``RMSNorm``."""
    summary: str
    has_workspace: bool
    create_args: tuple[Argument, ...]
    run_args: tuple[Argument, ...]
    enums: tuple[CEnum, ...]
    devices: Mapping[str, DeviceSupport]

    @property
    def create_function(self) -> str:
        """C name of the function that makes a descriptor."""
        return f"infiniopCreate{self.symbol}Descriptor"

    @property
    def workspace_function(self) -> str:
        """C name; only to be called where `has_workspace`."""
        return f"infiniopGet{self.symbol}WorkspaceSize"

    @property
    def run_function(self) -> str:
        """C name of the function that computes."""
        return f"infiniop{self.symbol}"

    @property
    def destroy_function(self) -> str:
        """C name of the function that ends a descriptor."""
        return f"infiniopDestroy{self.symbol}Descriptor"

    @property
    def descriptor_type(self) -> str:
        """C type of the descriptor."""
        return f"infiniop{self.symbol}Descriptor_t"

    def ranks(self, device: str = "cpu") -> Mapping[str, tuple[int, ...]]:
        """Returns the ranks each tensor may have on a device."""
        return {rule.name: rule.ranks for rule in self._support(device).tensors}

    def strides(self, device: str = "cpu") -> Mapping[str, StrideRule]:
        """Returns the stride rule of each tensor on a device."""
        return {rule.name: rule.strides for rule in self._support(device).tensors}

    def dtypes(self, device: str = "cpu") -> tuple[Mapping[str, tuple[str, ...]], ...]:
        """Returns the alternatives a device accepts, each from dtype group to types."""
        return self._support(device).dtypes

    def accepts(self, device: str, dtypes: Mapping[str, str]) -> bool:
        """Says whether a device takes these types.

        Args:
            device: Device name, e.g. ``cambricon``.
            dtypes: From tensor name to type name (``bf16``); tensors left out are not checked.
        """
        if device not in self.devices:
            return False
        support = self.devices[device]
        groups: dict[str, set[str]] = {}
        for rule in support.tensors:
            if rule.name in dtypes:
                groups.setdefault(rule.group, set()).add(dtypes[rule.name])
        if any(len(types) > 1 for types in groups.values()):
            return False
        return any(
            all(next(iter(types)) in alternative[group] for group, types in groups.items())
            for alternative in support.dtypes
        )

    def _support(self, device: str) -> DeviceSupport:
        try:
            return self.devices[device]
        except KeyError:
            raise InfiniCoreError(
                f"InfiniCore's {self.name} does not run on '{device}'",
                expected=", ".join(self.devices),
            ) from None


@dataclass(frozen=True, slots=True)
class InfiniCoreApi:
    """The whole C API of one release."""

    release: str
    extern_macro: str
    devices: Mapping[str, int]
    statuses: Mapping[str, int]
    dtypes: Mapping[str, DType]
    infinirt: Library
    infiniccl: Library
    operators: Mapping[str, Operator]

    def supports(self, operator: str, device: str) -> bool:
        """Says whether a device carries an operator in this release."""
        return operator in self.operators and device in self.operators[operator].devices

    def device_constant(self, device: str) -> str:
        """Returns the C enumerator of a device.

        Raises:
            InfiniCoreError: This release does not know the device.
        """
        if device not in self.devices:
            raise InfiniCoreError(
                f"InfiniCore {self.release} has no device '{device}'",
                expected=", ".join(self.devices),
                hint=nearest(device, self.devices),
            )
        return f"INFINI_DEVICE_{device.upper()}"


def load_api(release: str = DEFAULT_RELEASE) -> InfiniCoreApi:
    """Returns the API of a release.

    Raises:
        InfiniCoreError: The release is unknown, or the shipped files are damaged.
    """
    from qwen3_codegen.infinicore.reading import read_api

    if release not in RELEASES:
        raise InfiniCoreError(
            f"unknown InfiniCore API release '{release}'",
            expected=", ".join(RELEASES),
            hint=nearest(release, RELEASES),
        )
    return read_api(release)
