"""Text enters C++ only as identifiers, literals and comments that cannot be anything else."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_codegen.emission.cpp import (
    WIDTH,
    CppIdentifier,
    call_arguments,
    comment_lines,
    cpp_braced,
    cpp_comment,
    cpp_float,
    cpp_string,
    initializer,
    local_name,
    member_name,
    pascal_case,
    snake_case,
    tensor_expression,
    wrapped,
)
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.plan.records import Origin, TensorRef

HOSTILE = [
    'quote " end',
    "back\\slash",
    "trailing\\",
    "??/ ??= ???/ ????",
    "line\nbreak\r\n\ttab",
    "*/ int x; /*",
    "// comment",
    "nul\0 bell\a escape\x1b del\x7f",
    "caf\u00e9 \u6a21\u578b \U0001f600",
    "bidi \u202e override \u2028 line",
    "%s %n \\u0022 \\x41 \\101 12",
    '";system("rm -rf /");"',
    "${{ jinja }} {% raw %}",
    "#include <x>",
    "",
]


# ---- identifiers ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "qkv_proj", "kDtype", "x1", "A_b_C"])
def test_identifiers_pass(name):
    assert CppIdentifier(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "_a",
        "a b",
        "a-b",
        "a.b",
        "a;",
        "a__b",
        "int",
        "not",
        "caf\u00e9",
        "a\n",
        "a*/",
        "a\\",
    ],
)
def test_everything_else_is_no_identifier(name):
    with pytest.raises(CodegenError) as caught:
        CppIdentifier(name)
    assert str(caught.value) == (
        "a name cannot become a C++ identifier\n"
        f"  got:      {name!r}\n"
        "  expected: a letter, then letters, digits and single underscores; no C++ keyword"
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("q", "q"),
        ("delete", "delete_value"),
        ("layer", "layer_value"),
        ("layer_value", "layer_value_value"),
        ("w", "w_value"),
        ("trace", "trace_value"),
        ("ops_", "ops__value"),
        ("Tensor", "Tensor_value"),
        ("kDtype", "kDtype_value"),
        ("key", "key"),
        ("errno", "errno_value"),
        ("NULL", "NULL_value"),
    ],
)
def test_locals_avoid_what_functions_and_headers_say(value, name):
    if "__" in name:
        with pytest.raises(CodegenError):
            local_name(value)
    else:
        assert local_name(value) == name


@pytest.mark.parametrize(
    ("name", "member"),
    [("q_proj", "q_proj"), ("new", "new_member"), ("EOF", "EOF_member"), ("layer", "layer")],
)
def test_members_avoid_keywords_and_macros(name, member):
    assert member_name(name) == member


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,3}(_value|_member){0,2}", fullmatch=True) | (
    st.sampled_from(["int", "layer", "w", "errno", "x"]).flatmap(
        lambda root: st.sampled_from([root, f"{root}_value", f"{root}_value_value"])
    )
)


@given(NAMES, NAMES)
def test_different_names_stay_different(first, second):
    for rename in (local_name, member_name):
        assert (rename(first) == rename(second)) == (first == second)


def test_cases():
    assert pascal_case("full_attention") == "FullAttention"
    assert pascal_case("full-attention 2") == "FullAttention2"
    assert snake_case("Full Attention-2!") == "full_attention_2"
    for hostile in ("1st", "\u6a21", "!"):
        with pytest.raises(CodegenError):
            pascal_case(hostile)
        with pytest.raises(CodegenError):
            snake_case(hostile)


# ---- literals -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_strings_hold_plain_characters_only(text):
    literal = cpp_string(text)
    assert re.fullmatch(r'"([ !#-\[\]-~]|\\[0-7]{3})*"', literal)
    assert "?" not in literal
    inside = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), literal[1:-1])
    assert inside.encode("latin-1") == text.encode()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_read_back_as_they_were(value):
    literal = cpp_float(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?f", literal)
    assert "." in literal or "e" in literal
    assert np.float32(literal[:-1]) == np.float32(value)


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (1.0, "1.0f"),
        (1e-6, "1e-06f"),
        (0.1, "0.1f"),
        (-2.5e20, "-2.5e+20f"),
        (16777217.0, "16777216.0f"),
    ],
)
def test_floats_are_the_shortest_float32(value, literal):
    assert cpp_float(value) == literal


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_floats_that_float32_does_not_hold(value):
    with pytest.raises(CodegenError, match="a constant is not finite in float32"):
        cpp_float(value)


# ---- comments -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*HOSTILE, *(text * 3 for text in HOSTILE)])
def test_comments_are_one_safe_line(text):
    line = cpp_comment(text)
    assert re.fullmatch(r"[ -~]*", line)
    assert "\\" not in line
    assert "??" not in line
    assert "*/" not in line
    assert "/*" not in line
    assert "\n" not in line


def test_comments_wrap_within_the_width():
    lines = comment_lines("word " * 60, 4)
    assert len(lines) > 1
    assert all(len(line) <= WIDTH - 4 - 3 for line in lines)


@pytest.mark.compile
def test_a_compiler_reads_what_was_meant(tmp_path):
    """Every hostile text as a string, and as a comment before a line that must stay code."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    names = [local_name(name) for name in ("int", "errno", "NULL", "Tensor", "unix", "w")]
    lines = ["#include <cerrno>", "#include <cstdio>", "#include <cassert>", "int main() {"]
    lines += [f"  int {name} = 0; (void){name};" for name in names]
    for text in HOSTILE:
        lines += [f"  // {cpp_comment(text)}", f"  /* {cpp_comment(text)} */"]
        lines += [f"  std::fwrite({cpp_string(text)}, 1, {len(text.encode())}, stdout);"]
    source = tmp_path / "hostile.cpp"
    source.write_text("\n".join([*lines, "  return 0;", "}", ""]), encoding="utf-8")
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-trigraphs", "-Wno-trigraphs"]
    subprocess.run([*command, str(source), "-o", str(tmp_path / "hostile")], check=True)
    output = subprocess.run([str(tmp_path / "hostile")], capture_output=True, check=True).stdout
    assert output == "".join(HOSTILE).encode()


# ---- layout ---------------------------------------------------------------------------------

ITEMS = st.lists(st.text("abc{}.", min_size=1, max_size=30), max_size=40)


@given(ITEMS, st.integers(0, 40), st.integers(0, 5))
def test_wrapping_keeps_items_whole_and_lines_short(items, indent, tail):
    lines = wrapped(items, indent, tail=tail).split("\n")
    joined = " ".join(line.strip() for line in lines)
    assert joined == ", ".join(items)
    assert all(len(line) <= WIDTH - indent for line in lines[:1])
    assert all(len(line) <= WIDTH for line in lines[1:])
    assert len(lines[-1]) + (indent if len(lines) == 1 else 0) + tail <= WIDTH


@given(ITEMS, st.integers(1, 80))
def test_calls_stay_within_the_width(items, head_length):
    head = "f" * head_length
    text = f"  {head}({call_arguments(head, items, 2)});"
    assert all(len(line) <= WIDTH for line in text.split("\n"))
    assert "".join(text.split()) == f"{head}({','.join(items)});"


def test_one_line_below_is_better_than_three_beside():
    two, three = ["one_argument", "another"], ["one_argument", "another_one", "and_the_last"]
    head = "f" * (WIDTH - 20)
    assert call_arguments(head, two, 2).split() == ["one_argument,", "another"]
    assert not call_arguments(head, two, 2).startswith("\n")
    assert call_arguments(head, three, 2) == "\n      one_argument, another_one, and_the_last"


def test_short_initialisers_stay_on_one_line():
    assert initializer("int a[2] = ", ["1", "2"]) == "{1, 2}"
    long = initializer("int a[99] = ", [str(number) for number in range(99)])
    lines = f"int a[99] = {long};".split("\n")
    assert lines[0] == "int a[99] = {"
    assert all(len(line) <= WIDTH for line in lines)


def test_braces():
    assert cpp_braced((1, "num_tokens")) == "{1, num_tokens}"


# ---- tensors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "name", "text"),
    [
        (Origin.VALUE, "q", "q"),
        (Origin.VALUE, "layer", "layer_value"),
        (Origin.BUFFER, "buffer_3", "buffer_3_"),
        (Origin.MODEL_WEIGHT, "norm", "weights_.norm"),
        (Origin.LAYER_WEIGHT, "new", "w.new_member"),
        (Origin.CONSTANT, "zero", "constants_.zero"),
        (Origin.SIN_TABLE, "rope", "rope_.rope.sin"),
        (Origin.COS_TABLE, "rope", "rope_.rope.cos"),
        (Origin.POSITIONS, "positions", "positions_"),
    ],
)
def test_references(origin, name, text):
    assert tensor_expression(TensorRef(origin, name)) == text


def test_views_follow_left_to_right():
    reference = TensorRef(Origin.BUFFER, "b").viewed("shaped", ("num_tokens", 4)).viewed("at", 1, 0)
    assert tensor_expression(reference) == "b_.shaped({num_tokens, 4}).at(1, 0)"


@pytest.mark.parametrize("origin", list(Origin))
def test_a_hostile_reference_is_refused(origin):
    with pytest.raises(CodegenError):
        tensor_expression(TensorRef(origin, "x; exit(1)"))
