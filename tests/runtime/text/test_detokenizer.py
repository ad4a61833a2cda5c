"""Streaming: pieces joined are the whole text, and no piece holds half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from qwen3_runtime.text import Tokenizer
from qwen3_runtime.text.detokenizer import ByteLevelDetokenizer, WindowDetokenizer
from tests.runtime.text.corpus import HARD_TEXTS


def streamed(tokenizer: Tokenizer, ids: Sequence[int], skip: bool = True) -> list[str]:
    stream = tokenizer.stream(skip)
    return [*(stream.add(token) for token in ids), stream.finish()]


@pytest.mark.network
def test_qwen3_tokens_of_half_a_character_are_held_until_whole(qwen3: Tokenizer) -> None:
    """Emoji of two and three tokens, none of them a character; Chinese words whole in one."""
    emoji = qwen3.encode("\U0001f9ac\U0001fae8")
    assert len(emoji) == 5
    assert all("\ufffd" in qwen3.decode([token]) for token in emoji)
    pieces = streamed(qwen3, [*qwen3.encode("ok "), *emoji, *qwen3.encode("!")])
    assert [piece for piece in pieces if piece] == ["ok", " ", "\U0001f9ac", "\U0001fae8", "!"]
    assert streamed(qwen3, [101325, 101283]) == ["拖", "慢慢", ""]


@pytest.mark.network
@pytest.mark.parametrize("skip", [True, False])
def test_qwen3_streams_what_it_decodes(qwen3: Tokenizer, skip: bool) -> None:
    chat = "<|im_start|>user\nhi<|im_end|>\n<think>x</think>"
    for text in (*HARD_TEXTS, chat):
        ids = qwen3.encode(text)
        assert "".join(streamed(qwen3, ids, skip)) == qwen3.decode(ids, skip)


@pytest.mark.network
@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 151700), max_size=30))
def test_qwen3_streams_any_ids_as_it_decodes_them(qwen3: Tokenizer, ids: list[int]) -> None:
    """Also invalid UTF-8: both show U+FFFD at the same places."""
    for skip in (True, False):
        assert "".join(streamed(qwen3, ids, skip)) == qwen3.decode(ids, skip)


@pytest.mark.network
def test_qwen3_end_of_turn_streams_as_nothing(qwen3: Tokenizer) -> None:
    ids = [*qwen3.encode("done"), 151645]
    assert streamed(qwen3, ids) == ["done", "", ""]
    assert streamed(qwen3, ids, skip=False)[1] == "<|im_end|>"


@pytest.fixture(scope="module")
def llama2(tokenizer_folder: Callable[[str], Path]) -> Tokenizer:
    folder = tokenizer_folder("llama2")
    return Tokenizer(
        Backend.from_file(str(folder / "tokenizer.json")),
        where=folder,
        special_tokens={"bos_token": "<s>"},
        eos_token_ids=[2],
        chat_templates={},
    )


@pytest.mark.network
def test_sentencepiece_streams_what_it_decodes(llama2: Tokenizer) -> None:
    """Leading spaces stay between words and vanish only at the start; bytes join to characters."""
    for text in HARD_TEXTS:
        ids = llama2.encode(text)
        pieces = streamed(llama2, ids)
        assert "".join(pieces) == llama2.decode(ids), repr(text)
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces), repr(text)
    assert streamed(llama2, llama2.encode("Hello big world")) == ["", "Hello", " big", " world", ""]


@pytest.mark.network
def test_sentencepiece_keeps_its_place_through_control_tokens(llama2: Tokenizer) -> None:
    ids = [*llama2.encode("Hello"), *[2] * 20, *llama2.encode("world", add_special_tokens=False)]
    assert "".join(streamed(llama2, ids)) == llama2.decode(ids) == "Hello world"


@pytest.mark.network
def test_sentencepiece_shows_hopeless_bytes_and_goes_on(llama2: Tokenizer) -> None:
    byte = llama2.token_id("<0xFF>")
    assert byte is not None
    ids = [*llama2.encode("a"), *[byte] * 40, *llama2.encode("b", add_special_tokens=False)]
    pieces = streamed(llama2, ids)
    assert "".join(pieces) == "a" + "\ufffd" * 40 + " b"
    held = max(len(piece) for piece in pieces)
    assert held <= 9


@pytest.mark.network
def test_unfinished_character_is_shown_as_replacement_at_the_end(
    qwen3: Tokenizer, llama2: Tokenizer
) -> None:
    half = qwen3.encode("\U0001fae8")[:2]
    assert streamed(qwen3, half) == ["", "", "\ufffd"]
    byte = llama2.token_id("<0xE4>")
    assert byte is not None
    assert streamed(llama2, [byte])[-1] == "\ufffd"


def test_byte_level_needs_one_look_per_token() -> None:
    looked_at = list[int]()

    def token_bytes(token_id: int) -> bytes:
        looked_at.append(token_id)
        return bytes([token_id])

    stream = ByteLevelDetokenizer(token_bytes)
    assert [stream.add(byte) for byte in b"a\xe4\xbd\xa0\xff"] == ["a", "", "", "你", "\ufffd"]
    assert looked_at == list(b"a\xe4\xbd\xa0\xff")


def test_window_stays_short() -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return "".join(chr(97 + token % 26) for token in ids)

    stream = WindowDetokenizer(decode, lambda token_id: True)
    text = "".join(stream.add(token) for token in range(1000)) + stream.finish()
    assert len(text) == 1000
    assert longest <= 3
