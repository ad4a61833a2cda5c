"""Model specs: a name, an architecture, literal sizes, and how to talk to the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec import schema
from qwen3_codegen.spec.architecture import check_name
from qwen3_codegen.spec.config_source import ConfigSource, config_from_yaml
from qwen3_codegen.spec.model import Attribute, ChatDefaults
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.sections import Section, unknown_key
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.yaml_loader import YamlMap, YamlScalar, kind_of, read_yaml

__all__ = [
    "REASONING_FORMATS",
    "SAMPLING_DEFAULTS",
    "TOOL_FORMATS",
    "ModelFile",
    "parse_model_file",
    "read_model_file",
]

TOOL_FORMATS = {"hermes": "`<tool_call>{...}</tool_call>` around JSON"}
REASONING_FORMATS = {"think": "reasoning between `<think>` and `</think>`"}
SAMPLING_DEFAULTS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
"""Sampling parameters a model spec may set, with their bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model spec as written, sizes unchecked."""

    name: str
    description: str
    architecture: str
    """Name of a shipped architecture, or a path relative to the model spec."""
    architecture_location: SourceLocation
    config: ConfigSource
    ignore_config_keys: tuple[str, ...]
    chat: ChatDefaults
    location: SourceLocation


def read_model_file(file: Path, shown: str) -> ModelFile:
    """Reads a model spec.

    Raises:
        SpecError: Everything that is wrong with the file apart from its sizes, at once.
    """
    return parse_model_file(read_yaml(file, shown))


def parse_model_file(root: YamlMap) -> ModelFile:
    """Reads a model spec from parsed YAML; see ``read_model_file``."""
    problems = Problems()
    section = Section(root, "a model spec", schema.MODEL, problems)
    name = section.text("name")
    if "name" in section:
        with problems.collect():
            check_name(name, section.where("name"))
    description = section.text("description")
    architecture = section.text("architecture")
    config = ConfigSource(values={}, path=root.location.path)
    node = section.node("config")
    if isinstance(node, YamlMap):
        config = config_from_yaml(node)
    elif node is not None:
        problems.add(
            SpecError("'config' must be a mapping", where=node.location, got=kind_of(node))
        )
    ignore = section.texts("ignore_config_keys")
    chat = _chat(section)
    problems.raise_any()
    return ModelFile(
        name=name,
        description=description,
        architecture=architecture,
        architecture_location=section.where("architecture"),
        config=config,
        ignore_config_keys=ignore,
        chat=chat,
        location=root.location,
    )


def _chat(section: Section) -> ChatDefaults:
    chat = section.section("chat", schema.CHAT)
    if chat is None:
        return ChatDefaults()
    return ChatDefaults(
        system_prompt=chat.scalar("system_prompt", str),
        tool_format=_format(chat, "tool_format", TOOL_FORMATS),
        reasoning_format=_format(chat, "reasoning_format", REASONING_FORMATS),
        sampling=_sampling(chat),
    )


def _format(chat: Section, key: str, known: dict[str, str]) -> str | None:
    value = chat.scalar(key, str)
    if value is not None and value not in known:
        chat.problems.add(
            SpecError(
                f"unknown {key} '{value}'",
                where=chat.where(key),
                expected=", ".join(known),
                hint=nearest(value, known),
            )
        )
    return value


def _sampling(chat: Section) -> dict[str, Attribute]:
    sampling: dict[str, Attribute] = {}
    for key, node, where in chat.entries("sampling"):
        value = node.value if isinstance(node, YamlScalar) else None
        if key not in SAMPLING_DEFAULTS:
            chat.problems.add(unknown_key(key, "'sampling'", SAMPLING_DEFAULTS, where))
            continue
        low, high = SAMPLING_DEFAULTS[key]
        wanted = int if isinstance(low, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value <= high:
            chat.problems.add(
                SpecError(
                    f"'{key}' is out of range",
                    where=where,
                    got=kind_of(node),
                    expected=f"{low} to {high}",
                )
            )
        sampling[key] = value
    return sampling
