"""Statements of an architecture to nodes of a region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.frontend.call import CallSite, fits_float32, is_number
from qwen3_codegen.frontend.emitters import EMITTERS
from qwen3_codegen.frontend.own_ops import emit_own
from qwen3_codegen.frontend.region_builder import RegionBuilder
from qwen3_codegen.frontend.tensor_shapes import TensorShapes
from qwen3_codegen.frontend.weights import WeightScope
from qwen3_codegen.ir.graph import Value
from qwen3_codegen.ir.ops.own import OwnFunction
from qwen3_codegen.spec.evaluation import NUMBER_FUNCTIONS, evaluate, to_text
from qwen3_codegen.spec.expressions import parse_expression, subexpressions
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.syntax import Binary, Call, Conditional, Expression, Name, Statement

__all__ = ["StatementReader"]

Operand: TypeAlias = Value | float


class StatementReader:
    """Carries out statements, one after the other, on named values.

    Args:
        spec: The model.
        region: Where nodes go.
        values: Values known before the first statement.
        names: What expressions may read besides values: config fields and ``layer``.
        prefix: Goes before every weight path.
        shapes: Shared by all regions of a model.
    """

    def __init__(
        self,
        spec: ModelSpec,
        region: RegionBuilder,
        values: Mapping[str, Value],
        names: Mapping[str, object],
        prefix: str,
        shapes: TensorShapes,
    ) -> None:
        self._spec = spec
        self._functions = spec.architecture.functions
        self._region = region
        self._values = dict(values)
        self._names = names
        self._prefix = prefix
        self._shapes = shapes
        self._unread: dict[str, Statement] = {}
        self._location = spec.architecture.location

    def run(self, statement: Statement) -> None:
        """Carries out one statement where its conditions hold.

        Raises:
            SpecError: Anything wrong with it, with its place.
        """
        self._location = statement.location
        if not all(self._condition(test) for test in statement.when):
            return
        results = self._results(statement)
        if len(results) != len(statement.targets):
            raise self._fault(
                "wrong number of targets",
                got=f"{len(statement.targets)} ({', '.join(statement.targets)})",
                expected=len(results),
            )
        for target, value in zip(statement.targets, results, strict=True):
            if target in self._unread:
                raise self._unused(target)
            self._values[target] = value
            self._unread[target] = statement

    def finish(self, name: str) -> Value:
        """Returns the value the statements had to define.

        Raises:
            SpecError: They did not, or another value is never used.
        """
        if name not in self._values:
            raise self._fault(f"'{name}' is not defined by these statements")
        self._mark_read(name)
        for unread in self._unread:
            raise self._unused(unread)
        return self._values[name]

    def _mark_read(self, name: str) -> None:
        """Notes that a value is used; of a split's parts one is enough."""
        statement = self._unread.pop(name, None)
        if statement is not None and _is_split(statement):
            for part in statement.targets:
                if self._unread.get(part) is statement:
                    del self._unread[part]

    def _unused(self, name: str) -> SpecError:
        return SpecError(
            f"'{name}' is computed and never used",
            where=self._unread[name].location,
            hint="use it, remove the statement, or put it under the 'when' of its use",
        )

    def _results(self, statement: Statement) -> tuple[Value, ...]:
        expression = self._chosen(statement.expression)
        if isinstance(expression, Call) and expression.function in self._functions:
            return self._call(expression, statement.targets)
        operand = self._operand(expression, statement.targets)
        if not isinstance(operand, Value):
            raise self._fault("not a value but a number", got=to_text(expression))
        return (operand,)

    def _operand(self, expression: Expression, targets: tuple[str, ...] = ()) -> Operand:
        """Returns a value, or a number where nothing in the expression is a value."""
        expression = self._chosen(expression)
        match expression:
            case Name(id=name) if name in self._values:
                self._mark_read(name)
                return self._values[name]
            case Call(function=name) if name not in NUMBER_FUNCTIONS:
                results = self._call(expression, targets)
                if len(results) != 1:
                    raise self._fault(f"'{name}' gives {len(results)} results here")
                return results[0]
            case Binary(operator="+" | "*" | "/") if self._has_values(expression):
                return self._binary(expression, targets)
        if self._has_values(expression):
            raise self._fault(
                f"'{to_text(expression)}' cannot be computed on values",
                expected="a + b, a * b, x * number, x / number, or a function",
            )
        number = self._constant(expression)
        if not is_number(number):
            raise self._fault(f"'{to_text(expression)}' is neither a value nor a number")
        return float(number)  # type: ignore[arg-type]

    def _has_values(self, expression: Expression) -> bool:
        return any(
            (isinstance(part, Name) and part.id in self._values)
            or (isinstance(part, Call) and part.function not in NUMBER_FUNCTIONS)
            for part in subexpressions(expression)
        )

    def _binary(self, expression: Binary, targets: tuple[str, ...]) -> Value:
        left, right = self._operand(expression.left), self._operand(expression.right)
        match expression.operator, left, right:
            case "+", Value(), Value():
                return self._emit("add", {"a": left, "b": right}, {}, targets)
            case "*", Value(), Value():
                if left.type.shape[-1] == 1:
                    left, right = right, left
                return self._emit("mul", {"a": left, "b": right}, {}, targets)
            case "*", Value(), float():
                return self._scale(expression, left, right, targets)
            case "*", float(), Value():
                return self._scale(expression, right, left, targets)
            case "/", Value(), float() if right != 0:
                return self._scale(expression, left, 1 / right, targets)
        raise self._fault(
            f"'{to_text(expression)}' cannot be computed on these values",
            got=f"{_kind(left)} {expression.operator} {_kind(right)}",
            expected="value + value, value * value, value * number, value / number above zero",
        )

    def _scale(
        self, expression: Binary, value: Value, factor: float, targets: tuple[str, ...]
    ) -> Value:
        if not fits_float32(factor):
            raise self._fault(
                f"the factor of '{to_text(expression)}' is out of range",
                got=factor,
                expected="a number that float32 can hold",
            )
        return self._emit("scale", {"x": value}, {"factor": factor}, targets)

    def _emit(
        self,
        op: str,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, float],
        targets: tuple[str, ...],
    ) -> Value:
        names = targets[:1] or (op,)
        (value,) = self._region.emit(op, inputs, attributes, names=names, location=self._location)
        return value

    def _call(self, call: Call, targets: tuple[str, ...]) -> tuple[Value, ...]:
        """Carries out a call whose arguments the spec stage has matched to parameters."""
        function = self._functions.get(call.function)
        if function is None:
            names = [*self._functions, *NUMBER_FUNCTIONS]
            hint = nearest(call.function, names)
            raise self._fault(f"unknown op '{call.function}'", hint=hint)
        count = len(call.arguments) - len(function.positional)
        arguments = {
            parameter.name: parse_expression(parameter.default, self._location)
            for parameter in function.keywords
            if isinstance(parameter.default, str)
        }
        arguments |= dict(call.keywords)
        for parameter, argument in zip(function.positional, call.arguments[count:], strict=True):
            arguments[parameter.name] = argument
        site = CallSite(
            function=function.name,
            inputs=tuple(map(self._input, call.arguments[:count])),
            arguments=arguments,
            targets=targets,
            spec=self._spec,
            region=self._region,
            scope=self._weight_scope(),
            location=self._location,
        )
        if isinstance(function, OwnFunction):
            return emit_own(site, function)
        return EMITTERS[function.name](site)

    def _weight_scope(self) -> WeightScope:
        return WeightScope(
            prefix=self._prefix,
            evaluate=self._constant,
            location=self._location,
            shapes=self._shapes,
        )

    def _input(self, argument: Expression) -> Value:
        argument = self._chosen(argument)
        if not self._has_values(argument):
            raise self._fault(
                f"'{to_text(argument)}' is not a value here",
                expected=", ".join(self._values),
                hint=nearest(to_text(argument), self._values),
            )
        operand = self._operand(argument)
        assert isinstance(operand, Value)
        return operand

    def _chosen(self, expression: Expression) -> Expression:
        while isinstance(expression, Conditional):
            holds = self._condition(expression.test)
            expression = expression.then if holds else expression.otherwise
        return expression

    def _condition(self, test: Expression) -> bool:
        value = self._constant(test)
        if not isinstance(value, bool):
            raise self._fault("a condition is not a boolean", got=to_text(test))
        return value

    def _constant(self, expression: Expression) -> object:
        value: object = evaluate(expression, self._names, location=self._location)
        return value

    def _fault(
        self,
        message: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        hint: str | None = None,
    ) -> SpecError:
        return SpecError(message, where=self._location, got=got, expected=expected, hint=hint)


def _is_split(statement: Statement) -> bool:
    return isinstance(statement.expression, Call) and statement.expression.function == "split"


def _kind(operand: Operand) -> str:
    return str(operand.type) if isinstance(operand, Value) else repr(operand)
