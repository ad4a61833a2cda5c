"""The readers under test: what each is given, how inputs are varied, and what is called."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.spec.architecture import parse_architecture
from qwen3_codegen.spec.catalog import load_checkpoint_model, load_model
from qwen3_codegen.spec.config_source import ConfigSource
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.evaluation import evaluate, to_text
from qwen3_codegen.spec.expressions import parse_expression, parse_statement, subexpressions
from qwen3_codegen.spec.resolve import resolve_model
from qwen3_codegen.spec.rules import SharedFields
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.yaml_loader import parse_yaml, read_text
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.checkpoint.json_file import parse_json_object
from qwen3_runtime.checkpoint.safetensors_file import SafetensorsFile
from qwen3_runtime.errors import CheckpointError, RuntimeFault
from qwen3_runtime.generation_config import default_sampling_params, end_token_ids, sampling_notes
from qwen3_runtime.text.chat_template import ChatTemplate
from qwen3_runtime.text.gguf_tokenizer import PRE_TOKENIZERS, backend_from_fields
from tests.fuzz.formats import random_gguf, safetensors_bytes, safetensors_mutation
from tests.fuzz.mutation import Mutator
from tests.fuzz.templates import template_mutation
from tests.spec.descriptions import ARCHITECTURE, CONFIG
from tests.spec.test_transformers_configs import CASES, published

__all__ = ["READERS", "Reader"]

Read = Callable[[bytes], None]
Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader of what strangers wrote."""

    seeds: Callable[[], list[bytes]]
    """Inputs to start from, all of which it reads."""
    mutate: Callable[[Mutator], Mutate]
    reading: Callable[[Path], Read]
    """Gives what reads one input, with a folder to put it in."""
    max_bytes: int = 1 << 14


def _put(path: Path) -> Callable[[bytes], None]:
    """Returns what overwrites one file in place: no file is made per input."""
    stream = path.open("wb", buffering=0)

    def put(data: bytes) -> None:
        stream.seek(0)
        stream.write(data)
        stream.truncate()

    return put


# ---- descriptions ---------------------------------------------------------------------------


def _shipped(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(modelspecs_dir().glob(pattern))]


def _architectures() -> list[bytes]:
    """Small ones: PyYAML takes a millisecond for ten lines."""
    return [ARCHITECTURE.encode(), *_shipped("architectures/mistral.yaml")]


def _read_architecture(folder: Path) -> Read:
    file = folder / "architecture.yaml"
    put = _put(file)
    more = {"intermediate_size": 40, "rope_theta": 1e4, "tie_word_embeddings": True}
    small, whole = (
        ConfigSource(values={**CONFIG, **fields}, path="config.json") for fields in ({}, more)
    )

    def read(data: bytes) -> None:
        put(data)
        root = parse_yaml(read_text(file, "architecture.yaml"), "architecture.yaml")
        spec = parse_architecture(root, SharedFields())
        source = whole if "intermediate_size" in spec.config.fields else small
        resolve_model(spec, source, name="x", location=SourceLocation("config.json", 1))

    return read


def _read_model_spec(folder: Path) -> Read:
    file = folder / "model.yaml"
    put = _put(file)

    def read(data: bytes) -> None:
        put(data)
        load_model(str(file))

    return read


def _devices() -> list[bytes]:
    extending = b"device: my-card\nextends: %s\naliases: [mine]\ndtypes: [f32, bf16]\n"
    return [*_shipped("devices/*.yaml"), *(extending % base for base in (b"cpu", b"device.yaml"))]


def _read_device(folder: Path) -> Read:
    file = folder / "device.yaml"
    put = _put(file)

    def read(data: bytes) -> None:
        put(data)
        load_device(str(file))

    return read


_EXPRESSIONS = [
    "scale_depth / sqrt(num_hidden_layers)", "divide(hidden_size, num_attention_heads)",
    "'full' if layer % 2 == 0 else 'sliding'", "layer_types[layer]", "a.b.c[0] ** -2 // 3",
    "not (a and b or c != none)", "layer in [1, 2, 3] and layer not in []", "-x + 1.5e3 * 0x10",
    "round_to(hidden_size ** 0.5, dtype)", "min(max(1, 2), round_up(hidden_size, 64))",
    "q, k = rope(q, k, table=layer.rope)", "h = h + linear(a, weight=attn.o, out=hidden_size)",
    "len(layer_types) == num_hidden_layers", "rope.full['theta']",
]  # fmt: skip


def _read_expression(folder: Path) -> Read:
    where = SourceLocation("expression", 1)
    names = {
        **CONFIG, "layer": 2, "layer_types": ("full", "sliding", "full"), "dtype": "bfloat16",
        "scale_depth": 1.4, "x": 3, "a": True, "b": False, "c": None,
        "rope": {"full": {"theta": 1e4}},
    }  # fmt: skip

    def read(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        if "=" in text.replace("==", "").replace("!=", ""):
            parsed = parse_statement(text, where).expression
        else:
            parsed = parse_expression(text, where)
        list(subexpressions(parsed))
        to_text(parsed)
        evaluate(parsed, names, location=where)

    return read


# ---- checkpoints ----------------------------------------------------------------------------


def _configs() -> list[bytes]:
    """Of every architecture, and one that says how to sample, which only generation configs may."""
    generation = {"eos_token_id": [1, 2], "temperature": 0.6, "top_k": 20, "do_sample": True}
    configs = [*map(published, CASES), {**published("llama"), **generation}]
    return [json.dumps(config, indent=1).encode() for config in configs]


@dataclass(frozen=True)
class _Settings:
    """As much of a checkpoint as its settings are read from."""

    path: Path
    config: Mapping[str, object]
    generation_config: Mapping[str, object]


def _read_config(folder: Path) -> Read:
    file = folder / "config.json"
    put = _put(file)

    def read(data: bytes) -> None:
        put(data)
        values = parse_json_object(data, file)
        settings: Any = _Settings(folder, values, values)
        with suppress(RuntimeFault):
            end_token_ids(settings)
            default_sampling_params(settings)
            sampling_notes(settings)
        load_model(str(folder))

    return read


def _safetensors() -> list[bytes]:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "U8", "shape": [0, 5], "data_offsets": [32, 32]},
        "d": {"dtype": "F64", "shape": [], "data_offsets": [32, 40]},
    }
    return [safetensors_bytes(header, bytes(range(40))), safetensors_bytes({}, b"")]


def _read_safetensors(folder: Path) -> Read:
    file = folder / "model.safetensors"
    put = _put(file)

    def read(data: bytes) -> None:
        put(data)
        opened = SafetensorsFile(file)
        try:
            for name, info in opened.tensors.items():
                _read_tensor(opened, name, info.shape)
        finally:
            opened.close()

    return read


def _ggufs() -> list[bytes]:
    return [random_gguf(random.Random(seed)) for seed in range(40)]


def _gguf_mutation(mutator: Mutator) -> Mutate:
    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            data = random_gguf(rng)
        return data if rng.random() < 0.3 else mutator.binary(data, rng)

    return mutate


def _read_gguf(folder: Path) -> Read:
    file = folder / "model.gguf"
    put = _put(file)

    def read(data: bytes) -> None:
        put(data)
        with open_checkpoint(file) as checkpoint:
            for name, info in checkpoint.tensors.items():
                _read_tensor(checkpoint, name, info.shape)
            end_token_ids(checkpoint)
            default_sampling_params(checkpoint)
        load_checkpoint_model(str(file))

    return read


def _read_tensor(checkpoint: Any, name: str, shape: tuple[int, ...]) -> None:
    with suppress(CheckpointError):
        array = checkpoint.read(name)
        assert array.shape == shape
        array.tobytes()
    checkpoint.release(name)


# ---- text -----------------------------------------------------------------------------------


def _vocabularies() -> list[bytes]:
    common = {
        "tokens": ["a", "b", "ab", "\u0120", "<|im_end|>", "<pad>", "\u2581a", "<0x41>"],
        "token_type": [1, 1, 1, 1, 3, 4, 1, 6],
        "merges": ["a b"],
        "scores": [0.0, -1.0, -2.0, -3.0, 0.0, 0.0, -1.5, 0.0],
        "bos_token_id": 4,
        "add_bos_token": True,
    }
    byte_level = [{**common, "model": "gpt2", "pre": pre} for pre in PRE_TOKENIZERS]
    seeds = [*byte_level, {**common, "model": "llama", "token_type": [1, 1, 1, 1, 3, 4, 1, 2]}]
    return [json.dumps(seed, ensure_ascii=False).encode() for seed in seeds]


def _read_vocabulary(folder: Path) -> Read:
    def read(data: bytes) -> None:
        fields = parse_json_object(data, "fields")
        named = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
        backend = backend_from_fields(Path("model.gguf"), named)
        ids = backend.encode("a ab  <|im_end|>\u00e9\n1234 don't").ids
        backend.decode(ids, skip_special_tokens=False)

    return read


_TEMPLATES = [
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{%- set ns = namespace(x=0) -%}{%- for i in range(9) -%}{%- set ns.x = ns.x + i -%}"
    "{%- endfor -%}{{ ns.x }}{{ raise_exception('no') if ns.x > 99 }}",
    "{% macro f(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ f('x') }}{{ tools | tojson(indent=2) }}",
    "{{ messages[::-1] | map(attribute='role') | join(', ') }}{{ 'a' * 3 }}{{ '%s' % 'b' }}",
    "{{ messages[0].content.split('a')[0].strip().upper() }}{{ strftime_now('%Y') is defined }}",
    "{% filter upper %}{{ {'a': [1, 2.5, none]} | items | list }}{% endfilter %}{{ 2 ** 10 // 3 }}",
]


def _read_template(folder: Path) -> Read:
    messages = [
        {"role": "user", "content": "a\u00e9b"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x": [1, None]}}}]

    def read(data: bytes) -> None:
        template = ChatTemplate(data.decode("utf-8", "replace"), "template")
        template.render(messages, tools=tools, variables={"bos_token": "<s>"})

    return read


def _text(mutator: Mutator) -> Mutate:
    return mutator.text


def _json(mutator: Mutator) -> Mutate:
    return mutator.json


def _encoded(texts: list[str]) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


READERS: dict[str, Reader] = {
    "architecture": Reader(seeds=_architectures, mutate=_text, reading=_read_architecture),
    "model-spec": Reader(seeds=lambda: _shipped("*.yaml"), mutate=_text, reading=_read_model_spec),
    "device": Reader(seeds=_devices, mutate=_text, reading=_read_device),
    "expression": Reader(
        seeds=_encoded(_EXPRESSIONS), mutate=_text, reading=_read_expression, max_bytes=4096
    ),
    "config": Reader(seeds=_configs, mutate=_json, reading=_read_config),
    "safetensors": Reader(
        seeds=_safetensors, mutate=safetensors_mutation, reading=_read_safetensors
    ),
    "gguf": Reader(seeds=_ggufs, mutate=_gguf_mutation, reading=_read_gguf, max_bytes=1 << 17),
    "vocabulary": Reader(seeds=_vocabularies, mutate=_json, reading=_read_vocabulary),
    "chat-template": Reader(
        seeds=_encoded(_TEMPLATES), mutate=template_mutation, reading=_read_template
    ),
}
"""By name. A new one is an entry here and a folder of the same name under ``corpus``."""
