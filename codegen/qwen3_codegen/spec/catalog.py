"""Finding specs: shipped names, YAML paths, checkpoint folders and GGUF files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.paths import modelspecs_dir
from qwen3_codegen.spec.architecture import read_architecture
from qwen3_codegen.spec.config_rules import parse_shared_fields
from qwen3_codegen.spec.config_source import ConfigSource, config_from_json, freeze
from qwen3_codegen.spec.functions import FunctionTable
from qwen3_codegen.spec.model import ArchitectureSpec, ModelSpec
from qwen3_codegen.spec.model_file import ModelFile, read_model_file
from qwen3_codegen.spec.near_names import nearest_model
from qwen3_codegen.spec.resolve import resolve_model
from qwen3_codegen.spec.rules import SharedFields
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.yaml_loader import read_yaml, shorten

__all__ = [
    "architecture_for_model_type",
    "architecture_names",
    "load_architecture",
    "load_checkpoint_model",
    "load_model",
    "model_names",
    "shipped_models",
]

_SUFFIXES = (".yaml", ".yml")


def model_names() -> list[str]:
    """Returns the names of the shipped model specs, sorted."""
    return sorted(file.stem for file in modelspecs_dir().glob("*.yaml"))


def architecture_names() -> list[str]:
    """Returns the names of the shipped architectures, sorted."""
    return sorted(file.stem for file in (modelspecs_dir() / "architectures").glob("*.yaml"))


def shipped_models() -> list[ModelFile]:
    """Reads every shipped model spec."""
    folder = modelspecs_dir()
    return [read_model_file(folder / f"{name}.yaml", _shown(name)) for name in model_names()]


def _shown(name: str) -> str:
    return f"modelspecs/{name}.yaml"


@lru_cache(maxsize=4)
def _shared_fields(folder: Path) -> SharedFields:
    shown = "huggingface/config_fields.yaml"
    return parse_shared_fields(read_yaml(folder / shown, f"modelspecs/{shown}"))


def load_architecture(
    reference: str,
    *,
    beside: Path | None = None,
    where: object | None = None,
    own_functions: FunctionTable | None = None,
) -> ArchitectureSpec:
    """Reads an architecture.

    Args:
        reference: A shipped name, or a path to a YAML file.
        beside: Folder that a relative path starts from; the working folder when None.
        where: Place of the reference, for messages.
        own_functions: Ops of the user's own, which a file's statements may call.

    Raises:
        SpecError: There is no such architecture, or its file is wrong.
    """
    folder = modelspecs_dir()
    shared = _shared_fields(folder)
    if reference.endswith(_SUFFIXES):
        shown = str((beside or Path()) / reference)
        file = Path(shown)
        if os.path.isdir(file):
            raise SpecError("an architecture is a file", where=where, got=f"the folder {shown}")
        if not os.path.isfile(file):
            raise SpecError("architecture file not found", where=where, got=shown)
        return read_architecture(file, shown, shared, own_functions)
    if reference not in architecture_names():
        raise SpecError(
            f"unknown architecture '{shorten(reference)}'",
            where=where,
            expected=f"a path ending in .yaml, or one of {', '.join(architecture_names())}",
            hint=nearest(reference, architecture_names()),
        )
    return _shipped_architecture(folder, reference)


@lru_cache(maxsize=64)
def _shipped_architecture(folder: Path, name: str) -> ArchitectureSpec:
    file = folder / "architectures" / f"{name}.yaml"
    architecture = read_architecture(
        file, f"modelspecs/architectures/{name}.yaml", _shared_fields(folder)
    )
    if architecture.name != name:
        raise SpecError(
            "the architecture's name is not the file's",
            where=architecture.location,
            got=architecture.name,
            expected=name,
        )
    return architecture


def architecture_for_model_type(model_type: object, where: object) -> ArchitectureSpec:
    """Returns the shipped architecture that a config.json's ``model_type`` names.

    Raises:
        SpecError: None does.
    """
    folder = modelspecs_dir()
    by_type = {
        known: name
        for name in architecture_names()
        for known in _shipped_architecture(folder, name).model_types
    }
    if not isinstance(model_type, str) or model_type not in by_type:
        got = shorten(ascii(model_type))
        near = nearest(model_type, by_type) if isinstance(model_type, str) else None
        arch = "--arch NAME or --arch FILE.yaml chooses an architecture"
        raise SpecError(
            "no architecture for this model_type",
            where=where,
            got="no model_type" if model_type is None else got,
            expected=", ".join(sorted(by_type)),
            hint=f"{near}; {arch}" if near else arch,
        )
    return _shipped_architecture(folder, by_type[model_type])


def load_model(
    reference: str,
    *,
    overrides: Mapping[str, str] | None = None,
    ignore_config_keys: tuple[str, ...] = (),
    architecture: str | None = None,
    name: str | None = None,
    own_functions: FunctionTable | None = None,
) -> ModelSpec:
    """Loads a model.

    Args:
        reference: A shipped name, the path of a model spec, of a checkpoint folder, of its
            config.json, or of a GGUF file.
        overrides: ``--set`` values by config field, as text.
        ignore_config_keys: Config fields the user vouches for, beside the model spec's own.
        architecture: Name or path that replaces the architecture the model names.
        name: The model's name; its model spec's or its folder's when None.
        own_functions: Ops of the user's own, which the architecture's statements may call.

    Raises:
        SpecError: There is no such model, or its description is wrong.
        CheckpointError: The path is no checkpoint.
    """
    path = Path(reference)
    if reference.endswith(_SUFFIXES):
        if os.path.isdir(path):
            raise SpecError("a model spec is a file", where=reference, got="a folder")
        if not os.path.isfile(path):
            raise SpecError("model spec not found", where=reference, hint=_near_path(path))
        return _from_spec(
            path, reference, overrides, ignore_config_keys, architecture, name, own_functions
        )
    if reference in model_names():
        file, shown = modelspecs_dir() / f"{reference}.yaml", _shown(reference)
        return _from_spec(
            file, shown, overrides, ignore_config_keys, architecture, name, own_functions
        )
    if not os.path.exists(path):
        raise SpecError(
            f"no model spec or checkpoint '{shorten(reference)}'",
            expected=f"a path, or one of {', '.join(model_names())}",
            hint=nearest_model(reference, model_names()),
        )
    return load_checkpoint_model(
        reference,
        overrides=overrides,
        ignore_config_keys=ignore_config_keys,
        architecture=architecture,
        name=name,
        own_functions=own_functions,
    )


def load_checkpoint_model(
    reference: str,
    *,
    overrides: Mapping[str, str] | None = None,
    ignore_config_keys: tuple[str, ...] = (),
    architecture: str | None = None,
    name: str | None = None,
    own_functions: FunctionTable | None = None,
) -> ModelSpec:
    """Loads the model of a checkpoint, even when a shipped spec has the folder's name.

    Args:
        reference: A folder with config.json, a config.json, or a GGUF file or a folder with one.
        overrides: See ``load_model``.
        ignore_config_keys: See ``load_model``.
        architecture: See ``load_model``.
        name: See ``load_model``.
        own_functions: See ``load_model``.

    Raises:
        SpecError: Its description is wrong, or no architecture fits.
        CheckpointError: It is no checkpoint.
    """
    found, source = _checkpoint_config(Path(reference), reference)
    where = source.where("model_type")
    chosen = (
        load_architecture(architecture, own_functions=own_functions)
        if architecture
        else architecture_for_model_type(source.values.get("model_type"), where)
    )
    return resolve_model(
        chosen,
        source,
        name=name or found,
        location=SourceLocation(source.path, 1),
        overrides=overrides,
        ignore_config_keys=tuple(ignore_config_keys),
    )


def _near_path(path: Path) -> str | None:
    if not os.path.isdir(path.parent):
        return None
    return nearest(path.name, [file.name for file in path.parent.iterdir()])


def _from_spec(
    file: Path,
    shown: str,
    overrides: Mapping[str, str] | None,
    ignore_config_keys: tuple[str, ...],
    architecture: str | None,
    name: str | None,
    own_functions: FunctionTable | None,
) -> ModelSpec:
    model = read_model_file(file, shown)
    chosen = (
        load_architecture(architecture, own_functions=own_functions)
        if architecture
        else load_architecture(
            model.architecture,
            beside=file.parent,
            where=model.architecture_location,
            own_functions=own_functions,
        )
    )
    return resolve_model(
        chosen,
        model.config,
        name=name or model.name,
        location=model.location,
        overrides=overrides,
        ignore_config_keys=(*model.ignore_config_keys, *ignore_config_keys),
        chat=model.chat,
    )


def _checkpoint_config(path: Path, reference: str) -> tuple[str, ConfigSource]:
    """Returns a name for the model in a checkpoint, and its config."""
    file = path / "config.json" if os.path.isdir(path) else path
    if file.name == "config.json" and os.path.isfile(file):
        shown = str(Path(reference) / "config.json") if os.path.isdir(path) else reference
        return _model_name(file.resolve().parent.name), config_from_json(file, shown)
    from qwen3_runtime.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path)
    try:
        values = freeze(checkpoint.config)
    finally:
        checkpoint.close()
    assert isinstance(values, Mapping)
    return _model_name(path.stem), ConfigSource(values=values, path=reference)


def _model_name(text: str) -> str:
    """Turns a folder's or file's name into a model name; an empty one becomes ``model``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "model"
