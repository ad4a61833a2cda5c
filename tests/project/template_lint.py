"""The template rule as a check: a template prints, it never decides.

Allowed are names and attributes, string literals (for braces C++ and Jinja both claim), the
filters ``indent`` and ``join``, ``for`` over a name or attribute, and ``if`` on a bare one.
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError

ALLOWED_FILTERS = {"indent", "join"}


def lint_template(source: str) -> list[str]:
    """Returns what is wrong with a template, each with its line; nothing if all is well."""
    try:
        tree = Environment().parse(source)
    except TemplateSyntaxError as error:
        return [f"line {error.lineno}: {error.message}"]
    first = source.split("\n", 1)[0]
    problems = []
    if not (first.startswith("{# ") and first.endswith(" #}")):
        problems.append("line 1: not a comment naming the view and the file it becomes")
    return problems + [f"line {line}: {what}" for line, what in _problems(tree.body)]


def _problems(body: list[nodes.Node]) -> Iterator[tuple[int, str]]:
    for node in body:
        if isinstance(node, nodes.Output):
            for part in node.nodes:
                yield from _output_problems(part)
        elif isinstance(node, nodes.For):
            yield from _for_problems(node)
        elif isinstance(node, nodes.If):
            yield from _if_problems(node)
        else:
            yield node.lineno, f"{type(node).__name__} is not allowed"


def _output_problems(node: nodes.Node) -> Iterator[tuple[int, str]]:
    if isinstance(node, nodes.TemplateData) or _is_value(node) or _is_string(node):
        return
    if isinstance(node, nodes.Filter) and node.node is not None:
        if node.name not in ALLOWED_FILTERS:
            yield node.lineno, f"filter {node.name} is not allowed"
        arguments = [*node.args, *(keyword.value for keyword in node.kwargs)]
        if not all(isinstance(argument, nodes.Const) for argument in arguments):
            yield node.lineno, f"filter {node.name} takes literals only"
        yield from _output_problems(node.node)
        return
    yield node.lineno, f"output of {type(node).__name__} is not allowed"


def _for_problems(node: nodes.For) -> Iterator[tuple[int, str]]:
    if not _is_value(node.iter):
        yield node.lineno, "for goes over a name or attribute"
    if not isinstance(node.target, nodes.Name):
        yield node.lineno, "for has one name"
    if node.test is not None or node.recursive or node.else_:
        yield node.lineno, "for has no if, else or recursion"
    yield from _problems(node.body)


def _if_problems(node: nodes.If) -> Iterator[tuple[int, str]]:
    if not _is_value(node.test):
        yield node.lineno, "if asks a bare name or attribute"
    if node.elif_:
        yield node.lineno, "elif is not allowed"
    yield from _problems(node.body)
    yield from _problems(node.else_)


def _is_value(node: nodes.Node) -> bool:
    while isinstance(node, nodes.Getattr):
        node = node.node
    return isinstance(node, nodes.Name) and node.name != "loop"


def _is_string(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, str)
