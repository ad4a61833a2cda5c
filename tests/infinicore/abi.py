"""InfiniCore's C ABI through ctypes, driven by the recorded API: one call per operator."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from qwen3_codegen.infinicore.api import ArgumentKind, InfiniCoreApi, Operator, load_api

SUCCESS, INTERNAL_ERROR, NOT_IMPLEMENTED, BAD_PARAM, NULL_POINTER = range(5)
DEVICE_TYPE_NOT_SUPPORTED, DEVICE_NOT_FOUND = 5, 6
BAD_TENSOR_DTYPE, BAD_TENSOR_SHAPE, BAD_TENSOR_STRIDES, INSUFFICIENT_WORKSPACE = 10, 11, 12, 13

H2H, H2D, D2H, D2D = range(4)

DTYPES = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "bool": np.dtype(np.bool_),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "c128": np.dtype(np.complex128),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

_SCALARS = {
    ArgumentKind.FLOAT: ctypes.c_float,
    ArgumentKind.DOUBLE: ctypes.c_double,
    ArgumentKind.INT: ctypes.c_int,
    ArgumentKind.SIZE: ctypes.c_size_t,
    ArgumentKind.BOOL: ctypes.c_bool,
    ArgumentKind.ENUM: ctypes.c_int,
}


class AbiError(Exception):
    """A C function returned a status other than success."""

    def __init__(self, function: str, status: int) -> None:
        super().__init__(f"{function} returned {status}")
        self.function = function
        self.status = status


@dataclass(frozen=True)
class Operand:
    """A tensor as the ABI sees it: an address and a layout; strides count elements."""

    pointer: int | None
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str


def operand_of(array: np.ndarray) -> Operand:
    """Returns a NumPy array or view as an operand."""
    strides = None  # NumPy makes up strides for arrays without elements
    if array.size > 0:
        strides = tuple(step // array.itemsize for step in array.strides)
    return Operand(array.ctypes.data, array.shape, strides, NAMES[array.dtype])


class Library:
    """infinirt, infiniop and infiniccl of one release, each a shared object or all in one."""

    def __init__(self, api: InfiniCoreApi, infinirt: Path, infiniop: Path, infiniccl: Path) -> None:
        self.api = api
        self.rt = ctypes.CDLL(str(infinirt))
        self.op = ctypes.CDLL(str(infiniop))
        self.ccl = ctypes.CDLL(str(infiniccl))

    @classmethod
    def single(cls, release: str, path: Path) -> Library:
        return cls(load_api(release), path, path, path)

    @classmethod
    def installed(cls, release: str, lib_dir: Path) -> Library:
        names = ("libinfinirt.so", "libinfiniop.so", "libinfiniccl.so")
        return cls(load_api(release), *(lib_dir / name for name in names))

    # --- infinirt -----------------------------------------------------------------------------

    def set_device(self, device: str, index: int = 0) -> int:
        return self.rt.infinirtSetDevice(self.api.devices[device], index)

    def emulate(self, device: str, count: int = 1) -> None:
        check(
            "qwen3_infinicore_emulate",
            self.rt.qwen3_infinicore_emulate(self.api.devices[device], count),
        )

    def malloc(self, size: int) -> int:
        pointer = ctypes.c_void_p()
        check(
            "infinirtMalloc", self.rt.infinirtMalloc(ctypes.byref(pointer), ctypes.c_size_t(size))
        )
        return pointer.value or 0

    def free(self, pointer: int) -> None:
        check("infinirtFree", self.rt.infinirtFree(ctypes.c_void_p(pointer)))

    def memcpy(self, dst: int, src: int, size: int, kind: int) -> int:
        return self.rt.infinirtMemcpy(
            ctypes.c_void_p(dst), ctypes.c_void_p(src), ctypes.c_size_t(size), kind
        )

    # --- infiniop -----------------------------------------------------------------------------

    @contextmanager
    def handle(self) -> Iterator[ctypes.c_void_p]:
        handle = ctypes.c_void_p()
        check("infiniopCreateHandle", self.op.infiniopCreateHandle(ctypes.byref(handle)))
        try:
            yield handle
        finally:
            self.op.infiniopDestroyHandle(handle)

    def descriptor(self, operand: Operand | None) -> ctypes.c_void_p:
        descriptor = ctypes.c_void_p()
        if operand is not None:
            rank = len(operand.shape)
            strides = None
            if operand.strides is not None:
                strides = (ctypes.c_ssize_t * rank)(*operand.strides)
            status = self.op.infiniopCreateTensorDescriptor(
                ctypes.byref(descriptor),
                ctypes.c_size_t(rank),
                (ctypes.c_size_t * rank)(*operand.shape),
                strides,
                self.api.dtypes[operand.dtype].number,
            )
            check("infiniopCreateTensorDescriptor", status)
        return descriptor

    @contextmanager
    def created(
        self, operator: Operator, arguments: Mapping[str, object]
    ) -> Iterator[ctypes.c_void_p]:
        """Yields an operator descriptor. Raises AbiError when it cannot be made."""
        tensors: list[ctypes.c_void_p] = []
        values: list[object] = []
        descriptor = ctypes.c_void_p()
        with self.handle() as handle:
            for argument in operator.create_args:
                if argument.kind is ArgumentKind.HANDLE:
                    values.append(handle)
                elif argument.kind is ArgumentKind.DESCRIPTOR_OUT:
                    values.append(ctypes.byref(descriptor))
                elif argument.kind in _SCALARS:
                    values.append(_SCALARS[argument.kind](arguments[argument.name]))
                else:
                    tensors.append(self.descriptor(_operand(arguments[argument.name])))
                    values.append(tensors[-1])
            status = getattr(self.op, operator.create_function)(*values)
            for tensor in tensors:  # operator descriptors keep nothing of them
                self.op.infiniopDestroyTensorDescriptor(tensor)
            check(operator.create_function, status)
            try:
                yield descriptor
            finally:
                destroyed = getattr(self.op, operator.destroy_function)(descriptor)
                check(operator.destroy_function, destroyed)

    def workspace_size(self, operator: Operator, descriptor: ctypes.c_void_p) -> int:
        size = ctypes.c_size_t(12345)
        function = operator.workspace_function
        check(function, getattr(self.op, function)(descriptor, ctypes.byref(size)))
        return size.value

    def run(
        self,
        operator: Operator,
        descriptor: ctypes.c_void_p,
        arguments: Mapping[str, object],
        workspace: tuple[int | None, int] = (None, 0),
        stream: int | None = None,
    ) -> int:
        """Calls the run function once and returns its status."""
        special = {
            ArgumentKind.DESCRIPTOR: descriptor,
            ArgumentKind.WORKSPACE: ctypes.c_void_p(workspace[0]),
            ArgumentKind.WORKSPACE_SIZE: ctypes.c_size_t(workspace[1]),
            ArgumentKind.STREAM: ctypes.c_void_p(stream),
        }
        values: list[object] = []
        for argument in operator.run_args:
            if argument.kind in special:
                values.append(special[argument.kind])
            elif argument.kind.is_data:
                operand = _operand(arguments[argument.name])
                values.append(ctypes.c_void_p(None if operand is None else operand.pointer))
            else:
                values.append(_SCALARS[argument.kind](arguments[argument.name]))
        return getattr(self.op, operator.run_function)(*values)

    def call(self, name: str, **arguments: object) -> None:
        """Creates, runs and destroys an operator on the calling thread's device.

        Tensors are NumPy arrays or operands. Raises AbiError with the first failing status.
        """
        operator = self.api.operators[name]
        with self.created(operator, arguments) as descriptor:
            size = self.workspace_size(operator, descriptor) if operator.has_workspace else 0
            workspace = self.malloc(size) if size else None
            try:
                status = self.run(operator, descriptor, arguments, (workspace, size))
            finally:
                if workspace:
                    self.free(workspace)
            check(operator.run_function, status)

    def status(self, name: str, **arguments: object) -> int:
        """As `call`, but returns the status."""
        try:
            self.call(name, **arguments)
        except AbiError as error:
            return error.status
        return SUCCESS


class DeviceArray:
    """An array in memory of the calling thread's device, made through infinirt."""

    def __init__(self, library: Library, array: np.ndarray) -> None:
        self._library = library
        self._array = np.array(array, order="C")  # ascontiguousarray would give rank 0 a rank
        self.pointer = library.malloc(self._array.nbytes)
        size = self._array.nbytes
        check("infinirtMemcpy", library.memcpy(self.pointer, self._array.ctypes.data, size, H2D))

    @property
    def operand(self) -> Operand:
        return Operand(self.pointer, self._array.shape, None, NAMES[self._array.dtype])

    def numpy(self) -> np.ndarray:
        result = np.empty_like(self._array)
        status = self._library.memcpy(result.ctypes.data, self.pointer, result.nbytes, D2H)
        check("infinirtMemcpy", status)
        return result

    def free(self) -> None:
        self._library.free(self.pointer)


def check(function: str, status: int) -> None:
    if status != SUCCESS:
        raise AbiError(function, status)


def _operand(value: object) -> Operand | None:
    if value is None or isinstance(value, Operand):
        return value
    if isinstance(value, DeviceArray):
        return value.operand
    assert isinstance(value, np.ndarray)
    return operand_of(value)
