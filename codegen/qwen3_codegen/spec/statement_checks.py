"""Checks of statements that need no sizes: functions, keywords, names, order, weight paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.evaluation import NUMBER_FUNCTIONS, to_text
from qwen3_codegen.spec.expressions import children, names_in, parse_expression, subexpressions
from qwen3_codegen.spec.functions import (
    FUNCTIONS,
    WEIGHT_FORMS,
    Function,
    FunctionTable,
    Kind,
    Parameter,
)
from qwen3_codegen.spec.names import is_value_name
from qwen3_codegen.spec.problems import Problems
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
    Statement,
    Subscript,
    Unary,
)

__all__ = ["StatementScope", "check_statements", "check_weight"]

_PATH_PART = re.compile(r"[A-Za-z0-9_]+\Z")
_EXPERT = "expert"
_OWN_OPS = "--ops DIR adds ops of your own"


@dataclass(frozen=True, slots=True)
class StatementScope:
    """What statements may name."""

    config: Collection[str]
    """Consumed and derived config fields."""
    attributes: Collection[str] = field(default_factory=tuple)
    """Attributes of ``layer``; empty outside the layers."""
    in_layers: bool = False
    functions: FunctionTable = field(default_factory=lambda: FUNCTIONS)


def check_statements(
    statements: Sequence[Statement],
    scope: StatementScope,
    given: Collection[str],
    problems: Problems,
) -> set[str]:
    """Checks a straight run of statements.

    A value assigned under a condition counts as defined afterwards; whether it is, once the
    conditions are known, the frontend checks.

    Args:
        statements: In order.
        scope: Config fields and layer attributes.
        given: Values defined before the first statement.
        problems: Takes every fault.

    Returns:
        The values defined at the end.
    """
    later: dict[str, SourceLocation] = {}
    for statement in reversed(statements):
        for target in statement.targets:
            later[target] = statement.location
    defined = set(given)
    for statement in statements:
        with problems.collect():
            _StatementChecker(statement, scope, defined, later).check()
        defined.update(statement.targets)
    return defined


def check_weight(expression: Expression, location: SourceLocation) -> None:
    """Checks that an expression names checkpoint tensors in one of the allowed forms.

    Raises:
        SpecError: It does not.
    """
    match expression:
        case Conditional(then=then, otherwise=otherwise):
            check_weight(then, location)
            check_weight(otherwise, location)
        case Call(function="rows", arguments=(path, _, _), keywords=()):
            _check_rows_of(path, expression, location)
        case Call(function="concat", arguments=paths, keywords=()) if len(paths) > 1:
            for path in paths:
                check_weight(path, location)
            if _EXPERT in _indices(expression):
                raise SpecError(
                    "'concat' joins rows of tensors, and one path with [expert] is many tensors",
                    where=location,
                    got=to_text(expression),
                )
        case Call(function="tensor", arguments=(path,), keywords=()):
            _check_path(path, location)
        case _:
            _check_path(expression, location)


def _check_rows_of(path: Expression, rows: Expression, location: SourceLocation) -> None:
    """Rows are of one tensor: of a concatenation or of all experts they would be others."""
    inner = path.arguments[0] if isinstance(path, Call) and path.arguments else path
    if isinstance(path, Conditional):
        _check_rows_of(path.then, rows, location)
        _check_rows_of(path.otherwise, rows, location)
    elif (isinstance(path, Call) and path.function != "tensor") or _EXPERT in _indices(inner):
        raise SpecError(
            "'rows' takes rows of one tensor",
            where=location,
            got=to_text(rows),
            expected="rows(a.b, start, count) or rows(tensor(a.b), start, count)",
        )
    else:
        check_weight(path, location)


def _indices(path: Expression) -> list[str]:
    return [
        part.index.id
        for part in subexpressions(path)
        if isinstance(part, Subscript) and isinstance(part.index, Name)
    ]


def _check_path(expression: Expression, location: SourceLocation) -> None:
    part = expression
    while True:
        match part:
            case Attribute(base=base, name=name) if _PATH_PART.match(name):
                part = base
            case Subscript(base=base, index=Name(id=index)) if index == _EXPERT:
                part = base
            case Subscript(base=base, index=Literal(value=int() as index)) if index >= 0:
                part = base
            case Name(id=name) if _PATH_PART.match(name):
                return
            case _:
                raise SpecError(
                    "not a weight path",
                    where=location,
                    got=to_text(expression),
                    expected="; ".join(WEIGHT_FORMS),
                )


@dataclass(frozen=True, slots=True)
class _StatementChecker:
    statement: Statement
    scope: StatementScope
    defined: set[str]
    later: Mapping[str, SourceLocation]

    def fail(
        self, message: str, expression: Expression | None = None, **facts: object
    ) -> SpecError:
        if expression is not None:
            facts.setdefault("got", to_text(expression))
        return SpecError(message, where=self.statement.location, **facts)  # type: ignore[arg-type]

    def check(self) -> None:
        for target in self.statement.targets:
            if target == "layer" or target in self.scope.config:
                raise self.fail(
                    f"'{target}' is a config field" if target != "layer" else "'layer' is reserved",
                    hint="give the value another name",
                )
            if not is_value_name(target):
                raise self.fail(
                    "not a name for a value",
                    got=target,
                    expected="letters, digits and single '_' between them, a letter first",
                )
        for condition in self.statement.when:
            self.scalar(condition)
        expression = self.statement.expression
        results = 1
        if isinstance(expression, Call) and expression.function in self.scope.functions:
            results = self.function_call(expression)
        elif not self.is_value(expression):
            raise self.fail("a statement must compute a value of the graph", expression)
        if results and results != len(self.statement.targets):
            raise self.fail(
                f"{len(self.statement.targets)} target(s) for {results} result(s)", expression
            )

    def is_value(self, expression: Expression) -> bool:
        """Checks an expression; true when it is a value of the graph, false for a scalar."""
        match expression:
            case Name(id=name) if name in self.defined:
                return True
            case Name(id=name):
                self.known_name(name)
                return False
            case Call(function=name) if name in self.scope.functions:
                results = self.function_call(expression)
                if results != 1:
                    raise self.fail(f"'{name}' gives several results; assign them", expression)
                return True
            case Binary(operator="+" | "*" | "/"):
                return self.arithmetic(expression)
            case Conditional(test=test, then=then, otherwise=otherwise):
                self.scalar(test)
                if self.is_value(then) != self.is_value(otherwise):
                    raise self.fail("one branch is a value and the other a number", expression)
                return self.is_value(then)
            case Unary(operator=symbol) | Binary(operator=symbol) if self.has_values(expression):
                raise self.fail(
                    f"there is no '{symbol}' for values of the graph",
                    expression,
                    expected="value + value, value * value, value * number, value / number",
                    hint="-1 * x is x with the other sign" if symbol == "-" else None,
                )
            case _:
                self.scalar(expression)
                return False

    def has_values(self, expression: Expression) -> bool:
        return any(
            (isinstance(part, Name) and part.id in self.defined)
            or (isinstance(part, Call) and part.function in self.scope.functions)
            for part in subexpressions(expression)
        )

    def arithmetic(self, expression: Binary) -> bool:
        left, right = self.is_value(expression.left), self.is_value(expression.right)
        if expression.operator == "+" and left != right:
            raise self.fail("a value and a number cannot be added", expression)
        if expression.operator == "/" and right:
            raise self.fail("division by a value of the graph", expression)
        return left or right

    def scalar(self, expression: Expression) -> None:
        """Checks an expression that may hold no value of the graph."""
        match expression:
            case Literal():
                return
            case Name(id=name):
                if name in self.defined:
                    raise self.fail(f"'{name}' is a value of the graph; a number is needed here")
                self.known_name(name)
            case Attribute(base=Name(id="layer"), name=name):
                if name not in self.scope.attributes:
                    raise self.fail(
                        f"a layer has no attribute '{name}'",
                        expected=", ".join(self.scope.attributes) or "none outside the layers",
                        hint=nearest(name, self.scope.attributes),
                    )
            case Attribute(base=base):
                self.scalar(base)
            case Call():
                self.number_call(expression)
            case Unary() | Binary() | Conditional() | Subscript() | ListDisplay():
                for child in children(expression):
                    self.scalar(child)

    def known_name(self, name: str) -> None:
        if name in self.scope.config:
            return
        if name == "layer":
            raise self.fail("'layer' is used without an attribute", hint="such as layer.window")
        if name in self.later:
            raise self.fail(
                f"'{name}' is used before it is defined",
                hint=f"{self.later[name]} defines it; statements run in order, and two that need "
                "each other are a cycle",
            )
        raise self.fail(
            f"unknown name '{name}'",
            expected="a value defined above, or a config field",
            hint=nearest(name, [*self.defined, *self.scope.config]),
        )

    def number_call(self, call: Call) -> None:
        if call.function in self.scope.functions:
            raise self.fail(f"'{call.function}' gives a value; a number is needed here", call)
        if call.function not in NUMBER_FUNCTIONS:
            raise self.unknown_function(call.function)
        count = NUMBER_FUNCTIONS[call.function][0]
        if call.keywords or len(call.arguments) != count:
            raise self.fail(f"'{call.function}' takes {count} plain argument(s)", call)
        for argument in call.arguments:
            self.scalar(argument)

    def unknown_function(self, name: str) -> SpecError:
        functions = self.scope.functions
        names = [*functions, *NUMBER_FUNCTIONS]
        return self.fail(
            f"unknown op '{name}'",
            expected=", ".join(functions),
            hint=nearest(name, names) or _OWN_OPS,
        )

    def function_call(self, call: Call) -> int:
        """Checks a call and returns how many results it gives, 0 when only sizes will tell."""
        function = self.scope.functions[call.function]
        if function.in_layers and not self.scope.in_layers:
            raise self.fail(f"'{function.name}' works only inside layers", call)
        values = self.split_arguments(function, call)
        for value in values:
            if not self.is_value(value):
                raise self.fail(f"'{function.name}' needs a value of the graph", value)
        self.keywords(function, call)
        if isinstance(function.results, int):
            return function.results
        if function.results == "values":
            return len(values)
        sizes = call.arguments[len(values)]
        return len(sizes.items) if isinstance(sizes, ListDisplay) else 0

    def split_arguments(self, function: Function, call: Call) -> tuple[Expression, ...]:
        fewest, most = function.values
        extra = len(function.positional)
        count = len(call.arguments) - extra
        if count < fewest or (most is not None and count > most):
            wanted = f"{fewest + extra}" if fewest == most else f"at least {fewest + extra}"
            raise self.fail(f"'{function.name}' takes {wanted} positional argument(s)", call)
        for argument in call.arguments[count:]:
            self.scalar(argument)
        return call.arguments[:count]

    def keywords(self, function: Function, call: Call) -> None:
        parameters = {parameter.name: parameter for parameter in function.keywords}
        for name, expression in call.keywords:
            if name not in parameters:
                raise self.fail(
                    f"'{function.name}' has no keyword '{name}'",
                    expected=", ".join(parameters) or "no keywords",
                    hint=nearest(name, parameters),
                )
            if parameters[name].kind is Kind.WEIGHT:
                self.weight(expression)
            else:
                self.scalar(expression)
        for parameter in function.keywords:
            if call.keyword(parameter.name) is None:
                self.absent_keyword(function, parameter, call)

    def absent_keyword(self, function: Function, parameter: Parameter, call: Call) -> None:
        hint = None
        if isinstance(parameter.default, str):
            default = parse_expression(parameter.default, self.statement.location)
            missing = [name for name in names_in(default) if name not in self.scope.config]
            if not missing:
                return
            hint = f"its default is '{parameter.default}', which the config does not have"
        raise self.fail(f"'{function.name}' needs the keyword '{parameter.name}'", call, hint=hint)

    def weight(self, expression: Expression) -> None:
        check_weight(expression, self.statement.location)
        match expression:
            case Conditional(test=test, then=then, otherwise=otherwise):
                self.scalar(test)
                self.weight(then)
                self.weight(otherwise)
            case Call(function="rows", arguments=(path, start, count)):
                self.scalar(start)
                self.scalar(count)
                self.weight(path)
            case Call(function="concat", arguments=paths):
                for path in paths:
                    self.weight(path)
