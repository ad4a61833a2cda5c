from __future__ import annotations

import pytest

from qwen3_codegen.spec.yaml_loader import parse_yaml, plain, read_yaml
from tests.spec.descriptions import error_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("+4", 4),
        ("007", 7),
        ("151936", 151936),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("[1, a, []]", [1, "a", []]),
        ("{a: {b: 1.0}}", {"a": {"b": 1.0}}),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert plain(parse_yaml(f"key: {text}", "f.yaml")) == {"key": value}
    assert type(plain(parse_yaml(f"key: {text}", "f.yaml"))["key"]) is type(value)


def test_every_key_and_value_knows_its_line() -> None:
    root = parse_yaml("# comment\na: 1\nb:\n  - x\n  - {c: 2}\n", "dir/f.yaml")
    assert [str(root.keys[key]) for key in root.keys] == ["dir/f.yaml:2", "dir/f.yaml:3"]
    items = root.entries["b"].items  # type: ignore[union-attr]
    assert [item.location.line for item in items] == [4, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: duplicate key 'a'\n  hint:     first at f.yaml:1"),
        ("a: 1\n1: 2\n'1': 3", "f.yaml:3: duplicate key '1'\n  hint:     first at f.yaml:2"),
        ("a: !!python/object/apply:os.system [x]", "f.yaml:1: YAML tags are not allowed\n"),
        ("a: !x 1", "f.yaml:1: YAML tags are not allowed\n  got:      !x"),
        ("a: 1\nb: &n [1]", "f.yaml:2: YAML anchors are not allowed\n  got:      &n"),
        ("a: *n", "f.yaml:1: YAML aliases are not allowed\n  got:      *n"),
        ("<<: *n", "f.yaml:1: YAML aliases are not allowed\n  got:      *n"),
        ("%YAML 1.1\n---\na: 1", "f.yaml:1: YAML directives are not allowed"),
        ("a: 1\n---\nb: 1", "f.yaml:2: only one YAML document is allowed"),
        ("? [a]\n: 1", "f.yaml:1: a key must be plain text\n  got:      a list"),
        ("- a", "f.yaml:1: not a mapping\n  got:      a list"),
        ("", "f.yaml: is empty\n  expected: a mapping"),
        ("a: [1\nb: 2", "f.yaml:2: not YAML: expected ',' or ']', but got ':'"),
        ("a:\n\t- b", "f.yaml:2: not YAML: found character '\\t' that cannot start any token"),
        ("a: 1\nb: \x00", "f.yaml:2: a character YAML does not allow\n  got:      U+0000"),
        ("a: .inf", "f.yaml:1: a number must be finite\n  got:      .inf"),
        ("a: .nan", "f.yaml:1: a number must be finite\n  got:      .nan"),
        ("a: 1e999", "f.yaml:1: a number is too large\n  got:      1e999"),
        ("a: 12345678901234567890", "f.yaml:1: a number is too large\n"),
    ],
)
def test_what_a_description_does_not_need_is_refused(text: str, message: str) -> None:
    assert error_of(parse_yaml, text, "f.yaml").startswith(message)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\t- b", "indent with spaces, not tabs"),
        ("a:\n  b: 1\n   c: 2", "start in the same column"),
        ("a:\n  b: 1\nc: 2\n  d: 3", "start in the same column"),
        ("a:\n  b: 1\n c: 2", "start in the same column"),
        ("a b\nc: 1", "a key ends in ':'"),
        ("a:\n  - b\n - c", "start in the same column"),
    ],
)
def test_a_wrong_indentation_has_a_hint(text: str, hint: str) -> None:
    assert hint in error_of(parse_yaml, text, "f.yaml").partition("  hint:     ")[2]


def test_a_long_number_is_never_parsed() -> None:
    message = error_of(parse_yaml, f"a: {'9' * 100_000}", "f.yaml")
    assert message.startswith("f.yaml:1: a number is too large\n  got:      99999")
    assert len(message) < 200
    assert error_of(parse_yaml, f"a: {'0' * 100_000}", "f.yaml").startswith("f.yaml:1: a number")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    assert "nested too deeply" in error_of(parse_yaml, "a:\n  " + opening * 5000, "f.yaml")


def test_files_that_are_no_text_are_refused(tmp_path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    assert error_of(read_yaml, file, "f.yaml") == "f.yaml:2: not UTF-8 text\n  got:      byte 0xff"
    file.write_bytes(b"a: " + b"x" * (1 << 20))
    message = "f.yaml: is too long\n  expected: at most 1048576 bytes"
    assert error_of(read_yaml, file, "f.yaml") == message
    message = "g.yaml: cannot be read\n  got:      No such file or directory"
    assert error_of(read_yaml, tmp_path / "g.yaml", "g.yaml") == message
