"""Tokenizers built from GGUF fields equal the tokenizer.json the fields were made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.checkpoint.gguf_file import GgufFile
from qwen3_runtime.errors import TokenizerError
from qwen3_runtime.text import Tokenizer, load_tokenizer
from qwen3_runtime.text.gguf_tokenizer import PRE_TOKENIZERS, backend_from_fields
from tests.runtime.text.corpus import HARD_TEXTS
from tests.runtime.text.gguf_vocabulary import USER_DEFINED, tokenizer_fields, vocabulary_gguf

FolderOf = Callable[[str], Path]

PUBLISHED = [
    ("llama3_2", "llama-bpe"),
    ("gpt2", "gpt-2"),
    ("gpt4o", "gpt-4o"),
    ("mistral_nemo", "tekken"),
    ("command_r_plus", "command-r"),
    ("llama2", None),
    ("gemma", None),
]


def loaded(path: Path) -> Tokenizer:
    tokenizer = load_tokenizer(open_checkpoint(path))
    assert tokenizer is not None
    return tokenizer


def assert_same_ids(ours: Tokenizer, theirs: Backend, texts: tuple[str, ...]) -> None:
    for text in texts:
        for special in (False, True):
            expected = theirs.encode(text, add_special_tokens=special).ids
            assert ours.encode(text, add_special_tokens=special) == expected, repr(text)
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.fixture(scope="module")
def qwen3(
    qwen3_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Backend]:
    path = tmp_path_factory.mktemp("qwen3") / "qwen3.gguf"
    vocabulary_gguf(path, qwen3_tokenizer_folder, pre="qwen2", padding=267)
    return loaded(path), Backend.from_file(str(qwen3_tokenizer_folder / "tokenizer.json"))


@pytest.mark.network
def test_qwen3_from_gguf_encodes_as_its_real_tokenizer(qwen3: tuple[Tokenizer, Backend]) -> None:
    ours, theirs = qwen3
    chat = "<|im_start|>user\nhi<|im_end|>\n<think>\n\n</think>\n\n<tool_call>{}</tool_call>"
    specials = (chat, "<|im_end|>" * 3, "a<|endoftext|> b", "<|im_ end|>")
    assert_same_ids(ours, theirs, HARD_TEXTS + specials)
    # Conversion makes control tokens of all that look so: the same ids, hidden when decoded.
    assert ours.encode("<|fim_prefix|>x") == theirs.encode("<|fim_prefix|>x").ids
    assert ours.token_id("<|im_end|>") == 151645
    assert ours.token_id("<think>") == 151667


@pytest.mark.network
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_qwen3_from_gguf_encodes_any_text_alike(
    qwen3: tuple[Tokenizer, Backend], text: str
) -> None:
    assert_same_ids(qwen3[0], qwen3[1], (text,))


@pytest.mark.network
def test_qwen3_padding_rows_have_no_text(qwen3: tuple[Tokenizer, Backend]) -> None:
    ours, _ = qwen3
    assert ours.token_id("[PAD151700]") is None
    assert ours.encode("[PAD151700]") == ours.encode("[PAD", False) + ours.encode("151700]", False)
    assert ours.decode([151700, 9707]) == "Hello"


@pytest.mark.network
@pytest.mark.parametrize(("name", "pre"), PUBLISHED)
def test_published_tokenizers_come_back_from_their_fields(
    tokenizer_folder: FolderOf, name: str, pre: str | None
) -> None:
    folder = tokenizer_folder(name)
    fields = tokenizer_fields(folder, pre)
    if name == "gemma":
        make_gemma(fields)
    ours = backend_from_fields(folder, fields)
    theirs = Backend.from_file(str(folder / "tokenizer.json"))
    for text in HARD_TEXTS:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == expected, repr(text)
        assert ours.decode(expected) == theirs.decode(expected)
        if name != "command_r_plus":  # whose tokenizer.json ends texts as no template wants it
            assert ours.encode(text).ids == theirs.encode(text).ids


def make_gemma(fields: dict[str, Any]) -> None:
    """What a Gemma file has besides: no space prefix, useless scores, runs of space marked."""
    fields["general.architecture"] = "gemma3"
    fields["tokenizer.ggml.add_space_prefix"] = False
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    fields["tokenizer.ggml.scores"] = [float(index) for index in range(len(tokens))]
    for index, token in enumerate(tokens):
        if len(token) > 1 and set(token) in ({"\u2581"}, {"\n"}, {"\t"}):
            tokens[index], kinds[index] = token.replace("\u2581", " "), USER_DEFINED


def test_smollm2_splits_digits_and_knows_its_special_tokens(smollm2_gguf: Path) -> None:
    tokenizer = loaded(smollm2_gguf)
    assert tokenizer.encode("1234") == [tokenizer.token_id(digit) for digit in "1234"]
    # Digits are cut off before spaces are shared out, so both spaces stay one token.
    spaced = [tokenizer.token_id(token) for token in ("a", "\u0120\u0120", "1")]
    assert tokenizer.encode("a  1") == spaced
    assert tokenizer.encode("<|im_start|>") == [1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (1, (2, 0))
    for text in HARD_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    prompt = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    assert prompt[:3] == [1, 9690, 198]
    assert prompt[-4:] == [1, 520, 9531, 198]


@pytest.mark.reference
def test_smollm2_merges_as_transformers_merges_them(smollm2_gguf: Path) -> None:
    """transformers builds one from the same fields; it leaves numbers whole, so texts hold none."""
    conversion = pytest.importorskip("transformers.integrations.gguf")
    fields = GgufFile(smollm2_gguf).fields
    names = {"tokenizer_type": "model", "tokens": "tokens", "token_type": "token_type"}
    names |= {"merges": "merges", "pre_tokenizer_type": "pre"}
    theirs, _ = conversion.convert_gguf_tokenizer(
        "llama", {name: fields[f"tokenizer.ggml.{key}"] for name, key in names.items()}
    )
    ours = loaded(smollm2_gguf)
    for text in HARD_TEXTS:
        words = "".join(character for character in text if not character.isnumeric())
        expected = theirs.encode(words, add_special_tokens=False).ids
        assert ours.encode(words) == expected, repr(words)


# ---- refusals -------------------------------------------------------------------------------

FIELDS: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<|end|>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3],
    "tokenizer.ggml.merges": ["a b"],
}
SENTENCEPIECE: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "a", "b", "ab"],
    "tokenizer.ggml.token_type": [2, 1, 1, 1],
    "tokenizer.ggml.scores": [0.0, -3.0, -2.0, -1.0],
}


def test_smallest_vocabularies_build() -> None:
    assert backend_from_fields(Path("m.gguf"), FIELDS).encode("abb<|end|>").ids == [2, 1, 3]
    fields = SENTENCEPIECE | {"tokenizer.ggml.add_space_prefix": False}
    assert backend_from_fields(Path("m.gguf"), fields).encode("abb?").ids == [3, 2, 0]


@pytest.mark.parametrize(
    ("changes", "message", "expected"),
    [
        ({"model": "rwkv"}, "tokenizer.ggml.model", "gpt2 or llama"),
        ({"model": None}, "tokenizer.ggml.model", "gpt2 or llama"),
        ({"pre": "default"}, "tokenizer.ggml.pre", "qwen2"),
        ({"pre": None}, "tokenizer.ggml.pre", "smollm"),
        ({"tokens": None}, "tokenizer.ggml.tokens", "a list of str"),
        ({"tokens": [1, 2, 3, 4]}, "tokenizer.ggml.tokens", "a list of str"),
        ({"token_type": [1, 1]}, "tokenizer.ggml.token_type", "one per token"),
        ({"token_type": "x"}, "tokenizer.ggml.token_type", "a list of int"),
        ({"merges": None}, "tokenizer.ggml.merges", "a list of str"),
        ({"merges": ["ab"]}, "tokenizer.ggml.merges", "two tokens"),
        ({"merges": ["a b c"]}, "tokenizer.ggml.merges", "two tokens"),
        ({"merges": ["a c"]}, "cannot be built", None),
    ],
)
def test_unknown_or_contradictory_fields_are_refused(
    changes: dict[str, Any], message: str, expected: str | None
) -> None:
    fields = FIELDS | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    fields = {key: value for key, value in fields.items() if value is not None}
    with pytest.raises(TokenizerError) as caught:
        backend_from_fields(Path("m.gguf"), fields)
    assert message in str(caught.value)
    assert expected is None or expected in str(caught.value.expected)
    assert str(caught.value.where) == "m.gguf"


@pytest.mark.parametrize("scores", [None, [0.0], "x"])
def test_sentencepiece_without_a_score_per_token_is_refused(scores: object) -> None:
    fields = SENTENCEPIECE | {"tokenizer.ggml.scores": scores}
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.scores"):
        backend_from_fields(Path("m.gguf"), fields)


def test_every_pre_tokenizer_builds_and_keeps_text_whole() -> None:
    characters = {chr(code) for code in range(0x21, 0x180)}
    tokens = sorted(characters)
    for pre in PRE_TOKENIZERS:
        fields = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": [],
        }
        backend = backend_from_fields(Path("m.gguf"), fields)
        for text in HARD_TEXTS[:12]:
            assert backend.decode(backend.encode(text).ids) == text, pre


@pytest.mark.parametrize(
    ("bos", "eos", "expected"),
    [
        (None, None, [2]),
        (True, None, [0, 2]),
        (False, True, [2, 3]),
        (True, True, [0, 2, 3]),
    ],
)
def test_header_decides_about_begin_and_end_tokens(
    bos: bool | None, eos: bool | None, expected: list[int]
) -> None:
    fields = FIELDS | {"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 3}
    for name, value in (("bos", bos), ("eos", eos)):
        if value is not None:
            fields[f"tokenizer.ggml.add_{name}_token"] = value
    backend = backend_from_fields(Path("m.gguf"), fields)
    assert backend.encode("ab").ids == expected
    assert backend.encode("ab", add_special_tokens=False).ids == [2]
