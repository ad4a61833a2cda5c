from __future__ import annotations

import sys
from typing import Any

import pytest

from qwen3_codegen.spec.evaluation import evaluate, to_text
from qwen3_codegen.spec.expressions import names_in, parse_expression, parse_statement
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Attribute, Call, Literal, Name, Statement, Subscript, Unary
from tests.spec.descriptions import error_of

HERE = SourceLocation("a.yaml", 7)
NAMES: dict[str, Any] = {
    "n": 12,
    "x": 2.5,
    "flag": True,
    "text": "full",
    "nothing": None,
    "sizes": (3, 1, 2),
    "layer": {"window": 4, "rope": None},
}


def value_of(text: str) -> Any:
    return evaluate(parse_expression(text, HERE), NAMES, location=HERE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n // 5 + n % 5", 4),
        ("1 / sqrt(n + 4)", 0.25),
        ("-n ** 2", -144),
        ("2 ** 0.5 * 0 + 1", 1.0),
        ("round_up(n + 1, 8)", 16),
        ("divide(n, 4)", 3),
        ("min(n, x) + max(1, 2)", 4.5),
        ("len(sizes) - sizes[0]", 0),
        ("'a' if flag and n > 3 else 'b'", "a"),
        ("not flag or nothing == none", True),
        ("nothing != none", False),
        ("text == 'full'", True),
        ("n in [1, 12]", True),
        ("2 not in sizes", False),
        ("flag == 1", False),
        ("1 in [true]", False),
        ("layer.window * 2", 8),
        ("layer.rope == none", True),
        ("[n, [x]]", (12, (2.5,))),
        ("1e-6", 1e-6),
        ("round_to(sqrt(3), 'bfloat16')", 1.734375),
        ("round_to(0.1, 'float32')", 0.10000000149011612),
        ("false if n > 3 and n < 5 else true", True),
    ],
)
def test_values(text: str, value: object) -> None:
    result = value_of(text)
    assert result == value
    assert type(result) is type(value)


def test_only_the_branch_taken_is_computed() -> None:
    assert value_of("n if flag else n / 0") == 12
    assert value_of("flag or unknown") is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hiden", "a.yaml:7: unknown name 'hiden'"),
        (
            "layer.windov",
            "a.yaml:7: unknown name 'windov' in layer.windov\n  hint:     did you mean ",
        ),
        ("n / 0", "a.yaml:7: 'n / 0' divides by zero"),
        ("n % 0", "a.yaml:7: 'n % 0' divides by zero"),
        ("10 ** 60", "a.yaml:7: '10 ** 60' is out of bounds"),
        ("10 ** 10 ** 10", "a.yaml:7: '10 ** (10 ** 10)' is out of bounds"),
        ("1e300 * 1e300", "a.yaml:7: '1e+300 * 1e+300' is out of bounds"),
        ("(0 - 1) ** 0.5", "a.yaml:7: '(0 - 1) ** 0.5' is out of bounds"),
        ("sqrt(0 - 1)", "a.yaml:7: square root of a negative number\n  got:      -1"),
        ("n + text", "a.yaml:7: 'text' must be a number\n  got:      the text 'full'"),
        ("n + flag", "a.yaml:7: 'flag' must be a number\n  got:      the boolean true"),
        ("n if n else 1", "a.yaml:7: 'n' is a condition but not a boolean\n  got:      the number"),
        ("not nothing", "a.yaml:7: 'nothing' is a condition but not a boolean"),
        (
            "sizes[3]",
            "a.yaml:7: sizes[3] reads an element that does not exist\n  got:      index 3",
        ),
        ("sizes[0 - 1]", "a.yaml:7: sizes[0 - 1] reads an element that does not exist"),
        ("n[0]", "a.yaml:7: the number 12 has no elements"),
        ("n.x", "a.yaml:7: the number 12 has no 'x'"),
        ("n in 3", "a.yaml:7: '3' must be a list\n  got:      the number 3"),
        ("len(n)", "a.yaml:7: 'len' is of a list\n  got:      the number 12"),
        ("sqr(n)", "a.yaml:7: unknown function 'sqr'\n  expected: sqrt, min, max, divide, "),
        ("sqrt(n, n)", "a.yaml:7: 'sqrt' takes 1 plain argument(s)"),
        ("divide(n, 5)", "a.yaml:7: '5' does not divide 'n'\n  got:      5 and 12"),
        ("divide(n, 0)", "a.yaml:7: '0' does not divide 'n'"),
        ("divide(x, 1)", "a.yaml:7: '1' does not divide 'x'"),
        ("round_up(x, 2)", "a.yaml:7: 'round_up' takes whole numbers"),
        ("round_up(n, 0)", "a.yaml:7: 'round_up' takes whole numbers"),
        ("round_to(n, 'int8')", "a.yaml:7: 'round_to' takes a number and a dtype"),
        ("round_to(n, layer)", "a.yaml:7: 'round_to' takes a number and a dtype"),
        ("round_to(1e300, 'float16')", "a.yaml:7: 'round_to(1e+300, 'float16')' is out of bounds"),
    ],
)
def test_faulty_values_say_what_and_where(text: str, message: str) -> None:
    assert error_of(value_of, text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lambda: 1", "a lambda is not allowed, at column 1"),
        ("1 + (y := 2)", "':=' is not allowed, at column 6"),
        ("[y for y in z]", "a comprehension is not allowed, at column 1"),
        ("{1: 2}", "a mapping is not allowed, at column 1"),
        ("{1}", "a set is not allowed, at column 1"),
        ("(1, 2)", "a tuple is not allowed, at column 1"),
        ("f'{x}'", "a format string is not allowed, at column 1"),
        ("x @ y", "the operator MatMult is not allowed, at column 1"),
        ("1 + (x & y)", "the operator BitAnd is not allowed, at column 6"),
        ("~x", "the operator Invert is not allowed, at column 1"),
        ("x is none", "'is' is not allowed, at column 1"),
        ("1 < x < 3", "chained comparisons are not allowed, at column 1"),
        ("x[1:2]", "only one plain index is allowed, at column 3"),
        ("x.f()", "only a plain function name may be called, at column 1"),
        ("f(*x)", "'*' is not allowed in a call, at column 3"),
        ("f(**x)", "'**' is not allowed in a call, at column 5"),
        ("True", "'True' is written in lower case, at column 1"),
        ("x == None", "'None' is written in lower case, at column 6"),
        ("1j", "complex is not allowed, at column 1"),
        ("b'x'", "bytes is not allowed, at column 1"),
        ("...", "ellipsis is not allowed, at column 1"),
        ("x.__class__", "the name '__class__' is not allowed, at column 1"),
        ("9" * 40, "a number is too large, at column 1"),
        ("1e999", "a number is too large, at column 1"),
        ("1 +", "not an expression, at column "),
        ("x y", "not an expression, at column "),
        ("global", "not an expression, at column "),
    ],
)
def test_other_forms_of_python_are_refused(text: str, message: str) -> None:
    assert error_of(parse_expression, text, HERE).startswith(f"a.yaml:7: {message}")


def test_a_refused_form_names_what_is_allowed() -> None:
    message = error_of(parse_expression, "x | y", HERE)
    assert message.splitlines()[1:] == [
        "  got:      x | y",
        "  expected: numbers, text, names, dotted names, x[i], [a, b], calls, "
        "+ - * / // % **, comparisons, and/or/not, 'a if test else b', true, false, none",
    ]


def test_a_reserved_word_is_named() -> None:
    assert "hint:     'global' is a reserved word" in error_of(parse_expression, "global", HERE)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 900 + "1" + ")" * 900,
        "-" * 1900 + "1",
        "not " * 450 + "true",
        "[" * 900,
        "1" + "+1" * 900,
        "x" + ".y" * 900,
        "f(" * 600 + ")" * 600,
        "9" * 2000,
    ],
)
def test_huge_expressions_end_in_an_error(text: str) -> None:
    limit = sys.getrecursionlimit()
    message = error_of(parse_expression, text, HERE)
    assert message.startswith("a.yaml:7: ")
    assert len(message) < 600
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize("text", ["x\x00", "é", "x\u2028y", "x\x1b[31m"])
def test_only_printable_ascii_is_read(text: str) -> None:
    message = error_of(parse_expression, text, HERE)
    assert message.startswith("a.yaml:7: only printable ASCII may stand in an expression")
    assert message.isascii()


def test_too_long_text_is_refused() -> None:
    message = error_of(parse_expression, "x" * 2001, HERE)
    assert message == (
        "a.yaml:7: an expression is too long\n  got:      2001 characters\n  expected: at most 2000"
    )


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "open('/etc/passwd')"])
def test_nothing_is_run(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was run")

    monkeypatch.setattr("os.system", forbidden)
    monkeypatch.setattr("builtins.open", forbidden)
    assert error_of(value_of, text).startswith("a.yaml:7: ")


def test_a_statement_keeps_its_parts() -> None:
    when = (Name("flag"),)
    statement = parse_statement("q, k = rope(q, k, table=layer.rope)", HERE, when)
    call = Call("rope", (Name("q"), Name("k")), (("table", Attribute(Name("layer"), "rope")),))
    assert statement == Statement(("q", "k"), call, when, HERE)
    assert call.keyword("table") == Attribute(Name("layer"), "rope")
    assert call.keyword("scale") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rope(q)", "not a statement, at column 1"),
        ("import os", "not a statement, at column 1"),
        ("q = 1; k = 2", "not a statement, at column 1"),
        ("q += 1", "not a statement, at column 1"),
        ("q: int = 1", "not a statement, at column 1"),
        ("q = k = 1", "a statement assigns once, at column 5"),
        ("q.x = 1", "only plain names may be assigned, at column 1"),
        ("q, k[0] = f(x)", "only plain names may be assigned, at column 4"),
        ("q, q = f(x)", "'q' is assigned twice, at column 4"),
        ("none = f(x)", "'none' is a constant, at column 1"),
        ("q = f(x, a=1, a=2)", "keyword 'a' is given twice, at column 15"),
    ],
)
def test_other_statements_are_refused(text: str, message: str) -> None:
    assert error_of(parse_statement, text, HERE).startswith(f"a.yaml:7: {message}")


def test_a_statement_that_swallowed_the_next_has_a_hint() -> None:
    """What YAML makes of a list item that is indented further than the one before it."""
    folded = "v = linear(h, out=[n, 16], bias=b) - q, k = rope(q, k)"
    hint = "start all '- ' of a list in the same column"
    assert hint in error_of(parse_statement, folded, HERE)
    assert hint not in error_of(parse_statement, "v = f(h - q) w = g(h)", HERE)


@pytest.mark.parametrize(
    "text",
    [
        "a + b * c",
        "(a + b) * c",
        "a if not b else c.d[e]",
        "f(x, [1, 'two'], key=none) ** -2",
        "a and b or not c",
        "true == (a in b)",
    ],
)
def test_text_of_an_expression_parses_to_the_same(text: str) -> None:
    expression = parse_expression(text, HERE)
    assert parse_expression(to_text(expression), HERE) == expression


def test_names_are_listed_once_in_order() -> None:
    expression = parse_expression("a.b[c] + f(d, k=a) - not_ if e else 1", HERE)
    assert names_in(expression) == ["e", "a", "c", "d", "not_"]


def test_tree_of_paths_and_constants() -> None:
    expression = parse_expression("mlp.experts[expert].up", HERE)
    experts = Attribute(Name("mlp"), "experts")
    assert expression == Attribute(Subscript(experts, Name("expert")), "up")
    assert parse_expression("-none", HERE) == Unary("-", Literal(None))
