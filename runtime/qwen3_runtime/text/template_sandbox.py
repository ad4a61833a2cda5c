"""A Jinja environment in which a stranger's chat template can do nothing but write bounded text.

On top of Jinja's immutable sandbox, loops, calls, operators, filters and literals go through
``template_limits``, and only methods that chat templates use exist. Within those bounds a template
renders as transformers renders it.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_eval_context
from jinja2.visitor import NodeTransformer

from qwen3_runtime.text.template_limits import (
    checked_result,
    pay_for_text,
    require_small,
    spend,
    text_size,
    turns,
)

__all__ = ["RefusedByTemplate", "make_environment"]

_MAX_INTEGER_BITS = 4096


class RefusedByTemplate(TemplateError):
    """The template itself called ``raise_exception``: it does not accept these messages."""


# ---- filters and globals --------------------------------------------------------------------

_PLAIN_FILTERS = (
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "reverse", "safe", "select", "selectattr", "sort", "string",
    "striptags", "title", "trim", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
"""Filters that make a value at most a few times longer, which is measured afterwards."""
_PARAMETER_FILTERS = ("batch", "center", "round", "slice", "truncate")
"""Filters whose result grows with a parameter."""


def _metered(function: Callable[..., Any], *, small_parameters: bool = False) -> Callable[..., Any]:
    # Jinja passes its context or environment before the value to filters marked so.
    num_leading = 1 if getattr(function, "jinja_pass_arg", None) is None else 2

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        spend()
        if small_parameters:
            require_small(*args[num_leading:], *kwargs.values())
        return checked_result(function(*args, **kwargs))

    return filtered


def _concatenated(values: Iterable[Any]) -> str:
    """Joins pieces of text: the ``~`` operator, and what blocks and macros return."""
    spend()
    texts = [_text(value) for value in values]
    pay_for_text(sum(map(len, texts)))
    return "".join(texts)


def _text(value: object) -> str:
    text_size(value)
    return str(value)


def _replace(value: object, old: object, new: object, count: int | None = None) -> str:
    text, old, new = _text(value), _text(old), _text(new)
    found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
    pay_for_text(len(text) + found * max(0, len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


@pass_eval_context
def _join(
    eval_ctx: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(eval_ctx.environment, attribute), value)
    texts = [_text(item) for item in turns(value)]
    pay_for_text(sum(map(len, texts)) + len(d) * len(texts))
    return str(d).join(texts)


def _indent(s: object, width: int | str = 4, first: bool = False, blank: bool = False) -> Any:
    require_small(width)
    text = _text(s)
    size = len(width) if isinstance(width, str) else abs(width)
    pay_for_text(len(text) + size * (text.count("\n") + 1))
    return FILTERS["indent"](text, width, first, blank)


@pass_eval_context
def _sum(
    eval_ctx: EvalContext,
    iterable: Iterable[Any],
    attribute: str | int | None = None,
    start: float = 0,
) -> Any:
    if attribute is not None:
        iterable = map(make_attrgetter(eval_ctx.environment, attribute), iterable)
    numbers = list(turns(iterable))
    if not all(isinstance(number, int | float) for number in (start, *numbers)):
        raise SecurityError("only numbers are summed")
    return sum(numbers, start)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own, does not escape HTML."""
    text_size(value)
    require_small(indent, *(separators or ()))
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return _concatenated(turns(encoder.iterencode(value)))


def _raise_exception(message: object) -> None:
    raise RefusedByTemplate(str(message))


def _strftime_now(format: str) -> str:
    require_small(format)
    return datetime.datetime.now().strftime(format)


class _Dict:
    """``dict(...)`` without the class behind it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace whose names cannot reach Python's internals, and which is not written out."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError("a namespace's names do not start with an underscore")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


# ---- syntax ---------------------------------------------------------------------------------


class _MeteredNodes(NodeTransformer):
    """Sends what builds values without a call through filters that measure it."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not allowed", node.lineno)
        node.iter = _filtered(node.iter, "_turns")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concatenated")

    def visit_List(self, node: nodes.List) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(node, "_checked")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(node, "_checked")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, "_checked") if node.ctx == "load" else node

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        is_collected = node.ctx == "load" and node.name in ("varargs", "kwargs")
        return _filtered(node, "_checked") if is_collected else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(node, "_checked") if isinstance(node.arg, nodes.Slice) else node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for training; here it only passes it on."""

    tags = {"generation"}  # noqa: RUF012 (Jinja reads a class attribute)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# ---- environment ----------------------------------------------------------------------------

_STRING_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join",
    "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper",
})  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING_METHODS,
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    int: frozenset(),
    float: frozenset({"is_integer"}),
    bytes: frozenset(),
}
"""What a template may call on Python's own values."""
_UNSAFE_FORMAT = re.compile(r"\d{4}|\{[^{}]*\{|%[^a-zA-Z%]*\*")
"""A width of four digits, or one that is itself formatted."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _MeteredNodes().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind) and attr not in methods:
                return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        pattern: str = value.__self__

        def formatted(*args: Any, **kwargs: Any) -> str:
            _check_format(pattern, pattern.count("{"), [*args, *kwargs.values()])
            return wrapped(*args, **kwargs)

        return formatted

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        spend()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args)
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            args = (list(turns(args[0])),)
            pay_for_text(sum(text_size(item) + len(owner) for item in args[0]))
        return checked_result(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        spend()
        if operator == "%" and isinstance(left, str):
            _check_format(left, left.count("%"), right if isinstance(right, tuple) else [right])
        elif operator == "**":
            _check_power(left, right)
        elif operator == "*":
            _check_product(left, right)
        return checked_result(super().call_binop(context, operator, left, right))


def _check_format(pattern: str, num_fields: int, values: Iterable[Any]) -> None:
    if _UNSAFE_FORMAT.search(pattern):
        raise SecurityError("a format's width is too large")
    pay_for_text(len(pattern) + num_fields * max((text_size(value) for value in values), default=0))


def _check_power(left: Any, right: Any) -> None:
    bits = abs(left).bit_length() if isinstance(left, int) else 64
    if not isinstance(right, int | float) or bits * abs(right) > _MAX_INTEGER_BITS:
        raise SecurityError("a power is too large")


def _check_product(left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            pay_for_text(len(sequence) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if bits > _MAX_INTEGER_BITS:
            raise SecurityError("a product is too large")


def _checked_output(value: Any) -> Any:
    """Measures what ``{{ }}`` writes before it is written."""
    if not isinstance(value, str):
        text_size(value)
    return value


def make_environment() -> ImmutableSandboxedEnvironment:
    """Returns an environment with transformers' settings and our limits."""
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # a template is not evaluated while it is compiled
        finalize=_checked_output,
        extensions=[_Generation, loopcontrols],
    )
    environment.concat = _concatenated  # type: ignore[method-assign]
    filters = {name: _metered(FILTERS[name]) for name in _PLAIN_FILTERS}
    filters |= {name: _metered(FILTERS[name], small_parameters=True) for name in _PARAMETER_FILTERS}
    own: dict[str, Callable[..., Any]]
    own = {"indent": _indent, "join": _join, "replace": _replace, "sum": _sum, "tojson": _tojson}
    filters |= {name: _metered(function) for name, function in own.items()}
    internal = {"_checked": checked_result, "_concatenated": _concatenated, "_turns": turns}
    environment.filters = {**filters, **internal}
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    environment.globals |= {
        "dict": _Dict(),
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment
