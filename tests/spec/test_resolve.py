"""Config fields to a model: consumed, must equal, inert, refused, unknown; layers and windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.resolve import with_dtype
from tests.spec.descriptions import CONFIG, error_of, model

NO_THETA = "no rope_theta is given: 10000 is used"
LINES = {key: number for number, key in enumerate(CONFIG, start=1)}


def changed(**changes: Any) -> str:
    return error_of(model, changes=changes)


def test_fields_are_consumed_and_defaults_filled_in() -> None:
    tiny = model(drop=("num_key_value_heads",))
    assert dict(tiny.config) == {
        "vocab_size": 31,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 6,
        "max_position_embeddings": 64,
        "rms_norm_eps": 0.01,
        "sliding_window": None,
        "layer_types": ("full", "full", "full"),
    }
    assert tiny.dtype is DType.F32
    assert [layer.attributes for layer in tiny.layers] == [{"window": None, "rope": "rope"}] * 3
    assert tiny.notes == (NO_THETA,)


def test_null_means_the_default_unless_it_is_a_value() -> None:
    assert model(changes={"head_dim": None}).size("head_dim") == 6
    assert model(changes={"sliding_window": None}).config["sliding_window"] is None
    message = changed(hidden_size=None)
    assert message.startswith("config.json:2: config field 'hidden_size' is null\n")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", "24", "has the wrong type\n  got:      the text '24'\n  expected: a whole"),
        (
            "hidden_size",
            24.0,
            "has the wrong type\n  got:      the number 24.0\n  expected: a whole",
        ),
        ("hidden_size", True, "has the wrong type\n  got:      the boolean true"),
        ("hidden_size", [24], "has the wrong type\n  got:      a list"),
        ("hidden_size", {}, "has the wrong type\n  got:      a mapping"),
        ("hidden_size", 0, "is too small\n  got:      the number 0\n  expected: at least 1"),
        ("hidden_size", -5, "is too small\n  got:      the number -5\n  expected: at least 1"),
        (
            "hidden_size",
            2**31,
            "is too large\n  got:      the number 2147483648\n  expected: at mo",
        ),
        ("hidden_size", 10**400, "is too large\n"),
        (
            "num_hidden_layers",
            10**6,
            "is too large\n  got:      the number 1000000\n  expected: at",
        ),
        ("rms_norm_eps", 0, "is too small\n  got:      the number 0.0\n  expected: above 0"),
        (
            "rms_norm_eps",
            1e-60,
            "is too small\n  got:      the number 1e-60\n  expected: 0, or a num",
        ),
        ("rms_norm_eps", float("nan"), "is too large\n  got:      the number nan"),
        ("rms_norm_eps", float("inf"), "is too large\n  got:      the number inf"),
        ("rms_norm_eps", 10**400, "has the wrong type"),
        ("sliding_window", 0, "is too small\n"),
        (
            "layer_types",
            "full",
            "has the wrong type\n  got:      the text 'full'\n  expected: a list",
        ),
        ("layer_types", ["full", 1, "full"], "has the wrong type\n  got:      the number 1"),
        (
            "layer_types",
            ["full"],
            "has the wrong length\n  got:      1 entries\n  expected: 3, one",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_line(field: str, value: object, message: str) -> None:
    line = LINES.get(field, len(LINES) + 1)
    assert changed(**{field: value}).startswith(
        f"config.json:{line}: config field '{field}' {message}"
    )


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_a_missing_dimension_is_named(field: str) -> None:
    message = error_of(model, drop=(field,))
    assert f"config.json:1: config field '{field}' is missing\n" in message
    assert f"  hint:     --set {field}=VALUE gives it" in message


def test_every_fault_is_reported_at_once() -> None:
    message = changed(hidden_size=-1, vocab_size="x", foo=1)
    places = [line for line in message.splitlines() if not line.startswith(" ")]
    assert places == [
        f"config.json:{len(LINES) + 1}: config field 'foo' is unknown to this architecture",
        "config.json:1: config field 'vocab_size' has the wrong type",
        "config.json:2: config field 'hidden_size' is too small",
    ]


def test_an_unknown_field_names_the_architectures_that_have_it() -> None:
    message = changed(mlp_bias=True)
    assert "hint:     one of these architectures has it: --arch" in message
    assert "--arch llama" in message
    assert "--arch qwen3" not in message


def test_unknown_fields_are_errors_that_name_a_near_one() -> None:
    message = changed(hiden_size=24)
    assert message.splitlines() == [
        f"config.json:{len(LINES) + 1}: config field 'hiden_size' is unknown to this architecture",
        "  got:      the number 24",
        "  hint:     did you mean 'hidden_size'? Or --ignore-config-key hiden_size if it does not "
        "change the forward pass",
    ]
    assert "hint:     code from a checkpoint is never run" in changed(trust_remote_code=True)
    ignored = model(changes={"foo": 1}, ignore_config_keys=("foo",))
    assert ignored.ignored_config_keys == ("foo",)


def test_inert_fields_are_let_through() -> None:
    assert model(changes={"bos_token_id": 3}).ignored_config_keys == ()


def test_refused_fields_cannot_pass_unnoticed() -> None:
    message = changed(quantization_config={"bits": 4})
    assert message.endswith(
        "config field 'quantization_config' cannot be honoured\n  hint:     No."
    )
    model(changes={"quantization_config": None})
    model(changes={"quantization_config": {}}, ignore_config_keys=("quantization_config",))


def test_a_field_that_must_equal_may_be_absent_but_not_differ() -> None:
    model(changes={"hidden_act": "silu"})
    message = changed(hidden_act="gelu")
    assert message.splitlines()[1:] == [
        "  got:      the text 'gelu'",
        "  expected: the text 'silu'",
    ]
    model(changes={"hidden_act": "gelu"}, ignore_config_keys=("hidden_act",))
    assert changed(hidden_act=None).endswith(
        "got:      nothing (null)\n  expected: the text 'silu'"
    )


def test_true_is_not_one() -> None:
    rule = ("{hidden_act: silu}", "{pretraining_tp: 1}")
    message = error_of(model, CONFIG, rule, changes={"pretraining_tp": True})
    assert "got:      the boolean true\n  expected: the number 1" in message


def test_a_needed_field_cannot_be_ignored() -> None:
    message = error_of(model, ignore_config_keys=("hidden_size",))
    assert message == (
        "--ignore-config-key hidden_size: config field 'hidden_size' is needed and cannot be "
        "ignored\n  hint:     --set hidden_size=VALUE changes it"
    )


def test_a_field_that_is_not_there_cannot_be_ignored() -> None:
    message = error_of(model, changes={"extra": 1}, ignore_config_keys=("extar",))
    assert message.splitlines()[:2] == [
        "--ignore-config-key extar: there is no config field 'extar' to ignore",
        "  hint:     did you mean 'extra'?",
    ]
    rule = ("vocab_size: {type: int,", "vocab_size: {type: int, aliases: [n_vocab],")
    message = error_of(model, CONFIG, rule, ignore_config_keys=("n_vocab",))
    assert message.startswith("--ignore-config-key n_vocab: config field 'n_vocab' is needed")


def test_aliases_are_other_names_of_a_field() -> None:
    rule = ("vocab_size: {type: int,", "vocab_size: {type: int, aliases: [n_vocab],")
    assert model(CONFIG, rule, changes={"n_vocab": 31}).size("vocab_size") == 31
    assert model(CONFIG, rule, drop=("vocab_size",), changes={"n_vocab": 7}).size("vocab_size") == 7
    message = error_of(model, CONFIG, rule, changes={"n_vocab": 30})
    assert "config fields 'vocab_size' and 'n_vocab' contradict each other" in message
    assert "got:      31 and 30" in message


def test_kv_heads_must_divide_heads() -> None:
    assert changed(num_key_value_heads=3).splitlines() == [
        "config.json:5: 'num_key_value_heads' does not divide 'num_attention_heads'",
        "  got:      3 and 4",
        "  expected: the same number of query heads for every key/value head",
    ]


def test_a_default_that_does_not_work_out_is_refused() -> None:
    assert changed(hidden_size=26).splitlines() == [
        "config.json:1: config field 'head_dim' is not given and has no default here: "
        "'num_attention_heads' does not divide 'hidden_size'",
        "  got:      4 and 26",
        "  hint:     --set head_dim=VALUE gives it; tiny.yaml:11 has the default",
    ]
    assert model(changes={"hidden_size": 26, "head_dim": 6}).size("hidden_size") == 26


def test_an_odd_head_cannot_be_rotated() -> None:
    message = changed(head_dim=7)
    assert message.splitlines() == [
        f"config.json:{len(LINES) + 1}: rope rotates pairs, so the rotated part of a head must be "
        "even",
        "  got:      head_dim 7",
    ]
    assert "config.json:2: rope rotates pairs" in changed(hidden_size=20)


# ---- --set ----------------------------------------------------------------------------------


def test_overrides_replace_fields() -> None:
    tiny = model(
        overrides={
            "num_hidden_layers": "2",
            "rms_norm_eps": "1e-3",
            "layer_types": '["sliding", "full"]',
            "sliding_window": "5",
            "dtype": "bfloat16",
        }
    )
    assert tiny.config["rms_norm_eps"] == 1e-3
    assert [layer.attributes["window"] for layer in tiny.layers] == [5, None]
    assert tiny.dtype is DType.BF16
    assert tiny.huggingface_config["num_hidden_layers"] == 2
    assert "torch_dtype" not in tiny.huggingface_config


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        (
            "hiden_size",
            "4",
            "--set hiden_size: unknown config field 'hiden_size'\n  hint:     did ",
        ),
        ("hidden_size", "big", "--set hidden_size: config field 'hidden_size' has the wrong type"),
        ("hidden_size", "", "--set hidden_size: config field 'hidden_size' is null"),
        (
            "layer_types",
            "[a]",
            "--set layer_types: not JSON\n  got:      [a]\n"
            '  expected: such as --set \'layer_types=["a", "b"]\': ',
        ),
        ("dtype", "int8", "--set dtype: config field 'dtype' is no dtype of an engine"),
    ],
)
def test_a_wrong_override_is_named(key: str, text: str, message: str) -> None:
    assert error_of(model, overrides={key: text}).startswith(message)


def test_overrides_win_over_rope_parameters() -> None:
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
    by_file = model(changes=new)
    by_set = model(changes=new, overrides={"rope_theta": "70"})
    assert by_set.rope == model(changes={"rope_theta": 70}).rope
    assert by_set.rope != by_file.rope
    scaled = model(changes=new, overrides={"rope_scaling": '{"type": "linear", "factor": 2}'})
    old = {"rope_theta": 50.0, "rope_scaling": {"type": "linear", "factor": 2}}
    assert scaled.rope == model(changes=old).rope


# ---- dtypes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("value", ["float16", "torch.float16"])
def test_both_generations_name_the_dtype(key: str, value: str) -> None:
    assert model(drop=("torch_dtype",), changes={key: value}).dtype is DType.F16


def test_an_unnamed_dtype_is_said() -> None:
    tiny = model(drop=("torch_dtype",))
    assert tiny.dtype is DType.F32
    assert tiny.notes == (NO_THETA, "no dtype is given: float32 is used")


def test_contradicting_dtypes_are_refused() -> None:
    assert "'torch_dtype' and 'dtype' contradict each other" in changed(dtype="float16")
    assert model(changes={"dtype": "float32"}).dtype is DType.F32


def test_constants_rounded_to_the_dtype_follow_it() -> None:
    rule = ("must_equal:", "derived: {s: 'round_to(sqrt(hidden_size), dtype)'}\n  must_equal:")
    tiny = model(CONFIG, rule)
    assert tiny.config["s"] == pytest.approx(24**0.5, rel=1e-7)
    half = with_dtype(tiny, DType.BF16)
    assert half.config["s"] == 4.90625
    assert half.dtype is DType.BF16
    assert with_dtype(half, DType.F32) == tiny


# ---- layers ---------------------------------------------------------------------------------


def test_a_window_without_a_size_is_refused() -> None:
    message = changed(layer_types=["full", "sliding", "sliding"])
    assert message.splitlines()[:2] == [
        f"config.json:{len(LINES) + 1}: layer type 'sliding' needs a window, and the config has "
        "none",
        "  got:      layer 1 is sliding",
    ]


def test_an_unknown_layer_type_is_refused() -> None:
    message = changed(layer_types=["full", "slidng", "full"])
    assert message.splitlines() == [
        f"config.json:{len(LINES) + 1}: layer 1 has an unknown layer type",
        "  got:      the text 'slidng'",
        "  expected: full, sliding",
        "  hint:     did you mean 'sliding'?",
    ]


def test_attributes_may_use_the_layer_index() -> None:
    rule = ("{window: none,", "{window: 2 + layer if layer > 0 else none, even: layer % 2 == 0,")
    tiny = model(CONFIG, rule)
    assert [layer.attributes for layer in tiny.layers] == [
        {"window": None, "even": True, "rope": "rope"},
        {"window": 3, "even": False, "rope": "rope"},
        {"window": 4, "even": True, "rope": "rope"},
    ]
    rule = ("{window: none,", "{window: '[layer]',")
    assert "layer attribute 'window' must be a number, text, boolean or none" in error_of(
        model, CONFIG, rule
    )


def test_derived_fields_checks_and_notes() -> None:
    rules = (
        "must_equal:",
        "derived: {double: 2 * hidden_size, hidden_size: double + 1}\n"
        "  checks:\n"
        "    - {require: vocab_size != 30, message: 'vocab is {vocab_size}', hint: Change it.}\n"
        "  notes:\n"
        "    - {when: vocab_size == 31, text: 'hidden {hidden_size}, vocab {vocab_size}'}\n"
        "  must_equal:",
    )
    tiny = model(CONFIG, rules)
    assert (tiny.config["double"], tiny.config["hidden_size"]) == (48, 49)
    assert tiny.notes == ("hidden 24, vocab 31", NO_THETA)
    message = error_of(model, CONFIG, rules, changes={"vocab_size": 30})
    assert message == "config.json:1: vocab is 30\n  hint:     Change it."


@pytest.mark.parametrize(
    ("derived", "message"),
    [
        (
            "num_hidden_layers: num_hidden_layers / 1",
            "has the wrong type\n  got:      the number 3.0",
        ),
        ("num_hidden_layers: num_hidden_layers - 3", "is too small\n  got:      the number 0"),
        ("num_hidden_layers: num_hidden_layers * 9999", "is too large"),
        ("max_position_embeddings: max_position_embeddings / 2", "has the wrong type"),
        ("max_position_embeddings: 0 - 5", "is too small\n  got:      the number -5"),
        ("vocab_size: vocab_size / 1", "has the wrong type\n  got:      the number 31.0"),
        ("head_dim: none", "has the wrong type\n  got:      nothing (null)"),
        ("layer_types: \"'full'\"", "has the wrong type\n  got:      the text 'full'"),
    ],
)
def test_a_derived_field_is_checked_like_the_one_it_replaces(derived: str, message: str) -> None:
    rule = ("must_equal:", f"derived: {{{derived}}}\n  must_equal:")
    name = derived.split(":")[0]
    assert error_of(model, CONFIG, rule).startswith(
        f"tiny.yaml:16: config field '{name}' {message}"
    )


def test_a_default_of_none_must_be_a_value() -> None:
    rule = ("nullable: true, default: none", "default: none")
    assert error_of(model, CONFIG, rule).startswith(
        "tiny.yaml:14: the default of config field 'sliding_window' is none"
    )


def test_a_default_base_of_the_rope_tables_is_said(tmp_path: Path) -> None:
    fields = {key: value for key, value in QWEN.items() if key != "rope_theta"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert load_model(str(tmp_path)).notes == (NO_THETA,)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "rope_parameters": {}}))
    assert load_model(str(tmp_path)).notes == (NO_THETA,)
    given = {**fields, "rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}
    (tmp_path / "config.json").write_text(json.dumps(given))
    assert load_model(str(tmp_path)).notes == ()


def test_a_condition_must_be_a_boolean() -> None:
    rule = ("must_equal:", "notes: [{when: vocab_size, text: x}]\n  must_equal:")
    assert "tiny.yaml:16: a condition must be true or false" in error_of(model, CONFIG, rule)


@pytest.mark.parametrize("name", ["../x", "a b", "", "a;b"])
def test_a_name_that_is_no_identifier_is_refused(name: str) -> None:
    assert "may hold letters, digits" in error_of(model, name=name)


# ---- windows of Qwen, through shipped architectures --------------------------------------------

QWEN = {
    "model_type": "qwen3",
    "vocab_size": 32,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "torch_dtype": "float32",
}


def qwen(tmp_path: Path, **changes: Any) -> Any:
    text = json.dumps({**QWEN, **changes}, indent=2)
    (tmp_path / "config.json").write_text(text)
    return load_model(str(tmp_path))


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_a_window_that_is_off_is_said(tmp_path: Path, model_type: str) -> None:
    spec = qwen(tmp_path, model_type=model_type, sliding_window=7, use_sliding_window=False)
    assert [layer.attributes["window"] for layer in spec.layers] == [None] * 4
    assert spec.notes == ("sliding_window: 7 has no effect without use_sliding_window: true",)
    assert qwen(tmp_path, model_type=model_type, sliding_window=None).notes == ()


def test_layers_slide_from_max_window_layers_on(tmp_path: Path) -> None:
    spec = qwen(tmp_path, sliding_window=7, use_sliding_window=True, max_window_layers=3)
    assert [layer.attributes["window"] for layer in spec.layers] == [None, None, None, 7]
    assert spec.notes == ()


def test_a_switched_on_window_needs_a_size(tmp_path: Path) -> None:
    message = error_of(qwen, tmp_path, use_sliding_window=True)
    place = f"{tmp_path}/config.json:14"
    assert message.startswith(f"{place}: 'use_sliding_window' is true, but 'sliding_window' has no")


def test_lines_of_config_json_are_found(tmp_path: Path) -> None:
    message = error_of(qwen, tmp_path, hidden_size="8", foo={"hidden_size": 3})
    assert f"{tmp_path}/config.json:4: config field 'hidden_size' has the wrong type" in message
    assert f"{tmp_path}/config.json:14: config field 'foo' is unknown" in message
