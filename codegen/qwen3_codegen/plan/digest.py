"""Hashes of records by content, so that two machines and two runs agree on them."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping

from qwen3_codegen.spec.source import SourceLocation


def content_digest(record: object) -> str:
    """Returns a SHA-256 of a frozen record, 64 hex digits.

    Where something stood in which file does not count, nor does the order of a mapping. A field
    whose metadata has ``digest`` ``never`` is left out, one with ``if set`` while it is empty.

    Raises:
        TypeError: A value inside is neither plain nor a record.
    """
    text = json.dumps(_content(record), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _content(entry) for key, entry in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(json.dumps(_content(entry), sort_keys=True) for entry in value)
    if isinstance(value, tuple | list):
        return [_content(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if not isinstance(getattr(value, field.name), SourceLocation)
            and _counts(field.metadata.get("digest"), getattr(value, field.name))
        }
        return {"record": type(value).__name__, **{k: _content(v) for k, v in fields.items()}}
    raise TypeError(f"{type(value).__name__} has no digest")


def _counts(rule: str | None, value: object) -> bool:
    return rule != "never" and (rule != "if set" or bool(value))
