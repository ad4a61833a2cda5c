"""Bad options: what would have been right, exit code 2, nothing half-written."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from qwen3_codegen.cli.main import _run
from tests.cli.conftest import command


@pytest.fixture
def cli(forked_cli):
    return forked_cli


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--isa", "avx3"], r"unknown instruction set 'avx3'.*(?s:.*expected:.*portable)"),
        (["--dev", "gpu"], r"unknown device 'gpu'.*(?s:.*hint: +nvidia)"),
        (["--dev", "nvidai"], r"did you mean 'nvidia'"),
        (["--dtype", "fp8"], r"unknown dtype 'fp8'.*(?s:.*bfloat16)"),
        (["--kv-cache-dtype", "int8"], r"unknown dtype 'int8'.*(?s:.*bfloat16)"),
        (
            ["--dev", "mlu", "--kv-cache-dtype", "bf16"],
            r"portable lowering keeps keys and values .*(?s:.*kv_cache_dtype bfloat16)",
        ),
        (["--activation-dtype", "int8"], r"unknown dtype 'int8'.*(?s:.*bfloat16)"),
        (
            ["--dev", "mlu", "--activation-dtype", "f32"],
            r"portable lowering keeps activations .*(?s:.*activation_dtype float32)",
        ),
        (
            ["--dtype", "bf16", "--activation-dtype", "f16"],
            r"beside bfloat16 matrices .*(?s:.*activation_dtype float16.*auto, bfloat16, float32)",
        ),
        (["--dtype", "float8"], r"float8"),
        (["--dev", "ascend", "--dtype", "bf16"], r"does not compute in bfloat16"),
        (["--set", "hidden_size"], r"KEY=VALUE"),
        (["--set", "=3"], r"KEY=VALUE"),
        (["--set", "hidden_size=3", "--set", "hidden_size=4"], r"twice"),
        (["--set", "hidden_size=-3"], r"--set hidden_size.*(?s:.*-3)"),
        (["--set", "hiden_size=24"], r"hiden_size.*(?s:.*did you mean 'hidden_size')"),
        (["--set", "num_hidden_layers=3.5"], r"num_hidden_layers"),
        (["--set", "layer_types=[full_attention]"], r"layer_types"),
        (["--infinicore-api", "0.2.0"], r"0\.2\.0.*(?s:.*2025-08.*0\.1\.0.*2026-08)"),
        (["--infinicore-api", "2025-08", "--dev", "hygon"], r"2025-08"),
        (["--arch", "qwen33"], r"did you mean 'qwen3'"),
        (["--arch", "none.yaml"], r"none\.yaml"),
        (["--quant", "int8"], r"--quant int8"),
        (["--ndev", "2"], r"--ndev 2"),
        (["--ndev", "0"], r"ndev"),
        (["--ndev", "many"], r"ndev"),
        (["--colour", "red"], r"--colour"),
    ],
    ids=" ".join,
)
def test_build(options, says, cli, model, tmp_path):
    error = cli("build", "--spec", model, "--out", tmp_path / "out", *options).refused()
    assert re.search(says, error), error
    assert not (tmp_path / "out").exists()


GENERATE = ("generate", "--model", "nowhere")


@pytest.mark.parametrize(
    ("words", "command", "hint"),
    [
        (["buidl"], "", "build"),
        (["build", "--spec", "qwen3-1.7b", "--dv", "mlu"], " build", "--dev"),
        ([*GENERATE, "--max-toknes", "2", "--token-ids", "-1"], " generate", "--max-tokens"),
        ([*GENERATE, "--max-toknes=2"], " generate", "--max-tokens"),
        ([*GENERATE, "--engine", "compield"], " generate", "compiled"),
        (["generate", "--modle", "nowhere"], " generate", "--model"),
        (["cache", "lsit"], " cache", "list"),
        (["cache", "clear", "--older-tahn", "3"], " cache clear", "--older-than"),
        (["bench", "serve", "--ulr", "x", "--", "--dv"], " bench serve", "--url"),
        (["bench", "serve", "--", "--modle"], " bench serve", None),
        (["--verison"], "", "--version"),
        ([*GENERATE, "--colour", "red"], " generate", None),
        ([*GENERATE, "--prompt", "--temprature"], " generate", None),  # --prompt=--temprature
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_word(words, command, hint, cli):
    error = cli(*words).refused()
    assert f"usage: qwen3-codegen{command} [-h]" in error
    assert f"qwen3-codegen{command}: error: " in error
    if hint is None:
        assert "hint:" not in error
    else:
        assert error.endswith(f"\n  hint:     did you mean '{hint}'?\n")


def test_build_without_a_spec(cli):
    assert "--spec" in cli("build").refused()


def test_infinicore_that_is_not_there(cli, model, tmp_path):
    root = tmp_path / "nowhere"
    error = cli("build", "--spec", model, "--infinicore", root).refused()
    assert f"error: {root}: there is no such InfiniCore installation" in error
    assert "missing" not in error
    assert "--infinicore DIR" in error
    assert "qwen3-codegen infinicore install" in error
    assert not (tmp_path / "generated").exists()


def test_infinicore_that_is_half_there(cli, model, tmp_path):
    """The message lists every path that was looked at."""
    root = tmp_path / "half"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "libinfiniop.so").touch()
    error = cli("build", "--spec", model, "--infinicore", root).refused()
    assert f"found   {root / 'lib/libinfiniop.so'}" in error
    assert f"missing {root / 'lib/libinfinirt.so'}" in error


def test_a_version_of_infinicore_that_cannot_be_installed(cli, model):
    error = cli("build", "--spec", model, "--infinicore", "0.2.0").refused()
    assert "`qwen3-codegen infinicore install` installs 0.1.0 for the CPU, and no other" in error


def test_an_infini_root_is_not_taken_silently(cli, model, tmp_path):
    """INFINI_ROOT in the environment does not replace the embedded library unasked."""
    result = cli("build", "--spec", model, "--emit-only", INFINI_ROOT=str(tmp_path / "nowhere"))
    assert "embedded" in result.stderr
    result.succeeded()


def test_infinicore_0_1_0_that_was_never_installed(cli, model, tmp_path):
    cache = str(tmp_path / "cache")
    result = cli("build", "--spec", model, "--infinicore", "0.1.0", QWEN3_CODEGEN_CACHE=cache)
    assert "qwen3-codegen infinicore install" in result.refused()


def test_out_that_is_a_file(cli, model, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine", encoding="utf-8")
    error = cli("build", "--spec", model, "--out", out, "--emit-only").refused()
    assert str(out) in error
    assert out.read_text(encoding="utf-8") == "mine"


def test_out_that_cannot_be_made(cli, model):
    error = cli("build", "--spec", model, "--out", "/proc/none", "--emit-only").refused()
    assert "/proc/none" in error
    assert "--out chooses another folder" in error


@pytest.mark.compile
def test_a_cache_that_cannot_be_made(cli, model):
    error = cli("build", "--spec", model, QWEN3_CODEGEN_CACHE="/proc/none").refused()
    assert "/proc/none" in error
    assert "QWEN3_CODEGEN_CACHE chooses another folder" in error


def test_an_unknown_instruction_set_is_said_first(cli, model):
    error = cli("build", "--spec", model, "--isa", "sse").refused()
    assert error.startswith("error: unknown instruction set 'sse'")


def test_a_device_of_ones_own_is_named(cli, model, tmp_path):
    (tmp_path / "mine.yaml").write_text("device: mychip\nextends: cambricon\n", encoding="utf-8")
    result = cli("build", "--spec", model, "--dev", "mine.yaml", "--emit-only")
    assert " on mychip (cambricon) (emulated on the CPU), " in result.stderr
    folder = tmp_path / result.succeeded().strip()
    header = (folder / "engine.hpp").read_text(encoding="utf-8")
    # What an engine calls its device where it says on stderr that it is emulated.
    assert 'INFINI_DEVICE_CAMBRICON, "mychip (cambricon)", /*emulated=*/true' in header
    assert header.startswith("// Engine of tiny (qwen3) for mychip (cambricon) in float32")
    device = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["device"]
    assert (device["name"], device["description"]) == ("cambricon", "mychip")


def test_a_conversation_that_ends_leaves_the_line(cli, checkpoint, tmp_path):
    spoken = _with_a_template(checkpoint, tmp_path / "spoken")
    result = cli("chat", "--model", spoken, "--engine", "interpreter", stdin="")
    assert result.stderr.endswith("> \n")
    result.succeeded()


def test_another_dtype_is_said(cli):
    """The models of Qwen3 are in bfloat16."""
    result = cli("build", "--spec", "qwen3-0.6b", "--dev", "ascend", "--emit-only")
    assert (
        "ascend does not compute in bfloat16, the model's dtype; float16 is used" in result.stderr
    )
    result.succeeded()


def test_dump_ir_into_a_file(cli, model, tmp_path):
    target = tmp_path / "ir"
    target.write_text("mine", encoding="utf-8")
    error = cli("build", "--spec", model, "--dump-ir", target, "--emit-only").refused()
    assert str(target) in error


def test_a_compiler_that_is_not_there(cli, model, tmp_path):
    error = cli("build", "--spec", model, CXX="no-such-compiler").refused()
    assert "no-such-compiler" in error
    assert "hint:" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], r"frobnicate"),
        (["graph", "--spec", "qwen3-1.7b", "--after", "fuse_qvk"], r"did you mean 'fuse_qkv'"),
        (["graph", "--spec", "qwen3-1.7b", "--format", "png"], r"png"),
        (["specs", "show", "qwen3-1.6b"], r"did you mean 'qwen3-"),
        (["specs", "hide"], r"hide"),
        (["specs", "qwen3-1.7b"], r"usage: qwen3-codegen specs .*show NAME"),
        (["infinicore"], r"ACTION|install"),
        (["infinicore", "install", "--source", "nowhere"], r"nowhere"),
        (["import", "nowhere", "-o", "spec.yaml"], r"nowhere"),
        (["random", "--spec", "qwen3-1.7b", "-o", "x", "--layers", "0"], r"layers"),
        (["random", "--spec", "qwen3-1.7b", "-o", "x", "--layers", "99"], r"99"),
        (["random", "--spec", "qwen3-1.7b", "-o", "x", "--seed", "-1"], r"--seed"),
        (["chat"], r"--model"),
        (["generate", "--model", "nowhere", "--prompt", "a"], r"nowhere"),
        (["generate", "--model", "qwen3-1.7b", "--prompt", "a"], r"random --spec qwen3-1.7b"),
        (["generate", "--model", "my.yaml", "--prompt", "a"], r"spec has no weights"),
    ],
    ids=" ".join,
)
def test_other_commands(arguments, says, cli, tmp_path):
    error = cli(*arguments).refused()
    assert re.search(says, error), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.compile
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--token-ids", "1,x"], r"1,x"),
        (["--token-ids", ""], r"token-ids"),
        (["--token-ids", ",".join(["1"] * 129)], r"128 tokens"),
        (["--token-ids", ",".join(["1"] * 128)], r"no room"),
        (["--token-ids", "1", "--max-model-len", "129"], r"max_position_embeddings = 128"),
        (["--token-ids", "1", "--max-model-len", "0"], r"max_model_len"),
        (["--prompt-file", "nowhere.txt"], r"nowhere\.txt"),
        (["--engine", "magic"], r"magic"),
        (
            ["--token-ids", "1", "--dev", "mlu", "--activation-dtype", "f32"],
            r"portable lowering keeps activations",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_generate(options, says, cli, checkpoint):
    error = cli("generate", "--model", checkpoint, *options).refused()
    assert re.search(says, error), error


@pytest.mark.parametrize("ask", [("generate", "--token-ids", "1"), ("chat", "--message", "Hi")])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-1"),
        ("--temperature", "2.5"),
        ("--temperature", "nan"),
        ("--top-p", "1.5"),
        ("--top-k", "-5"),
        ("--max-tokens", "-2"),
        ("--seed", str(2**65)),
        ("--stop", ""),
    ],
)
def test_sampling_is_checked_before_a_model_is_looked_for(ask, option, value, cli):
    error = cli(*ask, "--model", "nowhere", option, value).refused()
    name = option.removeprefix("--").replace("-", "_")
    assert error.startswith(f"error: '{name}' is invalid\n  got:      ")
    assert "\n  expected: " in error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--token-ids", "1", "--token-ids", "1,97"], r"prompt 1: .*got: +97\n.*0 to 96"),
        (["--token-ids", "-1"], r"prompt 0: .*got: +-1\n.*0 to 96"),
        (["--token-ids", "1", "--stop", "a"], r"no tokenizer\n.*leave out --stop"),
    ],
)
def test_prompts_are_checked_before_anything_is_compiled(options, says, cli, checkpoint):
    error = cli("generate", "--model", checkpoint, *options, CXX="no-such-compiler").refused()
    assert re.search(f"(?s){says}", error), error


def test_generate_from_text_without_a_tokenizer(cli, checkpoint):
    """Said before anything is compiled, for which a compiler would be needed."""
    result = cli("generate", "--model", checkpoint, "--prompt", "text", CXX="no-such-compiler")
    error = result.refused()
    assert "this checkpoint has no tokenizer" in error
    assert "--token-ids 1,2,3" in error


def test_a_configuration_is_not_a_checkpoint(cli, checkpoint):
    config = checkpoint / "config.json"
    error = cli("generate", "--model", config, "--token-ids", "1").refused()
    assert f"name the folder: {checkpoint}" in error


def test_random_onto_a_checkpoint(cli, checkpoint):
    error = cli("random", "--spec", checkpoint, "-o", checkpoint).refused()
    assert "not empty" in error
    assert "name another" in error


def test_chat_without_a_template(cli, checkpoint):
    """Said before anything is compiled, for which a compiler would be needed."""
    result = cli("chat", "--model", checkpoint, "--message", "hello", CXX="no-such-compiler")
    error = result.refused()
    assert f"{checkpoint}: this checkpoint has no " in error
    assert "qwen3-codegen generate" in error


def test_a_prompt_file_that_is_not_text(cli, checkpoint, tmp_path):
    file = tmp_path / "prompt.bin"
    file.write_bytes(b"\xff\xfe")
    error = cli("generate", "--model", checkpoint, "--prompt-file", file).refused()
    assert str(file) in error


@pytest.mark.parametrize("name", ["generate", "chat"])
def test_standard_input_that_is_not_text(name, checkpoint, tmp_path):
    spoken = _with_a_template(checkpoint, tmp_path / "spoken")
    ask = command([name, "--model", spoken, "--engine", "interpreter"])
    # Where the locale is UTF-8 but not C.UTF-8, Python decodes strictly.
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        ask, input=b"\xff\n", capture_output=True, env=strict, timeout=60, check=False
    )
    error = done.stderr.decode()
    assert done.returncode == 2, error
    assert "standard input: the " in error
    assert "Traceback" not in error


def _with_a_template(checkpoint: Path, folder: Path) -> Path:
    shutil.copytree(checkpoint, folder)
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    return folder


def test_memory_that_runs_out(capsys):
    def run(_: argparse.Namespace) -> int:
        raise MemoryError

    assert _run(argparse.Namespace(run=run)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: out of memory\n  hint: ")


def test_a_file_that_is_not_text_is_replaced(cli, checkpoint, tmp_path):
    (tmp_path / "spec.yaml").write_bytes(b"\xff")
    cli("import", checkpoint, "-o", "spec.yaml", "--force").succeeded()
    cli("graph", "--spec", "spec.yaml").succeeded()


def test_a_spec_whose_names_are_paths(cli, model, tmp_path):
    """A folder's odd name becomes a plain module name, inside --out."""
    folder = tmp_path / "a b'; rm -rf $(x)"
    folder.mkdir()
    config = {"model_type": "qwen3"}
    text = model.read_text(encoding="utf-8").partition("config:\n")[2]
    lines = [line.strip().partition(": ") for line in text.splitlines()]
    pairs = [f'"{key}": {_json(value)}' for key, _, value in lines]
    (folder / "config.json").write_text(
        "{" + f'"model_type": "{config["model_type"]}", ' + ", ".join(pairs) + "}",
        encoding="utf-8",
    )
    out = cli("build", "--spec", folder, "--out", "out", "--emit-only").succeeded().strip()
    assert re.fullmatch(r"out/[a-z0-9_]+", out)
    assert (Path(tmp_path) / out / "engine.cpp").is_file()


def _json(value: str) -> str:
    if value.startswith("["):
        return "[" + ", ".join(f'"{word.strip()}"' for word in value[1:-1].split(",")) + "]"
    return value if value[0].isdigit() or value in ("true", "false") else f'"{value}"'
