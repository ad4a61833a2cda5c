"""Pieces of chat templates by Jinja's grammar, most of which parse and some of which run.

Edits of single characters break a delimiter, and what comes of it is one refusal: that it does not
parse. What a template may do wrong while it runs is only reached by templates that are whole.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tests.fuzz.mutation import Mutator

__all__ = ["random_template", "template_mutation"]

_DEEPEST = 4
_LONGEST = 1 << 14
_NAMES = [
    "messages", "tools", "add_generation_prompt", "bos_token", "m", "x", "ns", "loop", "caller",
    "namespace", "range", "dict", "cycler", "joiner", "lipsum", "raise_exception", "strftime_now",
    "self", "super", "varargs", "kwargs", "true", "none", "nothing", "documents",
]  # fmt: skip
_LITERALS = [
    "0", "1", "-1", "2.5", "1e308", "10 ** 10", "2 ** 99999", "9" * 40, "''", "'a'", "'%s'", "'{}'",
    "'{0.__class__}'", "'%99999999d'", "'a' * 10 ** 9", "[]", "[1, 'a', none]", "[[]] * 10 ** 8",
    "{}", "{'a': 1}", "(1, 2)", "range(3)", "range(10 ** 9)", "range(0, 10 ** 18, 7)", "1_000",
    "'\\x00'", "'\\ud800'", "none", "true", "1 if x", "messages", "messages[0]", "tools",
]  # fmt: skip
_ATTRIBUTES = [
    "content", "role", "items()", "keys()", "get('a')", "upper()", "split('a')", "strip()", "x",
    "format(1)", "replace('a', 'b' * 1000)", "join(messages)", "append(1)", "pop()", "update(a=1)",
    "__class__", "__init__.__globals__", "_private", "mro()", "gi_frame", "encode()", "sort()",
    "center(10 ** 9)", "zfill(10 ** 9)", "count('a')", "first", "index", "index0", "last", "depth",
    "changed(1)", "cycle(1, 2)", "previtem", "nextitem", "function.name", "tool_calls[0]",
]  # fmt: skip
_FILTERS = [
    "upper", "trim", "length", "list", "first", "last", "sum", "sort", "reverse", "unique", "items",
    "join(',')", "join", "tojson", "tojson(indent=10 ** 6)", "string", "int", "float", "abs", "e",
    "safe", "batch(2)", "batch(0)", "slice(0)", "round(400)", "map('upper')", "attr('__class__')",
    "map(attribute='role')", "map(attribute='a.b.c')", "selectattr('role')", "reject('odd')",
    "selectattr('role', 'equalto', 'user')", "groupby('role')", "dictsort", "default(1)", "random",
    "indent(10 ** 6)", "center(10 ** 8)", "wordwrap(0)", "truncate(-1)", "replace('a', 'aa')",
    "format(1)", "xmlattr", "urlize", "filesizeformat", "pprint", "striptags", "no_such_filter",
    "min", "max", "capitalize", "wordcount", "forceescape", "escape", "map", "map()", "select",
]  # fmt: skip
_TESTS = [
    "defined", "none", "string", "mapping", "iterable", "sequence", "odd", "even", "number",
    "divisibleby(0)", "divisibleby 3", "sameas none", "in [1]", "in 5", "eq 1", "lt 'a'", "true",
    "callable", "filter", "no_such_test", "upper", "boolean", "undefined",
]  # fmt: skip
_OPERATORS = [
    "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in",
    ".", "is", "if", "|",
]  # fmt: skip
_BROKEN = [
    "{{", "}}", "{%", "%}", "{#", "#}", "{%- if", "-%}", "{{ }}", "{% %}", "{% endfor %}",
    "{% endif %}", "{% else %}", "{% elif x %}", "{% raw %}", "{% endraw %}", "{% block x %}",
    "{% extends 'x' %}", "{% include 'x' %}", "{% import 'x' as x %}", "{% from 'x' import x %}",
    "{% do x.append(1) %}", "{% break %}", "{% continue %}", "{% generation %}", "{% debug %}",
    "{% trans %}a{% endtrans %}", "{% autoescape true %}{{ x }}{% endautoescape %}", "{{ x", "'",
    "{% set %}", "{% set x %}", "{% for %}", "{% for x %}", "{% macro %}", "{% call %}",
    "{{ 1 1 }}", "{% with %}", "{% filter %}", "{{ (1 }}", "{{ [1) }}", "{{ {1: } }}",
    "{{ f(a=1, 2) }}",
    "{{ f(**1, *2) }}", "{% set 1 = 2 %}", "{% set none = 2 %}", "{% set x.y = 2 %}", "{{ 0x }}",
]  # fmt: skip
_DELIMITED = re.compile(rb"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


def random_template(rng: random.Random) -> str:
    """Returns one to five statements, one in ten of them broken."""
    return "".join(_statement(rng, 0) for _ in range(rng.randint(1, 5)))


def template_mutation(mutator: Mutator) -> Callable[[bytes, random.Random], bytes]:
    """Returns edits: whole templates, pieces put in, blocks put around, expressions replaced."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        action = rng.random()
        if action < 0.1:
            return mutator.text(data, rng)
        if action < 0.4:
            return random_template(rng).encode("utf-8", "replace")
        for _ in range(rng.choice([1, 1, 2, 3])):
            data = rng.choice((_inserted, _replaced, _replaced, _wrapped))(data, rng)
        return data[:_LONGEST]

    return mutate


def _inserted(data: bytes, rng: random.Random) -> bytes:
    """A statement between two others."""
    borders = [0, len(data), *(match.end() for match in _DELIMITED.finditer(data))]
    at = rng.choice(borders)
    return data[:at] + _statement(rng, 1).encode("utf-8", "replace") + data[at:]


def _replaced(data: bytes, rng: random.Random) -> bytes:
    """Another statement or expression in the place of one."""
    found = list(_DELIMITED.finditer(data))
    if not found:
        return data + random_template(rng).encode("utf-8", "replace")
    match = rng.choice(found)
    text = f"{{{{ {_expression(rng, 0)} }}}}" if rng.random() < 0.7 else _statement(rng, 1)
    return data[: match.start()] + text.encode("utf-8", "replace") + data[match.end() :]


def _wrapped(data: bytes, rng: random.Random) -> bytes:
    """The whole of it inside blocks, now and then hundreds of them, or in a macro that recurs.

    Loops are rarely nested often: a template that uses up its budget takes seconds.
    """
    is_deep = rng.random() < 0.001
    loops, times = [1, 1, 2, *([20] if is_deep else [])], [1, 1, 1, 2, 20, 300]
    opening, closing, chosen = rng.choice(
        [
            ("{% if true %}", "{% endif %}", times),
            ("{% for m in messages %}", "{% endfor %}", loops),
            ("{% for x in range(1000) %}", "{% endfor %}", loops[:2] + loops[3:]),
            ("{% set x %}", "{% endset %}{{ x }}", times),
            ("{% filter upper %}", "{% endfilter %}", times),
            ("{% with x = 1 %}", "{% endwith %}", times),
            ("{% macro f() %}", "{{ f() }}{% endmacro %}{{ f() }}", loops),
            ("{% for x in [[[]]] recursive %}{{ loop(x) }}", "{% endfor %}", loops),
            ("{{ " + "(" * 50, ")" * 50 + " }}", [1]),
        ]
    )
    repeated = rng.choice(chosen)
    return opening.encode() * repeated + data + closing.encode() * repeated


def _statement(rng: random.Random, depth: int) -> str:
    if rng.random() < 0.1:
        return rng.choice(_BROKEN)
    expression = _expression(rng, depth)
    if depth >= _DEEPEST or rng.random() < 0.5:
        return rng.choice(["{{ %s }}", "{{- %s -}}", "{% set x = %s %}", "a\n{{ %s }}"]).replace(
            "%s", expression
        )
    body, name = _statement(rng, depth + 1), rng.choice(["x", "m", "ns", "f"])
    return rng.choice(
        [
            f"{{% for {name} in {expression} %}}{body}{{% else %}}{{{{ x }}}}{{% endfor %}}",
            f"{{% for {name} in messages if {expression} %}}{body}{{% endfor %}}",
            f"{{% for {name} in messages %}}{{{{ loop.index }}}}{body}{{% endfor %}}",
            f"{{% for a, b in {expression} %}}{body}{{% endfor %}}",
            f"{{% if {expression} %}}{body}{{% elif x %}}b{{% endif %}}",
            f"{{% set ns = namespace(x={expression}) %}}{{% set ns.x = ns.x + 1 %}}{body}",
            f"{{% set {name} %}}{body}{{% endset %}}",
            f"{{% macro f(x, y={expression}) %}}{body}{{{{ caller() if x }}}}{{% endmacro %}}"
            f"{{{{ f({expression}) }}}}",
            f"{{% macro f(x) %}}{{{{ f(x) }}}}{body}{{% endmacro %}}{{{{ f(1) }}}}",
            f"{{% call f({expression}) %}}{body}{{% endcall %}}",
            f"{{% filter {rng.choice(_FILTERS)} %}}{body}{{% endfilter %}}",
            f"{{% with m = {expression} %}}{body}{{% endwith %}}",
            f"{{% raw %}}{body}{{% endraw %}}",
            f"{{% block {name} %}}{body}{{% endblock %}}",
            f"{{{{ raise_exception({expression}) }}}}",
            f"{{# {body} #}}",
        ]
    )


def _expression(rng: random.Random, depth: int) -> str:
    if depth >= _DEEPEST or rng.random() < 0.25:
        return rng.choice([*_LITERALS, *_NAMES])
    inner, other = _expression(rng, depth + 1), _expression(rng, depth + 1)
    return rng.choice(
        [
            f"{inner} | {rng.choice(_FILTERS)}",
            f"({inner}) | {rng.choice(_FILTERS)} | {rng.choice(_FILTERS)}",
            f"{inner} is {rng.choice(_TESTS)}",
            f"({inner}).{rng.choice(_ATTRIBUTES)}",
            f"{rng.choice(_NAMES)}.{rng.choice(_ATTRIBUTES)}",
            f"{rng.choice(_NAMES)}({inner})",
            f"({inner})[{other}]",
            f"({inner})[{other}:]",
            f"({inner}) {rng.choice(_OPERATORS)} ({other})",
            f"{inner} if {other} else {inner}",
            f"[{inner}, {other}]",
            f"{{{inner}: {other}}}",
            f"not {inner}",
            f"-({inner})",
        ]
    )
