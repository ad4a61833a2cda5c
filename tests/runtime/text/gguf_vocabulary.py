"""Turns a real tokenizer.json into the GGUF fields llama.cpp's converters would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.runtime.checkpoint.gguf_writing import write_gguf

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def vocabulary_gguf(
    path: Path,
    folder: Path,
    *,
    pre: str | None,
    padding: int = 0,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Writes a GGUF file with a real vocabulary and the smallest model that opens.

    Args:
        path: File to write.
        folder: Holds tokenizer.json and tokenizer_config.json.
        pre: Name of the pre-tokenizer, None for a SentencePiece vocabulary.
        padding: Unused rows after the last token, as models round up their embedding.
        changes: Fields to add or, with None, to leave out.
    """
    fields = tokenizer_fields(folder, pre, padding) | (changes or {})
    model = {
        "llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 1,
        "llama.feed_forward_length": 1, "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    kept = {key: value for key, value in (model | fields).items() if value is not None}
    rows = len(fields["tokenizer.ggml.tokens"])
    return write_gguf(path, "llama", kept, {"token_embd.weight": np.zeros((rows, 1), np.float16)})


def tokenizer_fields(folder: Path, pre: str | None, padding: int = 0) -> dict[str, Any]:
    """The fields conversion would write."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    ids = dict(tokenizer["model"]["vocab"])
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    ids |= {content: token["id"] for content, token in added.items()}
    count = max(ids.values()) + 1 + padding
    tokens, kinds = [f"[PAD{index}]" for index in range(count)], [UNUSED] * count
    for content, token_id in ids.items():
        tokens[token_id] = content
        kinds[token_id] = kind_of(content, added, pre)
    fields: dict[str, Any] = {
        "tokenizer.ggml.model": "llama" if pre is None else "gpt2",
        "tokenizer.ggml.pre": pre or "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
    }
    if pre is None:
        fields["tokenizer.ggml.scores"] = scores_of(tokens, pairs_of(tokenizer))
    else:
        fields["tokenizer.ggml.merges"] = [" ".join(pair) for pair in pairs_of(tokenizer)]
    for name in ("bos", "eos"):
        token = settings.get(f"{name}_token")
        content = token["content"] if isinstance(token, dict) else token
        if content in ids:
            fields[f"tokenizer.ggml.{name}_token_id"] = ids[content]
        if f"add_{name}_token" in settings:
            fields[f"tokenizer.ggml.add_{name}_token"] = settings[f"add_{name}_token"]
    if isinstance(settings.get("chat_template"), str):
        fields["tokenizer.chat_template"] = settings["chat_template"]
    return fields


def pairs_of(tokenizer: dict[str, Any]) -> list[tuple[str, str]]:
    """Merges in order; older files write each as one string."""
    merges = tokenizer["model"]["merges"]
    return [
        (left, right) for left, right in (m.split(" ") if isinstance(m, str) else m for m in merges)
    ]


def scores_of(tokens: list[str], pairs: list[tuple[str, str]]) -> list[float]:
    """Scores that SentencePiece would have for pieces found in this order."""
    first: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        first.setdefault(left + right, rank)
    return [-float(first.get(token, len(pairs))) for token in tokens]


def kind_of(content: str, added: dict[str, Any], pre: str | None) -> int:
    if content == "<unk>" and pre is None:
        return UNKNOWN
    if content in added:
        looks_special = content.startswith("<|") and content.endswith("|>")
        return CONTROL if added[content]["special"] or looks_special else USER_DEFINED
    is_byte = pre is None and len(content) == 6 and content.startswith("<0x")
    return BYTE if is_byte else NORMAL
