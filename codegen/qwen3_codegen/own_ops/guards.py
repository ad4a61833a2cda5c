"""The user's functions behind checks: what goes wrong in them is said with their file and line."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from qwen3_codegen.errors import OpError
from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops import OpRuleError
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attributes,
    Reference,
    Shape,
    Shapes,
)
from qwen3_codegen.ir.ops.own import WeightShape
from qwen3_codegen.ir.ops.shapes import format_shape
from qwen3_codegen.ir.ops.step import Step
from qwen3_codegen.own_ops.row import Op

__all__ = ["GuardedOp", "place_in"]

_Result = TypeVar("_Result")


def place_in(path: str, error: BaseException) -> str:
    """Returns the innermost place of an error in a file, ``path:line``, or the file alone."""
    if isinstance(error, SyntaxError) and error.filename == path and error.lineno:
        return f"{path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"{path}:{lines[-1]}" if lines else path


@dataclass(frozen=True, slots=True)
class GuardedOp:
    """The functions of a row, with the row's own promises checked at every call.

    All of them raise OpError when the user's function does anything else than return a value of
    the right kind. Rules of shapes may raise OpRuleError too, their own word about a statement.
    """

    op: Op
    path: str
    """The Python file, as messages name it."""

    def shape_rule(self, shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
        """Returns the shapes of the results."""
        function = self.op.shape_rule
        results = self._call("the shape rule", function, shapes, attributes, may_refuse=True)
        rows = shapes[self.op.roles[0].name][0]
        if (
            not isinstance(results, tuple)
            or len(results) != self.op.num_results
            or not all(_is_shape(shape, rows) for shape in results)
        ):
            count = self.op.num_results
            raise OpError(
                f"the shape rule of '{self.op.name}' gives no shapes of results",
                where=self._line(function),
                got=repr(results),
                expected=f"a tuple of {count} shape{'s' * (count > 1)} such as ({rows!r}, 64)",
            )
        return results

    def reference(
        self, inputs: Arrays, attributes: Attributes, step: Step
    ) -> Array | tuple[Array, ...]:
        """Returns the results in the dtype of the first input."""
        function = self.op.reference
        first = inputs[self.op.roles[0].name]
        given = {role: _read_only(array) for role, array in inputs.items()}
        arrays = self._call("the reference", _as_arrays(function), given, attributes, step)
        expected = self._call("the shape rule", self._numeric_shapes, inputs, attributes)
        found = tuple(array.shape for array in arrays)
        if found != expected or any(array.dtype.kind != "f" for array in arrays):
            raise OpError(
                f"the reference of '{self.op.name}' gives something else than its shape rule says",
                where=self._line(function),
                got=", ".join(f"{array.dtype}{format_shape(array.shape)}" for array in arrays),
                expected=", ".join(f"{first.dtype}{format_shape(shape)}" for shape in expected),
            )
        converted = tuple(array.astype(first.dtype, copy=False) for array in arrays)
        return converted if self.op.num_results > 1 else converted[0]

    def weight_shape(self, role: str) -> WeightShape:
        """Returns the function that gives the shape of a weight."""
        function = self.op.weights[role]

        def shape_of(shapes: Shapes, attributes: Attributes) -> tuple[int, ...]:
            what = f"the shape of weight '{role}'"
            return self._sizes(what, function, shapes, attributes, may_refuse=True)

        return shape_of

    def kernel_sizes(self, shapes: Shapes, attributes: Attributes) -> tuple[int, ...]:
        """Returns the template arguments behind the element type."""
        if self.op.kernel_sizes is None:
            return (math.prod(int(extent) for extent in shapes[self.op.roles[0].name][1:]),)
        return self._sizes("kernel_sizes", self.op.kernel_sizes, shapes, attributes)

    def _sizes(
        self,
        what: str,
        function: Callable[[Shapes, Attributes], tuple[int, ...]],
        shapes: Shapes,
        attributes: Attributes,
        *,
        may_refuse: bool = False,
    ) -> tuple[int, ...]:
        sizes = self._call(what, function, shapes, attributes, may_refuse=may_refuse)
        if not isinstance(sizes, tuple) or not sizes or not all(map(_is_size, sizes)):
            raise OpError(
                f"{what} of '{self.op.name}' gives no sizes",
                where=self._line(function),
                got=repr(sizes),
                expected="a tuple of whole numbers above zero",
            )
        return sizes

    def _numeric_shapes(self, inputs: Arrays, attributes: Attributes) -> tuple[Shape, ...]:
        """What the shape rule says of arrays, whose rows are a number and not a symbol."""
        shapes: dict[str, Shape] = {
            role: array.shape if role in self.op.weights else (NUM_TOKENS, *array.shape[1:])
            for role, array in inputs.items()
        }
        rows = len(inputs[self.op.roles[0].name])
        return tuple((rows, *shape[1:]) for shape in self.shape_rule(shapes, attributes))

    def _call(
        self,
        what: str,
        function: Callable[..., _Result],
        *arguments: object,
        may_refuse: bool = False,
    ) -> _Result:
        try:
            return function(*arguments)
        except OpError:
            raise
        except (Exception, SystemExit) as error:
            if may_refuse and isinstance(error, OpRuleError):
                raise
            raise OpError(
                f"{what} of '{self.op.name}' failed",
                where=place_in(self.path, error),
                got=f"{type(error).__name__}: {error}",
            ) from error

    def _line(self, function: Callable[..., object]) -> str:
        code = getattr(function, "__code__", None)
        if code is None or code.co_filename != self.path:
            return self.path
        return f"{self.path}:{code.co_firstlineno}"


def _as_arrays(reference: Reference) -> Callable[..., tuple[Array, ...]]:
    def call(inputs: Arrays, attributes: Attributes, step: Step) -> tuple[Array, ...]:
        results = reference(inputs, attributes, step)
        return tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))

    return call


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _is_shape(shape: object, rows: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) > 1
        and shape[0] == rows
        and all(map(_is_size, shape[1:]))
    )


def _read_only(array: Array) -> Array:
    """The same array; who writes to it gets NumPy's error instead of a wrong answer elsewhere."""
    view: Array = array.view()
    view.flags.writeable = False
    return view
