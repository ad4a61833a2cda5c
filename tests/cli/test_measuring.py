"""``perplexity`` and ``bench serve`` as users type them, on the interpreter."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

NAMES = {"mean", "p50", "p95", "p99"}
INTERPRETED = ("--engine", "interpreter")


@pytest.fixture
def speaking(checkpoint, tmp_path):
    """The tiny checkpoint with a character for each of its 97 tokens."""
    folder = shutil.copytree(checkpoint, tmp_path / "speaking")
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())[:97]
    tokenizer = Tokenizer(models.BPE({each: id for id, each in enumerate(characters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_perplexity_of_a_text(cli, speaking, tmp_path):
    """A byte is a token here."""
    (tmp_path / "text.txt").write_text("Once_upon_a_time.", encoding="utf-8")
    ids = " ".join(str(ord(each) - 33) for each in "Once_upon_a_time.")
    (tmp_path / "ids.txt").write_text(ids, encoding="utf-8")
    ask = ["perplexity", "--model", speaking, *INTERPRETED]
    shown = cli(*ask, "--text", "text.txt").succeeded().splitlines()
    same = cli(*ask, "--text", "ids.txt", "--token-ids").succeeded().splitlines()
    assert shown[1].startswith("perplexity ")
    assert shown[1] == same[1]


def test_perplexity_of_token_ids(cli, checkpoint, tmp_path):
    ids = [(7 * index * index + 3) % 97 for index in range(90)]
    (tmp_path / "ids.txt").write_text(" ".join(map(str, ids)), encoding="utf-8")
    ask = ["perplexity", "--model", checkpoint, *INTERPRETED, "--token-ids", "--text", "ids.txt"]
    shown = cli(*ask, "--ctx-len", "32", "--stride", "16", "--output", "p.json").succeeded()
    result = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert re.search(rf"^perplexity +{result['perplexity']:.4f}$", shown, re.MULTILINE)
    assert (result["ctx_len"], result["stride"], result["num_windows"]) == (32, 16, 5)
    assert (result["num_tokens"], result["num_scored_tokens"]) == (90, 89)
    assert result["perplexity"] > 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--stride", "0", "--token-ids"], "--stride is out of range"),
        (["--ctx-len", "8", "--stride", "9", "--token-ids"], "stride is out of range"),
        (["--token-ids", "--text", "words.txt"], "holds no token ids"),
        (["--text", "latin.txt", "--token-ids"], "the text is not UTF-8"),
        (["--text", "ids.txt"], "no tokenizer"),
        (["--text", "empty.txt", "--token-ids"], "at least two tokens"),
    ],
)
def test_perplexity_of_what_is_none(forked_cli, checkpoint, tmp_path, options, expected):
    for name, content in (("ids", b"1 2 3"), ("words", b"a b"), ("latin", b"\xe9"), ("empty", b"")):
        (tmp_path / f"{name}.txt").write_bytes(content)
    ask = ["perplexity", "--model", checkpoint, *INTERPRETED, "--text", "ids.txt"]
    assert expected in forked_cli(*ask, *options).refused()


def test_bench_of_a_server_it_starts(cli, speaking, tmp_path):
    load = ["--num-prompts", "6", "--concurrency", "3", "--prompt-len", "24", "--answer-len", "5"]
    load += ["--shared-prefix-len", "16", "--vocab-size", "97", "--request-rate", "200"]
    ask = ["bench", "serve", "--model", speaking, *load, "--output", "b.json", "--", *INTERPRETED]
    result = cli(*ask)
    shown = result.succeeded()
    report = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert re.search(r"^requests +6, 0 failed$", shown, re.MULTILINE)
    assert (report["num_requests"], report["num_failed"]) == (6, 0)
    assert (report["total_prompt_tokens"], report["total_output_tokens"]) == (6 * 24, 6 * 5)
    assert report["request_throughput"] == pytest.approx(6 / report["duration_s"])
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
        assert set(report[name]) == NAMES
        assert 0 < report[name]["p50"] <= report[name]["p95"] <= report[name]["p99"]
    assert report["ttft_ms"]["p99"] <= report["e2e_ms"]["p99"] <= 1e3 * report["duration_s"]
    assert report["load"]["prompts"]["shared_prefix_len"] == 16


def test_bench_of_requests_a_server_refuses(cli, checkpoint):
    """Longer than the context: they count as failed, and the exit code says so."""
    load = ["--num-prompts", "2", "--prompt-len", "500", "--vocab-size", "97"]
    result = cli("bench", "serve", "--model", checkpoint, *load, "--", *INTERPRETED)
    assert result.code == 1
    assert re.search(r"^requests +2, 2 failed$", result.stdout, re.MULTILINE)
    assert "failed: HTTP 400" in result.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--url", "http://127.0.0.1:1"], "the server names no model"),
        (["--url", "127.0.0.1:1"], "no http or https URL"),
        (["--url", "http://127.0.0.1:1", "--concurrency", "0"], "--concurrency is out of range"),
        (["--url", "http://127.0.0.1:1", "--request-rate", "nan"], "--request-rate is out of"),
        (["--url", "http://127.0.0.1:1", "--", "--port", "1"], "options of serve need --model"),
        (["--model", "nothing-there"], "the server did not start"),
    ],
)
def test_bench_of_what_is_not_there(forked_cli, options, expected):
    assert expected in forked_cli("bench", "serve", *options).refused()
