"""A Jinja environment in which a stranger's chat template can do nothing but write bounded text.

Jinja's immutable sandbox keeps a template from Python's internals; it does not keep it from
looping for ever or asking for a string of terabytes. Here every loop, call and operator draws on a
budget of steps and seconds, every string it builds is bounded, and only methods that chat
templates use exist. Within those bounds a template renders as transformers renders it.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
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

__all__ = ["RefusedByTemplate", "make_environment", "render_within_limits"]

MAX_CHARS = 8 << 20
"""Characters of any one string and of the output; several times the longest context served."""
MAX_STEPS = 2_000_000
"""Loop turns, calls and operators of one rendering."""
MAX_SECONDS = 10.0
"""Time of one rendering; real templates take milliseconds."""
_MAX_INTEGER_BITS = 4096
_MAX_PARAMETER = 1000
"""Widths and counts that filters take."""


class RefusedByTemplate(TemplateError):
    """The template itself called ``raise_exception``: it does not accept these messages."""


# ---- budget ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Budget:
    deadline: float
    steps: int = 0

    def charge(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS or time.monotonic() > self.deadline:
            raise SecurityError("the template takes too many steps")


_current: ContextVar[_Budget | None] = ContextVar("chat_template_budget", default=None)


def _charge() -> None:
    if (budget := _current.get()) is not None:
        budget.charge()


def render_within_limits(pieces: Callable[[], Iterable[str]]) -> str:
    """Joins what a template generates, under a fresh budget.

    Raises:
        SecurityError: The template exceeds a limit.
    """
    token = _current.set(_Budget(time.monotonic() + MAX_SECONDS))
    try:
        output, length = [], 0
        for piece in pieces():
            length = _checked_length(length + len(piece))
            output.append(piece)
        return "".join(output)
    finally:
        _current.reset(token)


def _checked_length(length: int) -> int:
    if length > MAX_CHARS:
        raise SecurityError("the template builds a text that is too long")
    return length


def _checked_parameter(value: object) -> None:
    """Refuses a width, count or filling text that could build something huge."""
    too_long = isinstance(value, str) and len(value) > _MAX_PARAMETER
    if too_long or (isinstance(value, int | float) and not abs(value) <= _MAX_PARAMETER):
        raise SecurityError("a filter's parameter is too large")


# ---- filters and globals --------------------------------------------------------------------


def _bounded(iterable: Iterable[Any]) -> Iterator[Any]:
    """Charges the budget for every turn of a loop."""
    for item in iterable:
        _charge()
        yield item


def _concatenated(values: Iterable[Any]) -> str:
    """The ``~`` operator."""
    _charge()
    pieces = [str(value) for value in values]
    _checked_length(sum(map(len, pieces)))
    return "".join(pieces)


def _with_small_parameters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a filter so that all it takes besides its value is small."""

    def filtered(*args: Any, **kwargs: Any) -> Any:
        for parameter in (*args[_num_leading(function) :], *kwargs.values()):
            _checked_parameter(parameter)
        _charge()
        return function(*args, **kwargs)

    # Jinja passes its context or environment first to filters marked so.
    if (mark := getattr(function, "jinja_pass_arg", None)) is not None:
        filtered.jinja_pass_arg = mark  # type: ignore[attr-defined]
    return filtered


def _num_leading(function: Callable[..., Any]) -> int:
    return 1 if getattr(function, "jinja_pass_arg", None) is None else 2


def _replace(value: object, old: str, new: str, count: int | None = None) -> str:
    _charge()
    text = str(value)
    found = text.count(str(old)) if count is None else min(text.count(str(old)), count)
    _checked_length(len(text) + found * max(0, len(str(new)) - len(str(old))))
    return text.replace(str(old), str(new), -1 if count is None else count)


@pass_eval_context
def _join(
    eval_ctx: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    _charge()
    if attribute is not None:
        value = map(make_attrgetter(eval_ctx.environment, attribute), value)
    pieces = [str(item) for item in _bounded(value)]
    _checked_length(sum(map(len, pieces)) + len(d) * len(pieces))
    return str(d).join(pieces)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own, does not escape HTML."""
    _charge()
    for parameter in (indent, *(separators or ())):
        _checked_parameter(parameter)
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    _checked_length(len(text))
    return text


def _raise_exception(message: object) -> None:
    raise RefusedByTemplate(str(message))


def _strftime_now(format: str) -> str:
    _checked_parameter(format)
    return datetime.datetime.now().strftime(format)


class _Dict:
    """``dict(...)`` without the class behind it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


_PLAIN_FILTERS = (
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "reverse", "safe", "select", "selectattr", "sort", "string",
    "striptags", "sum", "title", "trim", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
"""Filters whose result is not much longer than their input."""
_PARAMETER_FILTERS = ("batch", "center", "indent", "round", "slice", "truncate", "wordwrap")
_STRING_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join",
    "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper",
})  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING_METHODS,
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    int: frozenset(),
    float: frozenset({"is_integer"}),
    bytes: frozenset(),
}
"""What a template may call on Python's own values."""
_UNSAFE_FORMAT = re.compile(r"\d{4}|\{[^{}]*\{|%[^a-zA-Z%]*\*")
"""A width of four digits, or one that is itself formatted."""


# ---- environment ----------------------------------------------------------------------------


class _BudgetedNodes(NodeTransformer):
    """Sends loops and the ``~`` operator through filters that charge the budget."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        if node.recursive:
            raise TemplateSyntaxError("recursive loops are not allowed", node.lineno)
        node.iter = _filtered(node.iter, "_bounded")  # type: ignore[arg-type]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concatenated")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for training; here it only passes it on."""

    tags = {"generation"}  # noqa: RUF012 (Jinja reads a class attribute)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _BudgetedNodes().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind) and attr not in methods:
                return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _UNSAFE_FORMAT.search(value.__self__):
            raise SecurityError("a format's width is too large")
        return wrapped

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _charge()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            args = (list(_bounded(args[0])),)
            _checked_length(sum(len(str(item)) + len(owner) for item in args[0]))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _charge()
        if operator == "%" and isinstance(left, str) and _UNSAFE_FORMAT.search(left):
            raise SecurityError("a format's width is too large")
        if operator == "**" and not _is_small_power(left, right):
            raise SecurityError("a power is too large")
        if operator == "*":
            _check_product(left, right)
        if operator == "+" and isinstance(left, str | list | tuple) and hasattr(right, "__len__"):
            _checked_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


def _is_small_power(left: Any, right: Any) -> bool:
    bits = abs(left).bit_length() if isinstance(left, int) else 64
    return isinstance(right, int | float) and bits * abs(right) <= _MAX_INTEGER_BITS


def _check_product(left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            _checked_length(len(sequence) * times)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if bits > _MAX_INTEGER_BITS:
            raise SecurityError("a product is too large")


class _Namespace(Namespace):
    """A namespace whose names cannot reach Python's internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError("a namespace's names do not start with an underscore")
        super().__setitem__(name, value)


def make_environment() -> ImmutableSandboxedEnvironment:
    """Returns an environment with transformers' settings and our limits."""
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # nothing of a template is evaluated while it is compiled
        extensions=[_Generation, loopcontrols],
    )
    filters: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _PLAIN_FILTERS}
    filters |= {name: _with_small_parameters(FILTERS[name]) for name in _PARAMETER_FILTERS}
    filters |= {
        "_bounded": _bounded,
        "_concatenated": _concatenated,
        "join": _join,
        "replace": _replace,
        "tojson": _tojson,
    }
    environment.filters = filters
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    environment.globals |= {
        "dict": _Dict(),
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment
