"""A resolved model back to what it was read from: a model spec, or a config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from qwen3_codegen.spec.config_fields import DTYPE_FIELDS
from qwen3_codegen.spec.model import ConfigValue, ModelSpec
from qwen3_codegen.spec.rope_config import rope_fields
from qwen3_codegen.spec.yaml_loader import parse_scalar

__all__ = ["config_json", "model_yaml"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.+/-]*\Z")
_WIDTH = 96


def model_yaml(spec: ModelSpec, *, architecture: str) -> str:
    """Returns a model spec that resolves to the same model.

    Args:
        spec: The model.
        architecture: What to write after ``architecture:``, a name or a path.
    """
    source = spec.huggingface_config
    lines = [f"name: {_scalar(spec.name)}"]
    lines += [f"architecture: {_scalar(architecture)}", "config:"]
    for key in _written_fields(spec):
        lines += _entry(key, source[key], indent=2)
    if spec.ignored_config_keys:
        lines += _entry("ignore_config_keys", spec.ignored_config_keys, indent=0)
    if chat := _own_chat(spec):
        lines += _entry("chat", chat, indent=0)
    return "\n".join(lines) + "\n"


def _own_chat(spec: ModelSpec) -> dict[str, ConfigValue]:
    """Returns what the model says of itself about chat, and its architecture does not."""
    own, inherited = spec.chat, spec.architecture.chat
    chat: dict[str, ConfigValue] = {
        key: getattr(own, key)
        for key in ("system_prompt", "tool_format", "reasoning_format")
        if getattr(own, key) not in (None, getattr(inherited, key))
    }
    sampling = {
        key: value
        for key, value in own.sampling.items()
        if key not in inherited.sampling or inherited.sampling[key] != value
    }
    return {**chat, "sampling": sampling} if sampling else chat


def _written_fields(spec: ModelSpec) -> Iterator[str]:
    """Yields the fields a reader needs, in the architecture's order; inert ones are left out."""
    schema = spec.architecture.config
    names = [name for field in schema.fields.values() for name in (field.name, *field.aliases)]
    names += [*schema.must_equal, *sorted(rope_fields(spec.architecture)), *DTYPE_FIELDS]
    names += spec.ignored_config_keys
    yield from (name for name in dict.fromkeys(names) if name in spec.huggingface_config)


def _entry(key: str, value: ConfigValue, *, indent: int) -> list[str]:
    margin = " " * indent
    if isinstance(value, Mapping) and value:
        lines = [f"{margin}{_scalar(key)}:"]
        for name, item in value.items():
            lines += _entry(name, item, indent=indent + 2)
        return lines
    text = f"{margin}{_scalar(key)}: {_flow(value)}"
    if len(text) <= _WIDTH or not isinstance(value, tuple):
        return [text]
    return [f"{margin}{_scalar(key)}:", *_wrapped(value, indent + 2)]


def _wrapped(items: tuple[ConfigValue, ...], indent: int) -> list[str]:
    lines: list[str] = []
    margin = " " * (indent + 1)
    for item in items:
        text = f"{_flow(item)},"
        if lines and len(lines[-1]) + len(text) < _WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(margin + text)
    lines[0] = f"{margin[:-1]}[{lines[0].lstrip()}"
    lines[-1] = lines[-1].removesuffix(",") + "]"
    return lines


def _flow(value: ConfigValue) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_scalar(k)}: {_flow(v)}' for k, v in value.items())}}}"
    return _scalar(value)


def _scalar(value: int | float | str | bool | None) -> str:
    """Writes a scalar so that it is read back as itself; text is quoted where it must be."""
    if isinstance(value, str):
        plain = _PLAIN.match(value) and parse_scalar(value, None) == value
        return value if plain else json.dumps(value)
    return json.dumps(value)


def config_json(spec: ModelSpec) -> dict[str, Any]:
    """Returns a config.json that transformers reads as this model, where it knows it."""
    architecture = spec.architecture
    fields = {
        key: value
        for key, value in spec.huggingface_config.items()
        if key not in (*DTYPE_FIELDS, "architectures", "model_type")
    }
    given = spec.huggingface_config.get("model_type")
    known = isinstance(given, str) and given in architecture.model_types
    return {
        "architectures": [architecture.huggingface_class],
        "model_type": given if known else architecture.model_type,
        **fields,
        "torch_dtype": spec.dtype.value,
    }
