"""What the lowering of one op may ask: where values lie, what the device has, new constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.infinicore.api import InfiniCoreApi
from qwen3_codegen.ir.graph import Graph, Node, Value, ValueType
from qwen3_codegen.plan.records import Action, AttentionShape, Definition, Origin, TensorRef
from qwen3_codegen.plan.storage import BufferPool, Place, RegionStorage

Lowered: TypeAlias = tuple[tuple[Definition, ...], tuple[Action, ...]]
"""What carries a node out."""

_ABI_DTYPES = {DType.F32: "f32", DType.BF16: "bf16", DType.F16: "f16", DType.I32: "i32"}


@dataclass(slots=True)
class EngineContext:
    """State shared by all regions of one plan while it is being made."""

    graph: Graph
    api: InfiniCoreApi
    device: str
    device_label: str
    transpose_linear_weights: bool
    cache_dtype: DType
    """Of the keys and values of every cache group."""
    row_dtype: DType | None
    """What rows of linears may be rounded to beside matrices of that dtype."""
    pool: BufferPool = field(default_factory=BufferPool)
    constants: dict[str, float] = field(default_factory=dict)
    attention_shapes: list[AttentionShape] = field(default_factory=list)
    windows: list[int | None] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)
    scratch_columns: int = 0

    def use(self, node: Node, operator: str, **dtypes: DType) -> None:
        """Notes that an operator is called.

        Raises:
            LoweringError: The device has no such operator, or not for these types.
        """
        if not self.api.supports(operator, self.device):
            raise LoweringError(
                f"{node.op} needs InfiniCore's {operator}, which {self.device_label} does not have"
                f" in release {self.api.release}",
                where=node.location,
                hint="`qwen3-codegen build --infinicore-api` chooses another release",
            )
        wanted = {name: _ABI_DTYPES[dtype] for name, dtype in dtypes.items()}
        if not self.api.operators[operator].accepts(self.device, wanted):
            raise LoweringError(
                f"InfiniCore's {operator} on {self.device_label} does not take these types",
                where=node.location,
                got=", ".join(f"{name}: {dtype}" for name, dtype in wanted.items()),
                hint="another --dtype may be supported",
            )
        self.operators.add(operator)

    def constant(self, name: str, value: float) -> TensorRef:
        """Returns a device scalar of shape [1], made once per distinct value."""
        for known, known_value in self.constants.items():
            if known_value == value:
                return TensorRef(Origin.CONSTANT, known)
        unique = name if name not in self.constants else f"{name}_{len(self.constants)}"
        self.constants[unique] = value
        return TensorRef(Origin.CONSTANT, unique)

    def attention_shape(self, shape: AttentionShape) -> int:
        """Returns the index of a head shape, adding it when new."""
        if shape not in self.attention_shapes:
            self.attention_shapes.append(shape)
        return self.attention_shapes.index(shape)


@dataclass(slots=True)
class RegionContext:
    """One region on its way into steps."""

    engine: EngineContext
    storage: RegionStorage
    weights: Mapping[str, TensorRef]
    values: dict[str, Value]
    """Parameters, weights and everything defined so far."""

    def ref(self, name: str) -> TensorRef:
        """Returns how a value or weight is referred to."""
        return self.weights.get(name) or TensorRef(Origin.VALUE, name)

    def allocate(self, value: Value) -> Definition:
        """Gives a new value memory of its own."""
        place = self.storage.allocate(value)
        self.values[value.name] = value
        buffer = TensorRef(Origin.BUFFER, self.engine.pool.name(place.buffer))
        return Definition(value.name, buffer.viewed("shaped", value.type.shape), value.type)

    def overwrite(self, value: Value, name: str) -> Definition:
        """Puts a new value onto an input that nobody reads any more."""
        return self.view(value, self.ref(name), self.storage.place(name))

    def view(self, value: Value, reference: TensorRef, place: Place) -> Definition:
        """Defines a value as another look at memory that is already taken."""
        self.storage.cover(value, place)
        self.values[value.name] = value
        return Definition(value.name, reference, value.type)

    def unused_name(self, wanted: str) -> str:
        """Returns a name for a value that is no node's result, numbered if it is taken."""
        name, number = wanted, 1
        while name in self.values:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def type_of(self, name: str) -> ValueType:
        """Returns the type of a value or weight."""
        return self.values[name].type


def number(node: Node, name: str) -> float:
    """Returns an attribute that is a number; TypeError is our fault, the op table checks it."""
    value = node.attributes[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{node.op}: attribute {name} is {value!r}")
    return float(value)


def window_of(node: Node) -> int | None:
    """Returns the window of an attention; TypeError is our fault, the op table checks it."""
    window = node.attributes["window"]
    if window is not None and not isinstance(window, int):
        raise TypeError(f"{node.op}: window is {window!r}")
    return window


def spread_vector(vector: TensorRef, type_: ValueType) -> TensorRef:
    """Returns a vector [n] as rows of a value [rows, n], without copying."""
    return vector.viewed("repeated", 0, type_.shape[0])


def spread_scalar(scalar: TensorRef, type_: ValueType) -> TensorRef:
    """Returns a scalar [1] as a value of any shape, without copying."""
    reference = scalar.viewed("at", 0, 0)
    for extent in reversed(type_.shape):
        reference = reference.viewed("repeated", 0, extent)
    return reference


def spread_last(reference: TensorRef, type_: ValueType) -> TensorRef:
    """Returns a value whose last size is 1 as one of the last size of ``type_``."""
    last = len(type_.shape) - 1
    return reference.viewed("at", last, 0).viewed("repeated", last, type_.shape[last])


def target_of(node: Node) -> TensorRef:
    """Returns a node's result as the operand that is written."""
    return TensorRef(Origin.VALUE, node.output.name)


def onto(
    name: str, node: Node, context: RegionContext, *, beside: Iterable[str] = ()
) -> Definition:
    """Puts the result where the input ``name`` lies if that is free to go, else elsewhere.

    Inputs ``beside`` it may lie there too, but only element for element.
    """
    here = context.storage.place(name), context.type_of(name)
    shifted = [
        other
        for other in beside
        if context.storage.has(other)
        and (context.storage.place(other), context.type_of(other)) != here
    ]
    if context.storage.may_overwrite(name, beside=shifted):
        return context.overwrite(node.output, name)
    return context.allocate(node.output)
