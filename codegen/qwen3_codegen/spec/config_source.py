"""Where config fields come from: a config.json, a model spec, a GGUF header, ``--set``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec.model import ConfigValue
from qwen3_codegen.spec.yaml_loader import YamlMap, parse_scalar, plain, read_text, shorten

__all__ = ["ConfigSource", "config_from_json", "config_from_yaml", "freeze", "parse_overrides"]

_MAX_JSON_BYTES = 16 << 20
_KEY = re.compile(r'\s*(?:[{,]\s*)?"([^"\\]+)"\s*:')
"""Takes a time in proportion to the line, which may be all blanks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """Config fields and the place of each."""

    values: Mapping[str, ConfigValue]
    path: str
    line: int | None = None
    """Where the fields begin, where the file has lines."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of a field, where the file has lines."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Fields given by ``--set``, with the option as the user wrote it."""

    def where(self, key: str) -> str:
        """Returns the place of a field for a message."""
        if key in self.overrides:
            return self.overrides[key]
        line = self.lines.get(key, self.line)
        return self.path if line is None else f"{self.path}:{line}"


def freeze(value: Any) -> ConfigValue:
    """Returns JSON values with tuples in place of lists."""
    if isinstance(value, Mapping):
        return {str(key): freeze(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SpecError("not a config value", got=type(value).__name__)


def config_from_json(
    file: Path, shown: str, values: Mapping[str, Any] | None = None
) -> ConfigSource:
    """Reads a config.json.

    Args:
        file: What to open.
        shown: The path that messages name.
        values: Its content, when somebody has parsed it already.

    Raises:
        SpecError: The file cannot be read, is no JSON object, or has a key twice.
    """
    text = read_text(file, shown, max_bytes=_MAX_JSON_BYTES)
    if values is None:
        values = _parse_json(text, shown)
    frozen, lines = _frozen(values, shown), _json_lines(text)
    return ConfigSource(values=frozen, path=shown, line=1, lines=lines)


def _parse_json(text: str, shown: str) -> Mapping[str, Any]:
    def distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise SpecError(f"duplicate key '{shorten(key)}'", where=shown)
            result[key] = value
        return result

    try:
        values = json.loads(text, object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        raise SpecError(f"not JSON: {error.msg}", where=f"{shown}:{error.lineno}") from None
    except (RecursionError, ValueError):
        raise SpecError("not JSON that can be read", where=shown) from None
    if not isinstance(values, dict):
        raise SpecError("not a JSON object", where=shown)
    return values


def _frozen(values: Mapping[str, Any], shown: str) -> Mapping[str, ConfigValue]:
    try:
        frozen = freeze(values)
    except RecursionError:
        raise SpecError("nested too deeply", where=shown) from None
    assert isinstance(frozen, Mapping)
    return frozen


def _json_lines(text: str) -> dict[str, int]:
    """Finds the line of each top-level key of indented JSON: the first one with that name."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _KEY.match(line)
        if match:
            lines.setdefault(match.group(1), number)
    return lines


def config_from_yaml(node: YamlMap) -> ConfigSource:
    """Takes the fields of a model spec's ``config`` mapping."""
    values = _frozen(plain(node), node.location.path)
    lines = {key: location.line for key, location in node.keys.items()}
    location = node.location
    return ConfigSource(values=values, path=location.path, line=location.line, lines=lines)


def parse_overrides(overrides: Mapping[str, str]) -> dict[str, ConfigValue]:
    """Reads ``--set key=value`` values: JSON for lists and objects, a YAML scalar otherwise.

    Raises:
        SpecError: A value starts like JSON and is none.
    """
    parsed: dict[str, ConfigValue] = {}
    for key, text in overrides.items():
        where = f"--set {key}"
        if text.lstrip()[:1] in ("[", "{", '"'):
            try:
                parsed[key] = freeze(json.loads(text))
            except (ValueError, RecursionError):
                raise SpecError(
                    "not JSON",
                    where=where,
                    got=shorten(text),
                    expected=f"""such as --set '{key}=["a", "b"]': text in double quotes, and """
                    "all of it in single ones for the shell",
                ) from None
        else:
            parsed[key] = parse_scalar(text.strip(), where)
    return parsed
