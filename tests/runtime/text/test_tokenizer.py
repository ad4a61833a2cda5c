"""Tokenizers of checkpoint folders: equal to transformers', complete about special tokens."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.errors import CheckpointError, RequestError, TokenizerError
from qwen3_runtime.text import Tokenizer, load_tokenizer
from tests.runtime.text.corpus import HARD_TEXTS

MakeFolder = Callable[..., Path]


def loaded(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(open_checkpoint(folder))
    assert tokenizer is not None
    return tokenizer


def small_backend() -> dict[str, Any]:
    """A byte-level tokenizer of 256 bytes, one merge and two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: index for index, character in enumerate([*alphabet, "he"])}
    backend = Backend(models.BPE(vocab, [("h", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    found: dict[str, Any] = json.loads(backend.to_str())
    return found


# ---- Qwen3 ----------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.reference
def test_qwen3_encodes_and_decodes_as_transformers(qwen3: Tokenizer, qwen3_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(qwen3_folder)
    chat = "<|im_start|>user\nhi<|im_end|>\n<think>x</think><tool_call>{}</tool_call>"
    for text in (*HARD_TEXTS, chat):
        ids = theirs.encode(text)
        assert qwen3.encode(text) == ids, repr(text)
        for skip in (True, False):
            assert qwen3.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


@pytest.mark.network
def test_qwen3_special_tokens_are_all_known(qwen3: Tokenizer) -> None:
    assert qwen3.eos_token_ids == (151645, 151643)
    assert qwen3.bos_token_id is None
    assert qwen3.token_id("<|im_end|>") == 151645
    assert qwen3.token_bytes(151645) == b"<|im_end|>"
    assert qwen3.token_bytes(151645, skip_special_tokens=True) == b""
    assert qwen3.token_bytes(101283) == "慢慢".encode()
    assert b"".join(map(qwen3.token_bytes, qwen3.encode("\U0001fae8"))) == "\U0001fae8".encode()


def test_start_path_imports_neither_transformers_nor_torch() -> None:
    code = (
        "import sys, qwen3_runtime.text, qwen3_runtime.checkpoint, qwen3_runtime.sampling;"
        "sys.exit(any(name in sys.modules for name in ('transformers', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tokens_of_sentencepiece_keep_spaces_and_bytes(make_folder: MakeFolder) -> None:
    words = ["<unk>", "\u2581the", "\u2581cat", "s", "<0xF0>", "<0x9F>", "<0x90>", "<0xB1>"]
    vocab = [(word, -1.0) for word in words]
    backend = Backend(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["</s>"])
    tokenizer = loaded(make_folder(tokenizer=json.loads(backend.to_str())))
    ids = [*tokenizer.encode("the cats"), 4, 5, 6, 7]
    assert tokenizer.decode(ids) == "the cats\U0001f431"
    assert [tokenizer.token_bytes(token_id) for token_id in ids[:3]] == [b" the", b" cat", b"s"]
    assert b"".join(map(tokenizer.token_bytes, ids[3:])) == "\U0001f431".encode()
    assert tokenizer.token_bytes(len(words)) == b"</s>"
    assert tokenizer.token_bytes(len(words), skip_special_tokens=True) == b""


def beats_during(work: Callable[[], object]) -> float:
    """How often another thread runs every 5 ms while ``work`` does, over how often it could."""
    beats, ended = 0, threading.Event()

    def run() -> None:
        work()
        ended.set()

    started = time.perf_counter()
    threading.Thread(target=run).start()
    while not ended.wait(0.005):
        beats += 1
    return beats / ((time.perf_counter() - started) / 0.005)


def test_long_texts_let_other_threads_run(make_folder: MakeFolder) -> None:
    tokenizer = loaded(make_folder(tokenizer=small_backend()))
    text = "hello world " * 60_000
    assert beats_during(lambda: tokenizer.encode(text)) > 0.2
    ids = tokenizer.encode(text)
    assert beats_during(lambda: [tokenizer.decode(ids) for _ in range(10)]) > 0.2
    assert tokenizer.decode(ids) == text


# ---- folders --------------------------------------------------------------------------------


def test_folder_without_tokenizer_has_none(make_folder: MakeFolder) -> None:
    assert load_tokenizer(open_checkpoint(make_folder())) is None


def test_end_tokens_come_from_all_three_files_each_once(make_folder: MakeFolder) -> None:
    folder = make_folder(
        config={"eos_token_id": 7},
        generation_config={"eos_token_id": [9, 7]},
        tokenizer=small_backend(),
        tokenizer_config={"eos_token": {"content": "</s>"}, "bos_token": "<s>"},
    )
    tokenizer = loaded(folder)
    assert tokenizer.eos_token_ids == (9, 7, 258)
    assert tokenizer.bos_token_id == 257


def test_special_tokens_map_serves_where_the_config_is_silent(make_folder: MakeFolder) -> None:
    folder = make_folder(
        tokenizer=small_backend(), special_tokens_map={"eos_token": "</s>", "bos_token": "<s>"}
    )
    assert loaded(folder).eos_token_ids == (258,)


def test_tokens_that_only_the_config_declares_are_added(make_folder: MakeFolder) -> None:
    declared = {"259": {"content": "<|call|>", "special": True}, "257": {"content": "<s>"}}
    folder = make_folder(
        tokenizer=small_backend(), tokenizer_config={"added_tokens_decoder": declared}
    )
    tokenizer = loaded(folder)
    assert tokenizer.encode("he<|call|>") == [256, 259]
    assert tokenizer.decode([256, 259]) == "he"


def test_token_declared_at_an_impossible_id_is_refused(make_folder: MakeFolder) -> None:
    declared = {"900": {"content": "<|call|>", "special": True}}
    folder = make_folder(
        tokenizer=small_backend(), tokenizer_config={"added_tokens_decoder": declared}
    )
    with pytest.raises(TokenizerError, match="at an id it cannot have"):
        loaded(folder)


HALF_A_PAIR = [
    {"tokenizer_config": {"eos_token": "\ud800"}},
    {"tokenizer_config": {"bos_token": {"content": "a\udfff"}}},
    {"tokenizer_config": {"mask_token": "\ud800"}},
    {"special_tokens_map": {"eos_token": "\ud800"}},
    {"tokenizer_config": {"added_tokens_decoder": {"259": {"content": "\ud800"}}}},
]


@pytest.mark.parametrize("files", HALF_A_PAIR)
def test_token_that_is_no_unicode_is_refused(make_folder: MakeFolder, files: Any) -> None:
    with pytest.raises(TokenizerError, match="half of a surrogate pair") as caught:
        loaded(make_folder(tokenizer=small_backend(), **files))
    str(caught.value).encode()


def test_stored_truncation_and_padding_do_not_apply(make_folder: MakeFolder) -> None:
    backend = Backend.from_str(json.dumps(small_backend()))
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    folder = make_folder(tokenizer=json.loads(backend.to_str()))
    assert len(loaded(folder).encode("abcdefgh")) == 8
    assert len(loaded(folder).encode("ab")) == 2


@pytest.mark.parametrize(
    "content", ["{}", "[]", "x", '{"model": {"type": "BPE", "vocab": 3, "merges": []}}']
)
def test_damaged_tokenizer_json_is_refused(make_folder: MakeFolder, content: str) -> None:
    folder = make_folder()
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match="not a tokenizer this can read") as caught:
        loaded(folder)
    assert str(caught.value.where).endswith("tokenizer.json")


def test_git_lfs_pointer_of_a_tokenizer_is_recognised(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="git-lfs pointer"):
        loaded(folder)


@pytest.mark.reference
def test_slow_files_are_converted_by_transformers(make_folder: MakeFolder) -> None:
    transformers = pytest.importorskip("transformers")
    small = small_backend()
    folder = make_folder(
        vocab=small["model"]["vocab"] | {"<s>": 257, "</s>": 258},
        tokenizer_config={"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>"},
    )
    (folder / "merges.txt").write_text("#version: 0.2\nh e\n")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = loaded(folder)
    assert tokenizer.encode("hehe, h e") == theirs.encode("hehe, h e")
    assert tokenizer.eos_token_ids == (258,)


@pytest.mark.reference
def test_slow_file_that_cannot_be_converted_names_what_would_help(
    make_folder: MakeFolder,
) -> None:
    folder = make_folder(tokenizer_config={"tokenizer_class": "LlamaTokenizer"})
    (folder / "tokenizer.model").write_bytes(b"no sentencepiece model")
    with pytest.raises(TokenizerError, match="transformers cannot convert") as caught:
        loaded(folder)
    assert "tokenizer.json" in str(caught.value.hint)


# ---- encoding -------------------------------------------------------------------------------


@pytest.fixture
def small(make_folder: MakeFolder) -> Tokenizer:
    return loaded(make_folder(tokenizer=small_backend()))


def test_text_that_is_no_unicode_is_the_requests_fault(small: Tokenizer) -> None:
    for bad in ("\ud800", "ok \udfff"):
        with pytest.raises(RequestError, match="cannot be encoded"):
            small.encode(bad)


def test_ids_without_a_token_decode_to_nothing_and_impossible_ones_are_refused(
    small: Tokenizer,
) -> None:
    assert small.decode([256, 5000, 256]) == "hehe"
    assert small.token_bytes(5000) == b""
    for bad in ([-1], [2**32], ["x"]):
        with pytest.raises(RequestError, match="no token ids"):
            small.decode(bad)  # type: ignore[arg-type]


def test_any_bytes_survive_encoding_and_decoding(small: Tokenizer) -> None:
    for text in HARD_TEXTS:
        assert small.decode(small.encode(text)) == text
