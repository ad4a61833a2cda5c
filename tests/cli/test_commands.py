"""Each command as a user types it: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import command

COMMANDS = [
    "bench",
    "build",
    "cache",
    "chat",
    "devices",
    "doctor",
    "generate",
    "graph",
    "import",
    "infinicore",
    "perplexity",
    "random",
    "serve",
    "specs",
]


def test_help_lists_every_command(cli):
    text = cli("--help").succeeded()
    assert all(re.search(rf"^ +{name}\b", text, re.MULTILINE) for name in COMMANDS)
    assert cli().succeeded() == text


def test_the_package_is_the_command(cli):
    arguments = [sys.executable, "-m", "qwen3_codegen", "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == cli("--help").succeeded()


def test_help_of_the_demo_runs_nothing():
    arguments = [sys.executable, "-m", "qwen3_codegen.cli.demo", "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("usage: make demo")
    assert done.stderr == ""


def test_help_is_instant(cli):
    cli("--help")
    started = time.monotonic()
    cli("--help").succeeded()
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name, cli):
    result = cli(name, "--help")
    assert result.succeeded().startswith(f"usage: qwen3-codegen {name}")
    assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["specs", "show", "--help"], ["infinicore", "install", "--help"]], ids=" ".join
)
def test_help_of_subcommands(arguments, cli):
    assert "usage: qwen3-codegen " + " ".join(arguments[:2]) in cli(*arguments).succeeded()


@pytest.mark.parametrize(("name", "default"), [("generate", "256"), ("chat", "until the context")])
def test_help_states_the_defaults_of_sampling(name, default, cli):
    text = " ".join(cli(name, "--help").succeeded().split())
    assert f"most tokens to generate; default: {default}" in text
    assert "0 is greedy; at most 2; default: 1" in text
    assert "0 is off; default: 0" in text


def test_generate_ends_without_max_tokens(cli, checkpoint, tmp_path):
    """A random model never ends; its context of 1024 tokens would be filled."""
    longer = tmp_path / "longer"
    shutil.copytree(checkpoint, longer)
    config = json.loads((longer / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 1024
    (longer / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = ["--token-ids", "1", "--engine", "interpreter", "--temperature", "0"]
    ids = cli("generate", "--model", longer, *arguments, "--ignore-eos").succeeded().split(",")
    assert len(ids) == 256


def test_version(cli):
    assert re.fullmatch(r"qwen3-codegen \S+\n", cli("--version").succeeded())


def test_specs(cli):
    result = cli("specs")
    names = [line.split()[0] for line in result.succeeded().splitlines()]
    assert {"qwen3-0.6b", "qwen3-1.7b", "qwen3-32b", "smollm2-135m", "tinyllama-1.1b"} <= set(names)
    assert result.stderr == ""


def test_specs_show(cli):
    text = cli("specs", "show", "qwen3-1.7b").succeeded()
    assert re.search(r"^parameters +1,720,574,976$", text, re.MULTILINE)
    # Two bytes a parameter, but four for the norms of 28 layers and of the end.
    norms = 28 * (2 * 2048 + 2 * 128) + 2048
    weights = f"{2 * (1_720_574_976 + norms):,}"
    assert re.search(rf"^weights bfloat16 +{weights} bytes$", text, re.MULTILINE)
    assert re.search(r"^cache bfloat16 +114,688 bytes per token$", text, re.MULTILINE)


def test_graph_as_text(cli):
    text = cli("graph", "--spec", "qwen3-1.7b").succeeded()
    assert "attention(" in text
    assert "swiglu" in text
    before = cli("graph", "--spec", "qwen3-1.7b", "--after", "frontend").succeeded()
    assert "swiglu" not in before
    assert "silu" in before


def test_graph_as_dot(cli, tmp_path):
    text = cli("graph", "--spec", "qwen3-1.7b", "--format", "dot").succeeded()
    assert text.startswith("digraph")
    assert text.count("{") == text.count("}")
    assert re.search(r"->", text)


def test_every_pass_can_be_looked_at(cli):
    names = re.findall(r"^  (\w+) {2,}[A-Z]", cli("graph", "--help").succeeded(), re.MULTILINE)
    assert len(names) >= 6
    for name in names[:3]:
        cli("graph", "--spec", "qwen3-1.7b", "--after", name).succeeded()


def files_in(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in sorted(folder.rglob("*"))}


def test_emit_only(cli, tmp_path):
    result = cli("build", "--spec", "qwen3-1.7b", "--dev", "mlu", "--emit-only", "--out", "out")
    assert result.succeeded() == "out/qwen3_1_7b_mlu\n"
    assert "emulated" in result.stderr
    names = set(files_in(tmp_path / "out/qwen3_1_7b_mlu"))
    assert {"engine.hpp", "engine.cpp", "bindings.cpp", "manifest.json", "__init__.py"} <= names
    assert not [name for name in names if name.endswith(".so")]
    seconds = float(re.search(r"emitted in ([\d.]+) s", result.stderr)[1])
    assert seconds < 2.0  # 1 s on an idle machine


def test_emission_is_a_function_of_its_input(cli, tmp_path):
    for out in ("first", "second"):
        cli("build", "--spec", "qwen3-1.7b", "--emit-only", "--out", out).succeeded()
    first, second = tmp_path / "first/qwen3_1_7b_cpu", tmp_path / "second/qwen3_1_7b_cpu"
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.mark.compile
def test_a_second_build_changes_nothing(cli, model, tmp_path):
    build = ["build", "--spec", model, "--out", "out"]
    first = cli(*build)
    assert first.succeeded() == "out/tiny_cpu\n"
    before = files_in(tmp_path / "out")
    assert any(name.endswith(".so") for name in before)
    second = cli(*build)
    assert second.succeeded() == first.stdout
    assert "up to date" in second.stderr
    assert files_in(tmp_path / "out") == before
    assert "built" in cli(*build, "--force").stderr


@pytest.mark.compile
def test_a_change_builds_again(cli, model, tmp_path):
    cli("build", "--spec", model, "--out", "out").succeeded()
    changed = cli("build", "--spec", model, "--out", "out", "--set", "rms_norm_eps=0.02")
    assert "built" in changed.stderr
    assert "0.02f" in (tmp_path / "out/tiny_cpu/engine.cpp").read_text(encoding="utf-8")
    portable = cli("build", "--spec", model, "--out", "out", "--set", "rms_norm_eps=0.02",
                   "--isa", "avx2")  # fmt: skip
    assert "built" in portable.stderr


@pytest.mark.compile
def test_builds_at_the_same_time(cli, model, tmp_path):
    """Processes that want one folder wait for each other, and none mixes its files with theirs."""
    builds = {
        theta: ["build", "--spec", model, "--out", "out", "--set", f"rope_theta={theta}"]
        for theta in (321.5, 323.5)
    }
    running = [
        subprocess.Popen(command(builds[theta]), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for theta in (321.5, 323.5, 321.5)
    ]
    for process in running:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    (engine,) = (tmp_path / "out").glob("*/engine.cpp")
    cli(*builds[321.5], "--emit-only", "--out", "alone").succeeded()
    (alone,) = (tmp_path / "alone").glob("*/engine.cpp")
    last = 321.5 if engine.read_bytes() == alone.read_bytes() else 323.5
    assert "up to date" in cli(*builds[last]).stderr


@pytest.mark.compile
def test_an_interrupted_build_leaves_nothing_in_the_way(cli, model, tmp_path):
    unheard_of = f"rope_theta={300 + time.time_ns() % 10**6 / 1000}"  # no run before made it
    build = ["build", "--spec", model, "--out", "out", "--set", unheard_of]
    cli("build", "--spec", model, "--out", "warm").succeeded()  # the shared runtime is there
    for sent in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            command(build), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        for line in process.stderr:
            if "compiling the engine" in line:
                break
        time.sleep(0.5)
        os.killpg(process.pid, sent)
        rest = process.communicate(timeout=60)[1]
        assert "Traceback" not in rest
        assert process.returncode == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    assert "built" in cli(*build).stderr


def test_dump_ir(cli, model, tmp_path):
    cli("build", "--spec", model, "--emit-only", "--dump-ir", "ir").succeeded()
    names = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert names[0] == "00-frontend.txt"
    assert [name[:2] for name in names] == [f"{index:02d}" for index in range(len(names))]
    assert any("fuse_swiglu" in name for name in names)
    assert all("attention" in (tmp_path / "ir" / name).read_text() for name in names)


@pytest.mark.compile
def test_generate(cli, checkpoint):
    ask = ["generate", "--model", checkpoint, "--temperature", "0", "--max-tokens", "6"]
    alone = [cli(*ask, "--token-ids", ids) for ids in ("1,2,3", "9")]
    tokens = [result.succeeded().strip() for result in alone]
    assert all(len(line.split(",")) == 6 for line in tokens)
    assert "3 prompt tokens, 6 new tokens" in alone[0].stderr
    both = cli(*ask, "--token-ids", "1,2,3", "--token-ids", "9")
    assert both.succeeded().splitlines() == tokens
    interpreted = cli(*ask, "--token-ids", "1,2,3", "--engine", "interpreter")
    assert interpreted.succeeded().strip() == tokens[0]


@pytest.mark.compile
def test_sampling_is_repeatable(cli, checkpoint):
    ask = ["generate", "--model", checkpoint, "--token-ids", "5", "--max-tokens", "16",
           "--temperature", "2.0", "--seed"]  # fmt: skip
    first, second, other = (cli(*ask, seed).succeeded() for seed in ("4", "4", "5"))
    assert first == second != other


@pytest.mark.compile
def test_random_then_generate(cli, tmp_path):
    made = cli("random", "--spec", "qwen3-0.6b", "--layers", "1", "-o", "small",
               "--set", "hidden_size=64", "--set", "vocab_size=500",
               "--set", "intermediate_size=96", "--dtype", "float32")  # fmt: skip
    assert made.succeeded() == "small\n"
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    ask = ["generate", "--model", "small", "--token-ids", "3,4", "--max-tokens", "3",
           "--temperature", "0", "--ignore-eos"]  # fmt: skip
    compiled = cli(*ask, "--max-model-len", "64").succeeded()
    assert compiled == cli(*ask, "--engine", "interpreter", "--max-model-len", "64").succeeded()
    again = cli("random", "--spec", "qwen3-0.6b", "--layers", "1", "-o", "small")
    assert "small" in again.refused()


def test_import(cli, checkpoint, tmp_path):
    result = cli("import", checkpoint, "-o", "mine.yaml", "--name", "mine")
    assert result.succeeded() == "mine.yaml\n"
    document = yaml.safe_load((tmp_path / "mine.yaml").read_text(encoding="utf-8"))
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    assert document["name"] == "mine"
    assert document["config"]["hidden_size"] == config["hidden_size"]
    shown = [cli("specs", "show", source).succeeded().splitlines()[1:]
             for source in ("mine.yaml", checkpoint)]  # fmt: skip
    assert shown[0] == shown[1]
    assert "exists" in cli("import", checkpoint, "-o", "mine.yaml").refused()
    cli("import", checkpoint, "-o", "mine.yaml", "--force").succeeded()


def test_import_into_another_folder_finds_the_architecture_again(cli, checkpoint, model, tmp_path):
    """A spec's architecture file is looked for beside the spec, --arch in the working folder."""
    architecture = next(path for path in model.parent.glob("*.yaml") if path != model)
    given = architecture.relative_to(tmp_path)
    cli("import", checkpoint, "--arch", given, "-o", "elsewhere/spec.yaml").succeeded()
    cli("graph", "--spec", "elsewhere/spec.yaml").succeeded()


@pytest.mark.compile
def test_a_closed_pipe_is_no_error(checkpoint, tmp_path):
    ask = command(["specs"])
    process = subprocess.Popen(
        ask, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
