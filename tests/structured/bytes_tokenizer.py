"""A byte-level tokenizer small enough to reason about: one token per byte, and a few markers."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from qwen3_runtime.text import Tokenizer

EOS = "<eos>"


def bytes_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(EOS, special=True)])
    backend.add_tokens([AddedToken("</think>", special=False), AddedToken("<tool_call>")])
    return Tokenizer(
        backend,
        where=Path("bytes"),
        special_tokens={"eos_token": EOS},
        eos_token_ids=[backend.token_to_id(EOS)],
        chat_templates={},
    )
