"""Files of the two binary formats, written from scratch and with lies where asked for."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from qwen3_runtime.checkpoint.gguf_architectures import ARCHITECTURES
from tests.fuzz.mutation import NUMBERS, Mutator
from tests.runtime.checkpoint.gguf_writing import header_fields
from tests.runtime.checkpoint.tiny_gguf import CONFIG, EXTRA_FIELDS

__all__ = ["gguf_bytes", "random_gguf", "safetensors_bytes", "safetensors_mutation"]

_ROPE_FIELDS: dict[str, Any] = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scale_linear": 2.0,
    "rope.scaling.original_context_length": 64, "rope.dimension_count": 4,
    "rope.scaling.attn_factor": 1.5, "rope.scaling.yarn_beta_fast": 32.0,
    "attention.sliding_window": 16, "attention.sliding_window_pattern": [True, False],
    "attention.head_count_kv": [2, 2], "final_logit_softcapping": 30.0, "vocab_size": 40,
}  # fmt: skip
_OTHER_FIELDS: dict[str, Any] = {
    "general.alignment": 32, "general.name": "tiny", "split.count": 1,
    "general.sampling.temp": 0.7, "general.sampling.top_k": 20,
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<|im_end|>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3], "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.scores": [0.0, -1.0, -2.0, 0.0], "tokenizer.ggml.eos_token_id": 3,
    "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ messages[0].content }}",
}  # fmt: skip
_FIELD_VALUES: list[Any] = [
    0, 1, -1, 2, 3, 8, 40, 2**31, 2**40, True, False, 0.0, 0.5, -1.0, float("nan"), float("inf"),
    1e-40, 3e38, "", "none", "linear", "longrope", "llama", "\x00", [], [0], [1, 2], [0.5], ["x"],
    [True, False], [False] * 2,
]  # fmt: skip
_CODES: dict[type, tuple[int, str]] = {bool: (7, "?"), int: (11, "q"), float: (6, "f")}


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def _element(value: Any) -> tuple[int, bytes]:
    if isinstance(value, str):
        return 8, _string(value)
    code, layout = _CODES[type(value)]
    if type(value) is int and 0 <= value < 2**32:
        code, layout = 4, "I"
    return code, struct.pack(f"<{layout}", value)


def _value(value: Any) -> bytes:
    if not isinstance(value, list):
        code, raw = _element(value)
        return struct.pack("<I", code) + raw
    elements = [_element(item) for item in value]
    code = elements[0][0] if elements else 4
    body = b"".join(raw for found, raw in elements if found == code)
    count = sum(found == code for found, _ in elements)
    return struct.pack("<IIQ", 9, code, count) + body


def gguf_bytes(
    fields: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], int]],
    content: Callable[[int], bytes] = bytes,
) -> bytes:
    """Returns a GGUF file.

    Args:
        fields: Header fields.
        tensors: Shape, slowest axis first, and number of the block type by name.
        content: Gives this many bytes of a tensor; zeros by default.
    """
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields))
    header += b"".join(_string(key) + _value(value) for key, value in fields.items())
    data = b""
    for name, (shape, kind) in tensors.items():
        header += _string(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", size % 2**64) for size in reversed(shape))
        header += struct.pack("<IQ", kind, len(data))
        data += _padded(content(_num_bytes(shape, kind)), 32)
    return _padded(header, 32) + data


def _padded(raw: bytes, alignment: int) -> bytes:
    return raw + bytes(-len(raw) % alignment)


def _num_bytes(shape: tuple[int, ...], kind: int) -> int:
    """Of a tensor's blocks; what could not be in a small file gets none, and is a lie."""
    block, block_bytes = GGML_QUANT_SIZES.get(_kind(kind), (1, 1))
    count = 1
    for size in shape:
        count *= size
    return count // block * block_bytes if count < 1 << 14 else 0


def _kind(number: int) -> GGMLQuantizationType | None:
    return GGMLQuantizationType(number) if number in set(GGMLQuantizationType) else None


def random_gguf(rng: random.Random) -> bytes:
    """Returns a file of a random architecture, most of whose header is as it should be."""
    architecture = rng.choice(list(ARCHITECTURES))
    fields: dict[str, Any] = {"general.architecture": architecture}
    fields |= header_fields(architecture, CONFIG) | EXTRA_FIELDS.get(architecture, {})
    optional = {f"{architecture}.{key}": value for key, value in _ROPE_FIELDS.items()}
    optional |= _OTHER_FIELDS
    fields |= {key: optional[key] for key in rng.sample(list(optional), rng.randint(0, 8))}
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        fields[rng.choice(list(fields))] = rng.choice(_FIELD_VALUES)
    if rng.random() < 0.3:
        del fields[rng.choice(list(fields))]
    tensors = {"token_embd.weight": ((40, 24), 0)} | _random_tensors(architecture, rng)
    if rng.random() < 0.1:
        del tensors["token_embd.weight"]
    content = rng.choice([bytes, rng.randbytes, lambda count: b"\xff" * count])
    raw = gguf_bytes(fields, tensors, content)
    return raw[: rng.randrange(len(raw))] if rng.random() < 0.05 else raw


def _random_tensors(
    architecture: str, rng: random.Random
) -> dict[str, tuple[tuple[int, ...], int]]:
    row = ARCHITECTURES[architecture]
    names = [f"blk.{layer}.{stem}" for layer in (0, 1, 10**6) for stem in row.layer_names]
    names += [f"blk.0.{stem}" for stem in row.expert_names]
    names += ["output", "output_norm", "rope_freqs", "rope_factors_long", "rope_factors_short", "x"]
    kinds = [int(kind) for kind in GGMLQuantizationType]
    tensors = {}
    for name in rng.sample(names, rng.randint(0, 6)):
        kind = rng.choice([0, 0, 1, 30, rng.choice(kinds), rng.randrange(64)])
        block = GGML_QUANT_SIZES.get(_kind(kind), (1, 1))[0]
        sizes = [rng.choice([0, 1, 2, 3, 8, 32]) for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.1:
            sizes = [rng.choice(NUMBERS) for _ in range(rng.randint(0, 4))]
        width = block * rng.choice([0, 1, 1, 2, rng.choice([1, 3, 2**40])])
        suffix = rng.choice(["weight", "weight", "weight", "bias"])
        tensors[f"{name}.{suffix}"] = ((*sizes, width), kind)
    return tensors


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """Returns a safetensors file."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def safetensors_mutation(mutator: Mutator) -> Callable[[bytes, random.Random], bytes]:
    """Returns edits of the header's JSON, its length kept right, or of any byte."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        length = int.from_bytes(data[:8], "little")
        if length + 8 > len(data) or rng.random() < 0.3:
            return mutator.binary(data, rng)
        header, rest = mutator.json(data[8 : 8 + length], rng), data[8 + length :]
        if rng.random() < 0.1:
            rest += bytes(rng.randint(1, 40))
        return safetensors_bytes(header, rest)

    return mutate
