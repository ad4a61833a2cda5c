"""``verify``: the report on standard output and as JSON, exit codes, bad input."""

from __future__ import annotations

import json

import pytest

from tests.cli.descriptions import spoil

pytestmark = pytest.mark.compile

GOOD = ("--lowering", "native", "--greedy-tokens", "3")


def test_a_right_engine(cli, model, tmp_path):
    report = tmp_path / "reports" / "report.json"
    result = cli("verify", "--spec", model, *GOOD, "--output", report, "--dump-tensors", "there")
    text = result.succeeded()
    assert text.splitlines()[-1].startswith("PASS: ")
    for word in ("Op by op", "Layer by layer", "Logits and tokens", "rotary_attention", "swiglu"):
        assert word in text
    assert "op by op" in result.stderr
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["verdict"] == "pass"
    assert content["first_wrong"] is None
    assert content["subject"]["lowering"] == "native"
    assert content["subject"]["num_layers"] == 2  # both kinds
    assert (content["subject"]["seed"], content["subject"]["prompt_len"]) == (0, 32)
    assert content["references"][0].startswith("transformers ")
    stages = [check["stage"] for check in content["checks"]]
    assert stages == sorted(stages, key=["ops", "layers", "logits"].index)
    first = content["checks"][0]
    assert first["name"] == "prologue.h"
    assert first["op"] == "embedding"
    lines = (model.parent / "small.yaml").read_text(encoding="utf-8").splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if "= embedding(" in text]
    assert first["location"].endswith(f"small.yaml:{line}")
    assert first["status"] == "pass"
    # Compared with the values it wrote itself, it is itself.
    again = cli("verify", "--spec", model, *GOOD, "--against", "there").succeeded()
    assert "against tensors in there (cpu)" in again
    assert "transformers" not in again


def test_an_engine_of_float32_values_beside_half_matrices(cli, model, tmp_path):
    """Which are held to the roundings of float32."""
    dtypes = ("--dtype", "bf16", "--activation-dtype", "f32", "--kv-cache-dtype", "f32")
    cli("verify", "--spec", model, *GOOD, *dtypes, "--output", "r.json").succeeded()
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    subject = report["subject"]
    assert (subject["dtype"], subject["kv_cache_dtype"]) == ("bfloat16", "float32")
    assert (subject["activation_dtype"], subject["row_dtype"]) == ("float32", None)
    checks = [check for check in report["checks"] if check["op"] == "linear"]
    assert checks
    assert all(check["limit"] < 2.0**-12 for check in checks if check["stage"] == "ops")


def test_a_wrong_spec(cli, model, checkpoint, tmp_path):
    """The reference follows the checkpoint, the engine what the command line says."""
    line = spoil(model.parent / "small.yaml", "silu(gate) * up", "silu(up) * gate")
    arch = model.parent / "small.yaml"
    result = cli("verify", "--model", checkpoint, "--arch", arch, *GOOD, "--output", "r.json")
    assert result.code == 1, result.stderr
    assert result.stdout.splitlines()[-1].startswith(
        f"FAIL: first wrong op: layer 0, layers.0.mul = swiglu ({arch}:{line}): "
    )
    first = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["first_wrong"]
    assert (first["stage"], first["layer"], first["op"]) == ("layers", 0, "swiglu")


def test_an_emulated_device(cli, model):
    result = cli("verify", "--spec", model, "--dev", "mlu", "--greedy-tokens", "2")
    assert "(emulated on the CPU)" in result.succeeded().splitlines()[0]
    assert "emulat" in result.stderr


def test_help_teaches(cli):
    text = cli("verify", "--help").succeeded()
    for word in ("FILE.py:Class", "runs the code in FILE.py", "Exit code 0", "examples:"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt-len", "0"], "--prompt-len is a whole number from 1"),
        (["--seed", "-1"], "--seed is a whole number from 0"),
        (["--layers", "9"], "--layers is out of range"),
        (["--prompt-len", "500"], "max_model_len"),
        (["--output", "."], "the report is a file"),
        (["--quant", "int8"], "quantised engines are not available"),
        (["--dtype", "int7"], "int7"),
        (["--dtype", "f32", "--kv-cache-dtype", "bf16"], "and the cache is coarser"),
        (
            ["--dev", "mlu", "--activation-dtype", "f32"],
            "the portable lowering keeps activations in the dtype of the matrices",
        ),
        (["--ops", "nowhere"], "nowhere"),
    ],
)
def test_bad_input(arguments, message, cli, model):
    assert message in cli("verify", "--spec", model, *arguments).refused()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "tensorflow"], "unknown reference"),
        (["--reference", "nothing.py:Model"], "the reference's file does not exist"),
        (["--reference", "transformers"], "transformers has no Nothing"),
        (["--against", "nowhere"], "the index of dumped tensors cannot be read"),
        (["--dump-tensors", "full"], "full"),
    ],
)
def test_references_are_looked_at_first(arguments, message, cli, model, tmp_path):
    """Random weights of a model as published take gigabytes and minutes."""
    spoil(model.parent / "small.yaml", "Qwen3ForCausalLM", "Nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused = cli("verify", "--spec", model, *arguments).refused()
    assert message in refused
    assert "writing random weights" not in refused


def test_no_source(cli, checkpoint, model):
    assert "--model" in cli("verify").refused()
    assert "not allowed" in cli("verify", "--model", checkpoint, "--spec", model).refused()
    refused = cli("verify", "--model", checkpoint, "--layers", "1").refused()
    assert "--layers goes with --spec" in refused
