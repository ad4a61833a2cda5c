"""Statements and expressions of an architecture file: text to syntax tree.

Python's own parser gives the grammar; of its tree only the forms of ``syntax.py`` are let through,
and nothing is ever compiled or run as Python. ``evaluation.py`` computes expressions over config
fields; the frontend turns statements into graph nodes.
"""

from __future__ import annotations

import ast
import keyword
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from qwen3_codegen.errors import SpecError
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
from qwen3_codegen.spec.yaml_loader import shorten

__all__ = ["children", "names_in", "parse_expression", "parse_statement", "subexpressions"]

_MAX_LENGTH = 2000
_MAX_DEPTH = 40
_MAX_STRING = 200

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}
_BOOLEAN: dict[type[ast.boolop], str] = {ast.And: "and", ast.Or: "or"}
_UNARY: dict[type[ast.unaryop], str] = {ast.USub: "-", ast.Not: "not"}
_CONSTANTS = {"true": True, "false": False, "none": None}
_WORD = re.compile(r"[A-Za-z_]+")
_FOLDED = re.compile(r"\s-\s+[A-Za-z_]\w*(\s*,\s*[A-Za-z_]\w*)*\s*=(?!=)")
"""A list item indented further than the one before it, which YAML takes for the end of that one."""
_FOLDED_HINT = (
    "YAML takes the next line for a part of this one: start all '- ' of a list in the same column"
)
_RESERVED = frozenset(keyword.kwlist) - {"and", "or", "not", "in", "if", "else"}
_ALLOWED = (
    "numbers, text, names, dotted names, x[i], [a, b], calls, + - * / // % **, comparisons, "
    "and/or/not, 'a if test else b', true, false, none"
)


def parse_expression(text: str, location: SourceLocation) -> Expression:
    """Parses one expression.

    Args:
        text: Such as ``scale_depth / sqrt(num_hidden_layers)``.
        location: Where it stands, for messages.

    Raises:
        SpecError: Not an expression, or a form that specs do not have; says the column.
    """
    tree = _python_tree(text, location, mode="eval")
    assert isinstance(tree, ast.Expression)
    return _Reader(text, location).expression(tree.body, 0)


def parse_statement(
    text: str, location: SourceLocation, when: tuple[Expression, ...] = ()
) -> Statement:
    """Parses ``targets = expression``.

    Args:
        text: Such as ``q, k = rope(q, k, table=layer.rope)``.
        location: Where it stands.
        when: Conditions of the enclosing ``when`` mappings.

    Raises:
        SpecError: Not one assignment to plain names, or a form that specs do not have.
    """
    tree = _python_tree(text, location, mode="exec")
    assert isinstance(tree, ast.Module)
    reader = _Reader(text, location)
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Assign):
        raise reader.refuse(
            None, "not a statement", expected="one 'name = op(...)' or 'a, b = op(...)'"
        )
    assignment = tree.body[0]
    if len(assignment.targets) != 1:
        raise reader.refuse(assignment.targets[1], "a statement assigns once")
    targets = reader.targets(assignment.targets[0])
    return Statement(targets, reader.expression(assignment.value, 0), when, location)


def subexpressions(expression: Expression) -> Iterator[Expression]:
    """Yields an expression and every expression inside it, outermost first."""
    yield expression
    for child in children(expression):
        yield from subexpressions(child)


def children(expression: Expression) -> tuple[Expression, ...]:
    """Returns the parts an expression is made of, in order."""
    match expression:
        case Attribute(base=base):
            return (base,)
        case Subscript(base=base, index=index):
            return (base, index)
        case ListDisplay(items=items):
            return items
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Conditional(test=test, then=then, otherwise=otherwise):
            return (test, then, otherwise)
        case Call(arguments=arguments, keywords=keywords):
            return (*arguments, *(value for _, value in keywords))
        case Literal() | Name():
            return ()


def names_in(expression: Expression) -> list[str]:
    """Returns the names an expression reads, in order, each once; functions are not names."""
    found = (part.id for part in subexpressions(expression) if isinstance(part, Name))
    return list(dict.fromkeys(found))


def _python_tree(text: str, location: SourceLocation, *, mode: str) -> ast.AST:
    if len(text) > _MAX_LENGTH:
        raise SpecError(
            "an expression is too long",
            where=location,
            got=f"{len(text)} characters",
            expected=f"at most {_MAX_LENGTH}",
        )
    if not text.isascii() or not text.replace("\n", " ").isprintable():
        raise SpecError(
            "only printable ASCII may stand in an expression",
            where=location,
            got=shorten(ascii(text)),
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode=mode)
    except SyntaxError as error:
        words = [word for word in _WORD.findall(text) if word in _RESERVED]
        raise SpecError(
            f"not an expression, at column {error.offset or 1}: {error.msg}",
            where=location,
            got=shorten(text),
            expected=_ALLOWED,
            hint=f"'{words[0]}' is a reserved word; choose another name"
            if words
            else _FOLDED_HINT
            if _FOLDED.search(text)
            else None,
        ) from None
    except (RecursionError, MemoryError, ValueError):
        raise SpecError(
            "an expression is nested too deeply", where=location, got=shorten(text)
        ) from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the parts of one Python tree into ours."""

    text: str
    location: SourceLocation

    def refuse(
        self, node: ast.AST | None, message: str, *, expected: str | None = _ALLOWED
    ) -> SpecError:
        column = getattr(node, "col_offset", 0) + 1
        return SpecError(
            f"{message}, at column {column}",
            where=self.location,
            got=shorten(self.text.strip()),
            expected=expected,
        )

    def targets(self, node: ast.expr) -> tuple[str, ...]:
        elements = node.elts if isinstance(node, ast.Tuple) else [node]
        names = []
        for element in elements:
            if not isinstance(element, ast.Name):
                raise self.refuse(element, "only plain names may be assigned", expected=None)
            if element.id in _CONSTANTS or element.id in ("True", "False", "None"):
                raise self.refuse(element, f"'{element.id}' is a constant", expected=None)
            if element.id in names:
                raise self.refuse(element, f"'{element.id}' is assigned twice", expected=None)
            names.append(element.id)
        return tuple(names)

    def expression(self, node: ast.expr, depth: int) -> Expression:
        if depth > _MAX_DEPTH:
            raise self.refuse(node, "nested too deeply", expected=f"at most {_MAX_DEPTH} levels")
        below = depth + 1
        match node:
            case ast.Constant(value=value):
                return self._constant(node, value)
            case ast.Name(id=name):
                return Literal(_CONSTANTS[name]) if name in _CONSTANTS else Name(name)
            case ast.Attribute(value=base, attr=attribute):
                return Attribute(self.expression(base, below), self._part(node, attribute))
            case ast.Subscript(value=base, slice=index):
                if isinstance(index, ast.Slice | ast.Tuple):
                    raise self.refuse(index, "only one plain index is allowed")
                return Subscript(self.expression(base, below), self.expression(index, below))
            case ast.List(elts=items):
                return ListDisplay(tuple(self.expression(item, below) for item in items))
            case ast.UnaryOp(op=operator, operand=operand) if type(operator) in _UNARY:
                return Unary(_UNARY[type(operator)], self.expression(operand, below))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
                return Binary(
                    _BINARY[type(operator)],
                    self.expression(left, below),
                    self.expression(right, below),
                )
            case ast.BoolOp(op=operator, values=values):
                return self._chain(_BOOLEAN[type(operator)], values, below)
            case ast.Compare():
                return self._comparison(node, below)
            case ast.IfExp(test=test, body=then, orelse=otherwise):
                return Conditional(
                    self.expression(test, below),
                    self.expression(then, below),
                    self.expression(otherwise, below),
                )
            case ast.Call():
                return self._call(node, below)
        raise self.refuse(node, f"{_describe(node)} is not allowed")

    def _constant(self, node: ast.expr, value: object) -> Literal:
        if isinstance(value, bool) or value is None:
            raise self.refuse(
                node, f"'{value}' is written in lower case", expected=str(value).lower()
            )
        if isinstance(value, str):
            if len(value) > _MAX_STRING:
                raise self.refuse(node, "a text is too long", expected=None)
            return Literal(value)
        if isinstance(value, int) and abs(value) < 2**63:
            return Literal(value)
        if isinstance(value, float) and abs(value) < float("inf"):
            return Literal(value)
        if isinstance(value, int | float):
            raise self.refuse(node, "a number is too large", expected=None)
        raise self.refuse(node, f"{type(value).__name__} is not allowed")

    def _part(self, node: ast.expr, attribute: str) -> str:
        if attribute.startswith("__"):
            raise self.refuse(node, f"the name '{attribute}' is not allowed", expected=None)
        return attribute

    def _chain(self, operator: str, values: list[ast.expr], depth: int) -> Expression:
        result = self.expression(values[0], depth)
        for value in values[1:]:
            result = Binary(operator, result, self.expression(value, depth))
        return result

    def _comparison(self, node: ast.Compare, depth: int) -> Expression:
        if len(node.ops) != 1:
            raise self.refuse(node, "chained comparisons are not allowed", expected="a < b and ...")
        operator = _COMPARE.get(type(node.ops[0]))
        if operator is None:
            raise self.refuse(node, "'is' is not allowed", expected="==")
        left = self.expression(node.left, depth)
        return Binary(operator, left, self.expression(node.comparators[0], depth))

    def _call(self, node: ast.Call, depth: int) -> Call:
        if not isinstance(node.func, ast.Name):
            raise self.refuse(node, "only a plain function name may be called")
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                raise self.refuse(argument, "'*' is not allowed in a call")
        keywords: dict[str, Expression] = {}
        for given in node.keywords:
            if given.arg is None:
                raise self.refuse(given.value, "'**' is not allowed in a call")
            if given.arg in keywords:
                raise self.refuse(given, f"keyword '{given.arg}' is given twice")
            keywords[given.arg] = self.expression(given.value, depth)
        arguments = tuple(self.expression(argument, depth) for argument in node.args)
        return Call(node.func.id, arguments, tuple(keywords.items()))


def _describe(node: ast.AST) -> str:
    described = {
        ast.Lambda: "a lambda",
        ast.Dict: "a mapping",
        ast.Set: "a set",
        ast.Tuple: "a tuple",
        ast.ListComp: "a comprehension",
        ast.SetComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.GeneratorExp: "a comprehension",
        ast.JoinedStr: "a format string",
        ast.NamedExpr: "':='",
        ast.Starred: "'*'",
        ast.Await: "'await'",
        ast.Yield: "'yield'",
        ast.BinOp: f"the operator {type(getattr(node, 'op', None)).__name__}",
        ast.UnaryOp: f"the operator {type(getattr(node, 'op', None)).__name__}",
    }
    return described.get(type(node), type(node).__name__)
