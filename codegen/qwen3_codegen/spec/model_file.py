"""Model specs: a name, an architecture, literal sizes, and how to talk to the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec import kinds, schema
from qwen3_codegen.spec.architecture import check_name
from qwen3_codegen.spec.chat import read_chat
from qwen3_codegen.spec.config_source import ConfigSource, config_from_yaml
from qwen3_codegen.spec.kinds import check_kind
from qwen3_codegen.spec.model import ChatDefaults
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.sections import Section
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.yaml_loader import YamlMap, kind_of, read_yaml

__all__ = [
    "ModelFile",
    "parse_model_file",
    "read_model_file",
]


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
    check_kind(root, kinds.MODEL)
    problems = Problems()
    section = Section(root, kinds.MODEL.title, schema.MODEL, problems)
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
    for key in ignore:
        if key not in config.values:
            problems.add(
                SpecError(
                    f"there is no config field '{key}' to ignore",
                    where=section.where("ignore_config_keys"),
                    hint=nearest(key, config.values),
                )
            )
    chat = read_chat(section)
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
