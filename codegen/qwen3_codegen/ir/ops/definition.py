"""What a row of the op table says.

A row is the whole truth about an op: roles of its inputs, attributes, shape rule, dtype rule, a
NumPy reference that defines what it computes, and which lowerings carry it out. The verifier, the
frontend, the interpreter, the plan and the op page all read the same row.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import AttributeValue, Dim, ValueType
from qwen3_codegen.ir.ops.step import Step

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[Dim, ...]
Shapes: TypeAlias = Mapping[str, Shape]
Arrays: TypeAlias = Mapping[str, Array]
Attributes: TypeAlias = Mapping[str, AttributeValue]


class OpRuleError(Exception):
    """Inputs or attributes break an op's rule; the caller knows the node and says where."""

    def __init__(
        self, message: str, *, got: object | None = None, expected: object | None = None
    ) -> None:
        self.message = message
        self.got = got
        self.expected = expected
        super().__init__(message)


class Element(enum.Enum):
    """The dtype rule of a role or result."""

    ACTIVATION = "activation"
    """What values are kept in; equal for all such inputs and results of a node."""
    FLOAT32 = "float32"
    """Float32 beside half activations, so that constants can be folded into it exactly."""
    INT32 = "int32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An input of an op."""

    name: str
    shape: str
    """Shape as the op page prints it; the shape rule is what holds."""
    element: Element = Element.ACTIVATION
    required: bool = True
    variadic: bool = False
    """Stands for ``<name>0``, ``<name>1``, ... in a node's inputs, at least one of them."""


class AttributeKind(enum.Enum):
    """Type of an attribute's value."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    INTS = "list of ints"
    OPTIONAL_INT = "int or none"
    OPTIONAL_FLOAT = "float or none"
    ROPE_TABLE = "rope table"
    ACTIVATION = "activation"

    def accepts(self, value: AttributeValue) -> bool:
        """Returns whether a value is of this kind; numbers must be finite."""
        if value is None:
            return self in (AttributeKind.OPTIONAL_INT, AttributeKind.OPTIONAL_FLOAT)
        match self:
            case AttributeKind.BOOL:
                return isinstance(value, bool)
            case AttributeKind.INTS:
                return isinstance(value, tuple) and all(type(item) is int for item in value)
            case AttributeKind.ROPE_TABLE | AttributeKind.ACTIVATION:
                return isinstance(value, str)
            case AttributeKind.INT | AttributeKind.OPTIONAL_INT:
                return type(value) is int
            case _:
                return type(value) is float and math.isfinite(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A constant of a node; every node gives all attributes of its op."""

    name: str
    kind: AttributeKind
    doc: str
    positive: bool = False
    """Numbers, where there is one, must be above zero."""

    def check(self, value: AttributeValue) -> None:
        """Raises OpRuleError when a value does not fit."""
        if not self.kind.accepts(value):
            raise OpRuleError(
                f"attribute '{self.name}' has the wrong type", got=value, expected=self.kind.value
            )
        numbers = value if isinstance(value, tuple) else (value,)
        if self.positive and any(
            isinstance(number, int | float) and number <= 0 for number in numbers
        ):
            raise OpRuleError(
                f"attribute '{self.name}' is out of range", got=value, expected="above zero"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """How one lowering carries an op out, or why it does not.

    ``operators`` are the device library's operators the decomposition calls; an empty tuple
    means that copies or strided views are enough.
    """

    operators: tuple[str, ...] = ()
    refusal: str | None = None


def calls(*operators: str) -> Lowering:
    """A lowering made of these operators; none means copies and views only."""
    return Lowering(operators=operators)


def refused(reason: str) -> Lowering:
    """A lowering that does not exist, and why."""
    return Lowering(refusal=reason)


ShapeRule: TypeAlias = Callable[[Shapes, Attributes], tuple[Shape, ...]]
Reference: TypeAlias = Callable[[Arrays, Attributes, Step], Array | tuple[Array, ...]]
KernelSizes: TypeAlias = Callable[[Shapes, Attributes], tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKernel:
    """The native kernel of an op of the user's own: a class template in a C++ header."""

    class_name: str
    """In the namespace ``qwen3::native::own``."""
    header: str
    """Name of the file that defines it."""
    texts: Mapping[str, str]
    """The header and what it includes beside itself, by file name."""
    sizes: KernelSizes
    """Template arguments behind the element type, from the shapes of the inputs by role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """Where an op made of several can be looked into: what its last part is given."""

    inner: Callable[[Arrays, Attributes, Step], dict[str, Array]]
    """Of the op's inputs: those values by name, which traced engines show, too."""
    names: tuple[str, ...]
    """Of the inner values, in order."""
    last: str
    """Name of the last part."""
    result: Reference
    """Of the inner values: the op's results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpDef:
    """A row of the op table."""

    name: str
    doc: str
    """Formula first; then the source of it where there is one."""
    roles: tuple[Role, ...]
    attributes: tuple[Attribute, ...] = ()
    result: str
    """Shape of the result or results as the op page prints it."""
    shape_rule: ShapeRule
    """Shapes by role and attributes to result shapes; raises OpRuleError."""
    reference: Reference
    """Float arrays in the interpreter's dtype, whatever the graph's; never writes to an input."""
    lowerings: Mapping[str, Lowering]
    stateful: bool = False
    """Keeps something per sequence between steps (a cache)."""
    kernel: OwnKernel | None = None
    """Of an op of the user's own that the native lowering carries out."""
    fusion: Fusion | None = None
    """Of an op that a pass makes of several."""

    def infer(
        self, inputs: Mapping[str, ValueType], attributes: Attributes
    ) -> tuple[ValueType, ...]:
        """Returns the types of the results.

        Raises:
            OpRuleError: A role or attribute is missing, unknown or ill-typed, dtypes do not
                agree, or shapes do not fit.
        """
        self._check_roles(inputs)
        self._check_attributes(attributes)
        dtype = self._activation_dtype(inputs)
        shapes = self.shape_rule({role: type_.shape for role, type_ in inputs.items()}, attributes)
        return tuple(ValueType(shape, dtype) for shape in shapes)

    def role_of(self, input_name: str) -> Role | None:
        """Returns the role an input name stands for, None when the op has no such role."""
        for role in self.roles:
            suffix = input_name.removeprefix(role.name)
            if input_name == role.name and not role.variadic:
                return role
            if role.variadic and input_name != suffix and suffix.isdecimal():
                return role
        return None

    def _check_roles(self, inputs: Mapping[str, ValueType]) -> None:
        names = ", ".join(role.name for role in self.roles)
        for name in inputs:
            if self.role_of(name) is None:
                raise OpRuleError(f"unknown input '{name}'", expected=names)
        for role in self.roles:
            given = [name for name in inputs if self.role_of(name) is role]
            if role.required and not given:
                raise OpRuleError(f"input '{role.name}' is missing", expected=names)
            if role.variadic and set(given) != {f"{role.name}{i}" for i in range(len(given))}:
                raise OpRuleError(f"inputs '{role.name}' are not numbered from 0", got=given)

    def _check_attributes(self, attributes: Attributes) -> None:
        known = {attribute.name: attribute for attribute in self.attributes}
        for name in attributes:
            if name not in known:
                expected = ", ".join(known) or "no attributes"
                raise OpRuleError(f"unknown attribute '{name}'", expected=expected)
        for name, attribute in known.items():
            if name not in attributes:
                raise OpRuleError(f"attribute '{name}' is missing")
            attribute.check(attributes[name])

    def _activation_dtype(self, inputs: Mapping[str, ValueType]) -> DType:
        activations: dict[str, DType] = {}
        for name, type_ in inputs.items():
            role = self.role_of(name)
            assert role is not None
            if role.element is Element.ACTIVATION:
                activations[name] = type_.dtype
            elif type_.dtype.value != role.element.value:
                raise OpRuleError(
                    f"input '{name}' has the wrong dtype",
                    got=type_.dtype.value,
                    expected=role.element.value,
                )
        dtypes = set(activations.values())
        if len(dtypes) != 1 or DType.I32 in dtypes:
            listed = ", ".join(f"{name} {dtype.value}" for name, dtype in activations.items())
            raise OpRuleError("inputs differ in dtype", got=listed, expected="one float dtype")
        return dtypes.pop()
