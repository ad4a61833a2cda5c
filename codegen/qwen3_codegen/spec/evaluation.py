"""Values of expressions over config fields and layer attributes.

Numbers, text, booleans, ``none`` and lists only, with bounds on every result, so that a
description can neither run code nor exhaust the machine.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import (
    Attribute,
    Binary,
    Call,
    Conditional,
    Expression,
    ListDisplay,
    Literal,
    Name,
    Subscript,
    Unary,
)
from qwen3_codegen.spec.yaml_loader import kind_of

__all__ = ["NUMBER_FUNCTIONS", "Value", "evaluate", "to_text"]

Value: TypeAlias = Any
"""int, float, str, bool, None, a tuple of these, or a mapping from names to these."""

_LARGEST = 2**63
_Operation: TypeAlias = Callable[[Any, Any], Any]

_ARITHMETIC: dict[str, _Operation] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_ORDER: dict[str, _Operation] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


_FLOAT_TYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _round_to(value: float, dtype: str) -> float:
    """Rounds once to float32 and then to the dtype, as a float32 constant cast by torch is."""
    with np.errstate(over="ignore"):
        return float(np.float32(value).astype(_FLOAT_TYPES[dtype]))


NUMBER_FUNCTIONS: dict[str, tuple[int, Callable[..., Any], str]] = {
    "sqrt": (1, math.sqrt, "square root"),
    "min": (2, min, "the smaller of two numbers"),
    "max": (2, max, "the larger of two numbers"),
    "divide": (2, operator.floordiv, "quotient of whole numbers that leave no remainder"),
    "round_up": (2, _round_up, "a whole number rounded up to a multiple of another"),
    "round_to": (2, _round_to, "a number rounded to a dtype given by name"),
    "len": (1, len, "length of a list"),
}
"""Functions on numbers: how many arguments, what computes them, what they mean."""


def evaluate(
    expression: Expression, names: Mapping[str, Value], *, location: SourceLocation
) -> Value:
    """Computes an expression.

    Args:
        expression: Parsed by ``parse_expression``.
        names: Config fields by name; ``layer`` is the layer's index or its attributes.
        location: Where the expression stands, for messages.

    Returns:
        A number, text, boolean, None or tuple.

    Raises:
        SpecError: An unknown name, operands of the wrong kind, or a result out of bounds.
    """
    return _Evaluator(names, location).value(expression)


class _Evaluator:
    def __init__(self, names: Mapping[str, Value], location: SourceLocation) -> None:
        self._names = names
        self._location = location

    def fail(self, message: str, expression: Expression, **facts: Any) -> SpecError:
        facts.setdefault("got", to_text(expression))
        return SpecError(message, where=self._location, **facts)

    def value(self, expression: Expression) -> Value:
        match expression:
            case Literal(value=value):
                return value
            case Name(id=name):
                return self._name(expression, name)
            case Attribute(base=base, name=name):
                return self._attribute(expression, self.value(base), name)
            case Subscript(base=base, index=index):
                return self._element(expression, self.value(base), self.value(index))
            case ListDisplay(items=items):
                return tuple(self.value(item) for item in items)
            case Conditional(test=test, then=then, otherwise=otherwise):
                return self.value(then if self._truth(test) else otherwise)
            case Unary(operator="not", operand=operand):
                return not self._truth(operand)
            case Unary(operand=operand):
                return -self._number(operand)
            case Binary(operator="and", left=left, right=right):
                return self._truth(left) and self._truth(right)
            case Binary(operator="or", left=left, right=right):
                return self._truth(left) or self._truth(right)
            case Binary():
                return self._binary(expression)
            case Call():
                return self._call(expression)

    def _name(self, expression: Expression, name: str) -> Value:
        if name not in self._names:
            raise self.fail(
                f"unknown name '{name}'",
                expression,
                got=None,
                hint=nearest(name, self._names),
            )
        return self._names[name]

    def _attribute(self, expression: Expression, base: Value, name: str) -> Value:
        if not isinstance(base, Mapping):
            raise self.fail(f"{kind_of(base)} has no '{name}'", expression)
        if name not in base:
            raise self.fail(
                f"unknown name '{name}' in {to_text(expression)}",
                expression,
                got=None,
                hint=nearest(name, base),
            )
        return base[name]

    def _element(self, expression: Expression, base: Value, index: Value) -> Value:
        if isinstance(base, Mapping) and isinstance(index, str):
            return self._attribute(expression, base, index)
        if not isinstance(base, tuple):
            raise self.fail(f"{kind_of(base)} has no elements", expression)
        if type(index) is not int or not 0 <= index < len(base):
            raise self.fail(
                f"{to_text(expression)} reads an element that does not exist",
                expression,
                got=f"index {index}",
                expected=f"0 to {len(base) - 1}" if base else "an element of a list that has any",
            )
        return base[index]

    def _truth(self, expression: Expression) -> bool:
        value = self.value(expression)
        if not isinstance(value, bool):
            raise self.fail(
                f"'{to_text(expression)}' is a condition but not a boolean",
                expression,
                got=kind_of(value),
                expected="true or false; compare with '== none' or '!= 0'",
            )
        return value

    def _number(self, expression: Expression) -> Any:
        value = self.value(expression)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(
                f"'{to_text(expression)}' must be a number", expression, got=kind_of(value)
            )
        return value

    def _binary(self, expression: Binary) -> Value:
        symbol = expression.operator
        if symbol in ("==", "!="):
            equal = _equal(self.value(expression.left), self.value(expression.right))
            return equal is (symbol == "==")
        if symbol in ("in", "not in"):
            return self._contains(expression) is (symbol == "in")
        left, right = self._number(expression.left), self._number(expression.right)
        if symbol in _ORDER:
            return _ORDER[symbol](left, right)
        try:
            result = (
                self._power(left, right) if symbol == "**" else _ARITHMETIC[symbol](left, right)
            )
        except ZeroDivisionError:
            raise self.fail(f"'{to_text(expression)}' divides by zero", expression) from None
        return self._bounded(expression, result)

    def _contains(self, expression: Binary) -> bool:
        container = self.value(expression.right)
        if not isinstance(container, tuple):
            raise self.fail(
                f"'{to_text(expression.right)}' must be a list", expression, got=kind_of(container)
            )
        value = self.value(expression.left)
        return any(_equal(value, item) for item in container)

    @staticmethod
    def _power(left: Any, right: Any) -> Any:
        """A float overflows to an error or infinity by itself; whole numbers must be kept small."""
        if abs(right) > 64 or (left < 0 and isinstance(right, float)):
            return math.inf
        try:
            return left**right
        except OverflowError:
            return math.inf

    def _bounded(self, expression: Expression, result: Any) -> Any:
        whole = isinstance(result, int)
        if (whole and abs(result) >= _LARGEST) or (not whole and not math.isfinite(result)):
            raise self.fail(f"'{to_text(expression)}' is out of bounds", expression)
        return result

    def _call(self, expression: Call) -> Value:
        name = expression.function
        if name not in NUMBER_FUNCTIONS:
            raise self.fail(
                f"unknown function '{name}'",
                expression,
                got=None,
                expected=", ".join(NUMBER_FUNCTIONS),
                hint=nearest(name, NUMBER_FUNCTIONS),
            )
        count, function, _ = NUMBER_FUNCTIONS[name]
        if expression.keywords or len(expression.arguments) != count:
            raise self.fail(f"'{name}' takes {count} plain argument(s)", expression)
        if name == "len":
            value = self.value(expression.arguments[0])
            if not isinstance(value, tuple):
                raise self.fail("'len' is of a list", expression, got=kind_of(value))
            return len(value)
        if name == "round_to":
            return self._round_to(expression)
        numbers = [self._number(argument) for argument in expression.arguments]
        if name == "sqrt" and numbers[0] < 0:
            raise self.fail("square root of a negative number", expression, got=numbers[0])
        if name == "divide":
            self._check_divides(expression, *numbers)
        if name == "round_up" and (
            any(type(number) is not int for number in numbers) or numbers[1] < 1
        ):
            raise self.fail("'round_up' takes whole numbers, the second at least 1", expression)
        return self._bounded(expression, function(*numbers))

    def _check_divides(self, expression: Call, dividend: Any, divisor: Any) -> None:
        whole = type(dividend) is int and type(divisor) is int
        if not whole or divisor < 1 or dividend % divisor:
            first, second = map(to_text, expression.arguments)
            raise self.fail(
                f"'{second}' does not divide '{first}'",
                expression,
                got=f"{divisor} and {dividend}",
            )

    def _round_to(self, expression: Call) -> float:
        number, dtype = self._number(expression.arguments[0]), self.value(expression.arguments[1])
        if not isinstance(dtype, str) or dtype not in _FLOAT_TYPES:
            raise self.fail(
                "'round_to' takes a number and a dtype",
                expression,
                got=kind_of(dtype),
                expected=", ".join(_FLOAT_TYPES),
            )
        rounded = _round_to(number, dtype)
        self._bounded(expression, rounded)
        return rounded


def _equal(left: Value, right: Value) -> bool:
    """Equality in which ``true`` is no number."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def to_text(expression: Expression) -> str:
    """Writes an expression as a user would, fully bracketed inside operators."""
    match expression:
        case Literal(value=str() as value):
            return repr(value)
        case Literal(value=bool() | None as value):
            return str(value).lower()
        case Literal(value=value):
            return repr(value)
        case Name(id=name):
            return name
        case Attribute(base=base, name=name):
            return f"{to_text(base)}.{name}"
        case Subscript(base=base, index=index):
            return f"{to_text(base)}[{to_text(index)}]"
        case ListDisplay(items=items):
            return f"[{', '.join(map(to_text, items))}]"
        case Unary(operator=symbol, operand=operand):
            return f"{symbol}{' ' if symbol == 'not' else ''}{_operand_text(operand)}"
        case Binary(operator=symbol, left=left, right=right):
            return f"{_operand_text(left)} {symbol} {_operand_text(right)}"
        case Conditional(test=test, then=then, otherwise=otherwise):
            return f"{to_text(then)} if {to_text(test)} else {to_text(otherwise)}"
        case Call(function=function, arguments=arguments, keywords=keywords):
            parts = [to_text(argument) for argument in arguments]
            parts += [f"{name}={to_text(value)}" for name, value in keywords]
            return f"{function}({', '.join(parts)})"


def _operand_text(expression: Expression) -> str:
    text = to_text(expression)
    return f"({text})" if isinstance(expression, Binary | Conditional) else text
