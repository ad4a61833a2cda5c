"""Every template keeps the rule, and the lint itself sees each way of breaking it."""

from __future__ import annotations

import pytest

from tests.project.source_tree import ROOT
from tests.project.template_lint import lint_template

TEMPLATES = sorted((ROOT / "templates").rglob("*.jinja"))
HEADER = "{# View -> file #}\n"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_template_only_prints(path):
    assert lint_template(path.read_text(encoding="utf-8")) == []


def test_there_are_templates():
    assert TEMPLATES


def test_everything_allowed_passes():
    source = """\
    {% for layer in plan.layers %}
    {% if layer.is_last %}
    {{ "{" }}{{ layer.name }}{{ layer.code | indent(4) }}{{ layer.args | join(", ") }}
    {% else %}
    plain
    {% endif %}
    {% endfor %}
    """
    assert lint_template(HEADER + source) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% set a = b %}", "Assign"),
        ("{% macro f() %}{% endmacro %}", "Macro"),
        ("{% include 'x' %}", "Include"),
        ("{% import 'x' as y %}", "Import"),
        ("{% extends 'x' %}", "Extends"),
        ("{% block x %}{% endblock %}", "Block"),
        ("{% if a == b %}{% endif %}", "bare name"),
        ("{% if not a %}{% endif %}", "bare name"),
        ("{% if a is defined %}{% endif %}", "bare name"),
        ("{% if a %}{% elif b %}{% endif %}", "elif"),
        ("{% if a %}{{ b + 1 }}{% endif %}", "Add"),
        ("{% if a %}{% else %}{{ b ~ c }}{% endif %}", "Concat"),
        ("{% for a in b if c %}{% endfor %}", "no if"),
        ("{% for a, b in c %}{% endfor %}", "one name"),
        ("{% for a in b.items() %}{% endfor %}", "goes over"),
        ("{% for a in b %}{{ loop.index }}{% endfor %}", "Getattr"),
        ("{% for a in b %}{% if loop.last %}{% endif %}{% endfor %}", "bare name"),
        ("{{ a if b else c }}", "CondExpr"),
        ("{{ a() }}", "Call"),
        ("{{ a[0] }}", "Getitem"),
        ("{{ a | upper }}", "filter upper"),
        ("{{ a | indent(b) }}", "literals"),
        ("{{ a + b | join }}", "Add"),
        ("{{ 1 }}", "Const"),
        ("{% for a in b %}", "Unexpected end"),
    ],
)
def test_everything_else_is_found(source, problem):
    problems = lint_template(HEADER + source)
    assert len(problems) == 1
    assert problem in problems[0]
    assert problems[0].startswith("line 2: ")


@pytest.mark.parametrize("first", ["", "int a;", "{# unfinished", "{{ a }} {# b #}"])
def test_first_line_is_a_comment(first):
    problems = lint_template(f"{first}\nint main();\n")
    assert problems
    assert problems[0].startswith("line 1: ") or "comment" in problems[0]
