"""Reading a checkpoint's JSON files with the place in every message."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from qwen3_runtime.checkpoint.mapped_file import refuse_lfs_pointer
from qwen3_runtime.errors import CheckpointError

__all__ = ["parse_json_object", "read_json_object"]

_MAX_BYTES = 64 << 20
"""Larger than any published config or index; a bound on what a broken file can make us hold."""


def read_json_object(path: Path) -> dict[str, object]:
    """Reads a JSON object.

    Raises:
        CheckpointError: The file is missing, unreadable, too large, a git-lfs pointer, or its
            content is not one JSON object with distinct keys.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise CheckpointError(
                "the JSON file is too large", where=path, got=size, expected=f"<= {_MAX_BYTES}"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            "cannot read the file", where=path, got=error.strerror or str(error)
        ) from None
    refuse_lfs_pointer(path, raw)
    return parse_json_object(raw, path)


def parse_json_object(raw: bytes, where: object) -> dict[str, object]:
    """Parses UTF-8 JSON whose top level is an object; ``where`` goes into messages.

    Raises:
        CheckpointError: It is not one JSON object with distinct keys.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"not valid JSON: {error.msg}", where=f"{where}:{error.lineno}"
        ) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CheckpointError(f"not valid JSON: {error}", where=where) from None
    if not isinstance(value, dict):
        raise CheckpointError("not a JSON object", where=where, got=type(value).__name__)
    return value


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"key '{counts.most_common(1)[0][0][:200]}' occurs twice")
    return record
