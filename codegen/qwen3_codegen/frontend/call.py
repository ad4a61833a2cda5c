"""One call of a statement function, with readers for its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import SpecError
from qwen3_codegen.frontend.region_builder import RegionBuilder
from qwen3_codegen.frontend.weights import WeightScope
from qwen3_codegen.ir.graph import AttributeValue, Value
from qwen3_codegen.spec.config_fields import LARGEST_SIZE
from qwen3_codegen.spec.evaluation import to_text
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Expression

__all__ = ["CallSite", "fits_float32", "is_number"]


def is_number(value: object) -> bool:
    """Returns whether a value is a finite int or float; a boolean is none."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def fits_float32(value: float) -> bool:
    """Returns whether engines, which hold numbers in float32, keep a number: neither 0 nor inf."""
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(value)
    return bool(np.isfinite(single)) and (single != 0) == (value != 0)


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSite:
    """A call being turned into nodes.

    The spec stage has checked which arguments there are; their values are checked here, because
    they are known only with a model's sizes. The readers raise SpecError.
    """

    function: str
    inputs: tuple[Value, ...]
    arguments: Mapping[str, Expression]
    """What stands for every other parameter, defaults filled in."""
    targets: tuple[str, ...]
    """Names wanted for the results; empty inside an expression."""
    spec: ModelSpec
    region: RegionBuilder
    scope: WeightScope
    location: SourceLocation

    def _read(self, name: str, fits: Callable[[object], bool], expected: str) -> object:
        value = self.scope.evaluate(self.arguments[name])
        if not fits(value):
            raise self.fail(
                f"'{name}' is no {expected}",
                got=f"{to_text(self.arguments[name])}, which is {_spelled(value)}",
                expected=expected,
            )
        return value

    def size(self, name: str) -> int:
        """Returns a whole number above zero."""
        value = self._read(name, _is_size, "whole number above zero")
        assert isinstance(value, int)
        self._check_bounds(name, (value,))
        return value

    def optional_size(self, name: str) -> int | None:
        """Returns a whole number above zero, or None."""
        if self.scope.evaluate(self.arguments[name]) is None:
            return None
        return self.size(name)

    def whole_number(self, name: str) -> int:
        """Returns a whole number of either sign."""
        value = self._read(name, lambda value: type(value) is int, "whole number")
        assert isinstance(value, int)
        self._check_bounds(name, (abs(value),))
        return value

    def sizes(self, name: str) -> tuple[int, ...]:
        """Returns a list of whole numbers above zero; a single one counts as a list of one."""

        def fits(value: object) -> bool:
            items = value if isinstance(value, tuple) else (value,)
            return bool(items) and all(map(_is_size, items))

        value = self._read(name, fits, "whole number above zero or list of them")
        sizes = value if isinstance(value, tuple) else (value,)
        self._check_bounds(name, sizes)
        return sizes

    def _check_bounds(self, name: str, sizes: tuple[int, ...]) -> None:
        if max(sizes) > LARGEST_SIZE:
            raise self.fail(
                f"'{name}' is too large",
                got=f"{to_text(self.arguments[name])}, which is {max(sizes)}",
                expected=f"at most {LARGEST_SIZE}",
            )

    def number(self, name: str) -> float:
        """Returns a finite number that float32 can hold."""
        value = self._read(name, is_number, "number")
        assert isinstance(value, int | float)
        if not fits_float32(value):
            raise self.fail(
                f"'{name}' is out of range",
                got=f"{to_text(self.arguments[name])}, which is {_spelled(value)}",
                expected="a number that float32 can hold",
            )
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Returns a finite number, or None."""
        if self.scope.evaluate(self.arguments[name]) is None:
            return None
        return self.number(name)

    def flag(self, name: str) -> bool:
        """Returns a boolean."""
        return bool(self._read(name, lambda value: isinstance(value, bool), "boolean"))

    def text(self, name: str) -> str:
        """Returns a text."""
        return str(self._read(name, lambda value: isinstance(value, str), "text"))

    def weight(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        suffix: str = ".weight",
        dtype: DType | None = None,
        stored: tuple[int, ...] | None = None,
    ) -> Value:
        """Adds the weight of a parameter; ``dtype`` defaults to the model's."""
        reference = self.scope.resolve(self.arguments[name], shape, suffix=suffix, stored=stored)
        return self.region.weight(reference, dtype or self.spec.dtype)

    def emit(
        self,
        op: str,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        name: str | None = None,
    ) -> tuple[Value, ...]:
        """Adds the node whose results are the call's; ``name`` is used where no target names it."""
        names = self.targets or (name or op,)
        return self._add(op, inputs, attributes or {}, names)

    def emit_inner(
        self,
        op: str,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, AttributeValue],
        name: str,
    ) -> Value:
        """Adds a node whose only result is no result of the call."""
        (value,) = self._add(op, inputs, attributes, (name,))
        return value

    def _add(
        self,
        op: str,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, AttributeValue],
        names: tuple[str, ...],
    ) -> tuple[Value, ...]:
        return self.region.emit(op, inputs, attributes, names=names, location=self.location)

    def matrix(self, value: Value) -> Value:
        """Returns a value as [rows, features], reshaped when it has more dimensions."""
        if len(value.type.shape) <= 2:
            return value
        features = math.prod(int(dim) for dim in value.type.shape[1:])
        shape = {"shape": (features,)}
        return self.emit_inner("reshape", {"x": value}, shape, f"{value.name}_reshape")

    def last_size(self, value: Value) -> int:
        """Returns the size of a value's last dimension, which must not be its rows."""
        size = value.type.shape[-1]
        if isinstance(size, str):
            raise self.fail(f"'{value.name}' has no features", got=value.type)
        return size

    def fail(
        self,
        message: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        hint: str | None = None,
    ) -> SpecError:
        """Returns an error that names the function and the place."""
        return SpecError(
            f"'{self.function}': {message}",
            where=self.location,
            got=got,
            expected=expected,
            hint=hint,
        )


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_spelled, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value)
