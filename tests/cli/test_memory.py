"""What a model may take, as people write it, and what they are told before it runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qwen3_codegen.byte_size import parse_bytes
from qwen3_codegen.errors import CodegenError

ASK = ["--token-ids", "1,2,3", "--max-tokens", "2", "--temperature", "0"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1048576", 1 << 20),
        ("2GiB", 2 << 30),
        ("2 gib", 2 << 30),
        ("1.5GB", 1_500_000_000),
        ("64MB", 64_000_000),
        ("10kB", 10_000),
        ("7b", 7),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "lots", "0", "-1GB", "2 G i B", "1e9", "0.1b", "3XB", "٣GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(CodegenError, match="no number of bytes") as caught:
        parse_bytes(text, "kv_cache_memory")
    assert str(caught.value).startswith("kv_cache_memory: ")


def ready(stderr: str) -> str:
    """The one line that says what the engine has room for."""
    (line,) = [line for line in stderr.splitlines() if ": ready in " in line]
    return line.partition(" s, ")[2]


@pytest.mark.compile
def test_what_was_chosen_is_said_once(cli, checkpoint):
    """Keys and values of a token take 3 layers x 2 heads x 8 numbers, twice, in float32."""
    per_token = 3 * 2 * 8 * 2 * 4
    generate = ["generate", "--model", checkpoint, *ASK]
    plain = cli(*generate)
    ids = plain.succeeded()
    blocks = 128 * per_token / 1000
    assert ready(plain.stderr) == (
        f"context 128 tokens, 1 in flight at most, {blocks:.1f} kB for keys and values"
    )
    small = cli(*generate, "--kv-cache-memory", "0.00002GiB", "--max-num-batched-tokens", "8")
    assert small.succeeded() == ids
    assert ready(small.stderr).startswith("context 32 tokens, 1 in flight at most, ")
    two = cli(*generate, *ASK[:2], "--max-num-seqs", "1", "--max-model-len", "20")
    assert [line + "\n" for line in two.succeeded().splitlines()] == [ids, ids]
    assert ready(two.stderr).startswith("context 20 tokens, 1 in flight at most, ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--kv-cache-memory", "lots"], "expected: such as 2GiB"),
        (["--kv-cache-memory", "10"], "hint:     a larger --kv-cache-memory"),
        (
            ["--max-num-batched-tokens", "2000000000"],
            "hint:     a smaller --max-num-batched-tokens",
        ),
        (["--max-num-seqs", "0"], "max_num_seqs must be positive"),
    ],
)
def test_what_cannot_be_is_refused_with_the_option_that_helps(options, says, cli, checkpoint):
    assert says in cli("generate", "--model", checkpoint, *ASK, *options).refused()


@pytest.mark.compile
def test_another_dtype_is_said_where_a_checkpoint_is_run(cli, checkpoint, tmp_path):
    halved = tmp_path / "halved"
    shutil.copytree(checkpoint, halved)
    change_config(halved, torch_dtype="bfloat16")
    result = cli("generate", "--model", halved, *ASK, "--dev", "ascend")
    result.succeeded()
    said = "note: ascend does not compute in bfloat16, the model's dtype; float16 is used\n"
    assert result.stderr.count(said) == 1
    chosen = cli("generate", "--model", halved, *ASK, "--dev", "ascend", "--dtype", "float16")
    chosen.succeeded()
    assert "does not compute" not in chosen.stderr


def test_code_of_a_checkpoint_is_said_to_be_left_alone(cli, checkpoint, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(checkpoint, own)
    change_config(own, auto_map={"AutoModel": "modeling_evil.Evil"})
    (own / "modeling_evil.py").write_text("raise SystemExit('run')\n", encoding="utf-8")
    result = cli("generate", "--model", own, *ASK, "--engine", "interpreter")
    result.succeeded()
    assert result.stderr.count("code that comes with a checkpoint is never run") == 1


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | fields), encoding="utf-8")
