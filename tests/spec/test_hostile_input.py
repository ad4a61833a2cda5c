"""Damaged and hostile descriptions end in a SpecError, whatever they hold."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qwen3_codegen.cli.main import main
from qwen3_codegen.errors import SpecError
from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.spec.architecture import parse_architecture
from qwen3_codegen.spec.catalog import architecture_names, load_model, model_names
from qwen3_codegen.spec.config_source import _json_lines
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.model_file import parse_model_file
from qwen3_codegen.spec.rules import SharedFields
from qwen3_codegen.spec.yaml_loader import parse_yaml
from tests.spec.descriptions import CONFIG, error_of, model
from tests.spec.test_transformers_configs import CASES, published

FRAGMENTS = [
    "\x00",
    "\t",
    "\ufeff",
    "é",
    "\u2028",
    "'",
    '"',
    "*a",
    "&a ",
    "!!python/object/apply:os.system [id]",
    "%YAML 1.1",
    "---",
    "...",
    ": ",
    "- ",
    "? ",
    "| ",
    "> ",
    "{",
    "}",
    "[",
    "]",
    "#",
    ",",
    "(" * 50,
    "__import__('os')",
    "lambda: 0",
    "9" * 400,
    "1e999",
    ".nan",
    "null",
    "true",
    "-1",
    "none",
    "layer",
    "expert",
    "../../etc/passwd",
    "a;b",
    "{layer}{layer}",
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**400,
    -0.5,
    1e-320,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "silu",
    "__import__('os')",
    "\x00",
    [],
    [[]],
    [None, 1],
    ["full_attention"] * 6,
    {},
    {"rope_type": "yarn"},
    {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [[]]},
    {"type": {}, "rope_theta": []},
    {"full_attention": None, "sliding_attention": 3},
]
"""Values a JSON parser can give, none of which fits every field."""


def damaged(text: str, rng: random.Random) -> str:
    """Returns the text with one to three edits."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 0, 1, 5, 60]))
        insert = rng.choice(["", rng.choice(FRAGMENTS), text[end : end + rng.randint(0, 40)]])
        text = text[:start] + insert + text[end:]
    return text


@pytest.mark.parametrize("name", architecture_names())
def test_damaged_architectures(name: str) -> None:
    text = (modelspecs_dir() / "architectures" / f"{name}.yaml").read_text()
    for seed in range(12):
        broken = damaged(text, random.Random(f"{name} {seed}"))
        with suppress(SpecError):
            parse_architecture(parse_yaml(broken, f"{seed}.yaml"), SharedFields())


@pytest.mark.parametrize("name", model_names())
def test_damaged_model_specs(name: str) -> None:
    text = (modelspecs_dir() / f"{name}.yaml").read_text()
    for seed in range(20):
        broken = damaged(text, random.Random(f"{name} {seed}"))
        with suppress(SpecError):
            parse_model_file(parse_yaml(broken, f"{seed}.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_wrong_values_in_config_json(case: str, tmp_path: Path) -> None:
    rng = random.Random(case)
    fields = published(case)
    names = [*fields, "rope_parameters", "rope_scaling", "rope_theta", "layer_types", "dtype"]
    for _ in range(25):
        broken = dict(fields)
        for name in rng.sample(names, rng.randint(1, 3)):
            broken[name] = rng.choice(VALUES)
        (tmp_path / "config.json").write_text(json.dumps(broken))
        with suppress(SpecError):
            load_model(str(tmp_path))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_every_field_survives_every_value(value: Any) -> None:
    for name in (*CONFIG, "sliding_window", "layer_types", "head_dim", "rope_parameters"):
        with suppress(SpecError):
            model(changes={name: value})


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 5000 + "1" + "}" * 5000])
def test_deep_json_on_the_command_line(text: str, capsys, tmp_path: Path) -> None:
    command = ["specs", "show", "qwen3-0.6b", "--set", f"rope_scaling={text}"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --set rope_scaling: ")
    assert len(error) < 400


def test_deep_json_in_a_config(tmp_path: Path, capsys) -> None:
    for depth in (200, 900, 5000, 100_000):
        text = '{"model_type": "qwen3", "x": ' + "[" * depth + "]" * depth + "}"
        (tmp_path / "config.json").write_text(text)
        assert main(["specs", "show", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path}/config.json")
        assert "Traceback" not in error


def refused_soon(load: Any, *arguments: Any) -> str:
    """Returns a SpecError's text, told soon: a fraction of a second where nothing else runs."""
    start = time.process_time()
    error = error_of(load, *arguments)
    assert time.process_time() - start < 5.0
    return error


def config_of(folder: Path, **fields: Any) -> str:
    (folder / "config.json").write_text(json.dumps({**published("qwen3"), **fields}))
    return str(folder)


def test_thousands_of_unknown_keys(tmp_path: Path) -> None:
    device = tmp_path / "device.yaml"
    keys = "".join(f"key{number}: 1\n" for number in range(5000))
    device.write_text(f"device: mine\nextends: cpu\n{keys}")
    assert "... and 4980 more" in refused_soon(load_device, str(device))


def test_thousands_of_config_fields(tmp_path: Path) -> None:
    load_model(config_of(tmp_path))
    error = refused_soon(
        load_model, config_of(tmp_path, **{f"field{number}": 1 for number in range(20_000)})
    )
    assert "the config has too many fields" in error


def test_a_head_too_large_for_a_table_of_angles(tmp_path: Path) -> None:
    assert load_model(config_of(tmp_path, head_dim=1 << 16)).rope["rope"].rotary_dim == 1 << 16
    error = refused_soon(load_model, config_of(tmp_path, head_dim=10**9))
    assert "the rotated part of a head is too large" in error
    assert "config.json:" in error


def test_a_line_of_blanks_in_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type":' + " " * 200_000 + "1}\n" + " " * 200_000)
    assert "no architecture for this model_type" in refused_soon(load_model, str(tmp_path))


def test_lines_of_keys_are_still_found() -> None:
    text = '{"a": 1,\n  "b" : 2\n , "c": 3\n, "d": 4\n{ "e": 5}'
    assert _json_lines(text) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


@pytest.mark.parametrize("name", ["x" * 3000, "a\x00b"], ids=["long", "zero"])
def test_a_path_no_file_system_has(name: str, tmp_path: Path) -> None:
    assert "not found" in error_of(load_device, f"{name}.yaml")
    assert "not found" in error_of(load_model, f"{name}.yaml")
    assert "no model spec or checkpoint" in error_of(load_model, name)
    device = tmp_path / "device.yaml"
    device.write_text(f'device: mine\nextends: "{name}.yaml"\n'.replace("\x00", "\\0"))
    assert "device description not found" in error_of(load_device, str(device))
    spec = tmp_path / "model.yaml"
    spec.write_text(
        f'name: mine\narchitecture: "{name}.yaml"\nconfig: {{}}\n'.replace("\x00", "\\0")
    )
    assert "architecture file not found" in error_of(load_model, str(spec))


def test_a_message_shows_what_it_quotes_without_obeying_it(tmp_path: Path) -> None:
    key = "a\x1b[31m\x00\u202e\ud800\u2028" + "k" * 100_000
    error = error_of(load_model, config_of(tmp_path, **{key: 1}))
    assert r"config field 'a\x1b[31m\x00\u202e\ud800\u2028kkk" in error
    assert len(error) < 20_000
    assert error.replace("\n", "").isprintable()
