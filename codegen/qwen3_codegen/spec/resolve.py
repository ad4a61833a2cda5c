"""An architecture and config fields to a ``ModelSpec``: every size known, every rule checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.architecture import check_name
from qwen3_codegen.spec.chat import merged_chat
from qwen3_codegen.spec.config_fields import (
    DTYPE_FIELDS,
    check_field_names,
    derive_fields,
    read_fields,
    with_field_names,
)
from qwen3_codegen.spec.config_source import ConfigSource
from qwen3_codegen.spec.evaluation import evaluate
from qwen3_codegen.spec.expressions import names_in
from qwen3_codegen.spec.model import (
    ArchitectureSpec,
    ChatDefaults,
    ConfigValue,
    LayerSpec,
    ModelSpec,
)
from qwen3_codegen.spec.overrides import with_overrides
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.rope_config import resolve_rope, rope_fields, rope_notes
from qwen3_codegen.spec.rules import LayerTypeRule, LocatedExpression, Note
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Literal
from qwen3_codegen.spec.yaml_loader import kind_of

__all__ = ["resolve_model", "with_dtype"]

_DTYPES = {dtype.value: dtype for dtype in (DType.F32, DType.BF16, DType.F16)}
_DTYPES |= {f"torch.{name}": dtype for name, dtype in _DTYPES.items()}


def resolve_model(
    architecture: ArchitectureSpec,
    source: ConfigSource,
    *,
    name: str,
    location: SourceLocation,
    overrides: Mapping[str, str] | None = None,
    ignore_config_keys: tuple[str, ...] = (),
    chat: ChatDefaults | None = None,
) -> ModelSpec:
    """Fills an architecture with sizes.

    Args:
        architecture: The layer graph and the rules for config fields.
        source: The fields as given.
        name: The model's name; becomes a folder and part of C++ identifiers.
        location: Where the model is described.
        overrides: ``--set`` values by field, as text.
        ignore_config_keys: Fields the user vouches for.
        chat: Defaults of the model spec; the architecture has some of its own.

    Raises:
        SpecError: Anything that is wrong with the fields; several faults are raised together.
    """
    check_name(name, location)
    given = with_overrides(architecture, source, overrides or {})
    source = with_field_names(architecture.config, given)
    special = {*rope_fields(architecture), *DTYPE_FIELDS, "model_type"}
    problems = Problems()
    check_field_names(architecture.config, source, special, ignore_config_keys, problems)
    consumed: dict[str, ConfigValue] = {}
    with problems.collect():
        consumed = read_fields(architecture.config, source)
    problems.raise_any()
    _run_checks(architecture, source, consumed)
    dtype, dtype_notes = _dtype(source)
    config = derive_fields(architecture.config, consumed, dtype.value)
    notes = [_note_text(note, consumed) for note in architecture.config.notes]
    rope = resolve_rope(architecture, source, config)
    notes += [*rope_notes(architecture, source), *dtype_notes]
    if "auto_map" in source.values:
        notes.append("auto_map is not followed: code that comes with a checkpoint is never run")
    return ModelSpec(
        name=name,
        architecture=architecture,
        config=config,
        dtype=dtype,
        layers=_layers(architecture, source, config),
        rope=rope,
        chat=merged_chat(chat or ChatDefaults(), architecture.chat),
        huggingface_config=dict(given.values),
        notes=tuple(note for note in notes if note),
        ignored_config_keys=tuple(key for key in ignore_config_keys if key in source.values),
        overrides=dict(overrides or {}),
        location=location,
    )


def with_dtype(spec: ModelSpec, dtype: DType) -> ModelSpec:
    """Returns a model computed in another dtype; constants rounded to the dtype follow it."""
    if dtype is spec.dtype:
        return spec
    changed = resolve_model(
        spec.architecture,
        ConfigSource(values=spec.huggingface_config, path=spec.location.path),
        name=spec.name,
        location=spec.location,
        overrides={"dtype": dtype.value},
        ignore_config_keys=spec.ignored_config_keys,
    )
    return dataclasses.replace(
        spec, dtype=dtype, config=changed.config, layers=changed.layers, rope=changed.rope
    )


def _run_checks(
    architecture: ArchitectureSpec, source: ConfigSource, config: Mapping[str, ConfigValue]
) -> None:
    problems = Problems()
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
        problems.add(
            SpecError(
                "'num_key_value_heads' does not divide 'num_attention_heads'",
                where=source.where("num_key_value_heads"),
                got=f"{kv_heads} and {heads}",
                expected="the same number of query heads for every key/value head",
            )
        )
    for check in architecture.config.checks:
        rule = check.require
        with problems.collect():
            if not _condition(rule, config):
                given = [name for name in names_in(rule.expression) if name in source.values]
                raise SpecError(
                    _filled(check.message, config),
                    where=source.where(given[0] if given else ""),
                    hint=check.hint,
                )
    problems.raise_any()


def _condition(rule: LocatedExpression, config: Mapping[str, Any]) -> bool:
    value = evaluate(rule.expression, config, location=rule.location)
    if not isinstance(value, bool):
        raise SpecError(
            "a condition must be true or false", where=rule.location, got=kind_of(value)
        )
    return value


def _note_text(note: Note, config: Mapping[str, ConfigValue]) -> str | None:
    return _filled(note.text, config) if _condition(note.when, config) else None


def _filled(text: str, config: Mapping[str, ConfigValue]) -> str:
    for key, value in config.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text


def _dtype(source: ConfigSource) -> tuple[DType, list[str]]:
    given = {key: source.values[key] for key in DTYPE_FIELDS if source.values.get(key) is not None}
    if not given:
        return DType.F32, ["no dtype is given: float32 is used"]
    if len(set(map(str, given.values()))) > 1:
        raise SpecError(
            "'torch_dtype' and 'dtype' contradict each other",
            where=source.where("dtype"),
            got=given,
        )
    ((key, value), *_) = given.items()
    if not isinstance(value, str) or value not in _DTYPES:
        raise SpecError(
            f"config field '{key}' is no dtype of an engine",
            where=source.where(key),
            got=kind_of(value),
            expected=", ".join(_DTYPES),
            hint=nearest(str(value), _DTYPES),
        )
    return _DTYPES[value], []


# ---- layers ---------------------------------------------------------------------------------


def _layers(
    architecture: ArchitectureSpec, source: ConfigSource, config: Mapping[str, ConfigValue]
) -> tuple[LayerSpec, ...]:
    count = config["num_hidden_layers"]
    assert isinstance(count, int)
    tables = {name: name for name in architecture.rope}
    problems = Problems()
    layers = []
    for index in range(count):
        names = {**config, **tables, "layer": index}
        with problems.collect():
            rule = _layer_type(architecture, source, names)
            layers.append(
                LayerSpec(
                    layer_type=rule.name,
                    blocks=rule.blocks,
                    attributes=_attributes(architecture, rule, source, names),
                )
            )
        if problems:
            break
    problems.raise_any()
    return tuple(layers)


def _layer_type(
    architecture: ArchitectureSpec, source: ConfigSource, names: Mapping[str, Any]
) -> LayerTypeRule:
    rule = architecture.layer_type
    chosen = evaluate(rule.expression, names, location=rule.location)
    if not isinstance(chosen, str) or chosen not in architecture.layer_types:
        raise SpecError(
            f"layer {names['layer']} has an unknown layer type",
            where=source.where("layer_types") if "layer_types" in source.values else rule.location,
            got=kind_of(chosen),
            expected=", ".join(architecture.layer_types),
            hint=nearest(str(chosen), architecture.layer_types),
        )
    return architecture.layer_types[chosen]


def _attributes(
    architecture: ArchitectureSpec,
    rule: LayerTypeRule,
    source: ConfigSource,
    names: Mapping[str, Any],
) -> dict[str, Any]:
    attributes = {}
    for key, default in architecture.layer_attributes.items():
        located = rule.attributes.get(key, default)
        value = evaluate(located.expression, names, location=located.location)
        if isinstance(value, tuple | Mapping):
            raise SpecError(
                f"layer attribute '{key}' must be a number, text, boolean or none",
                where=located.location,
                got=kind_of(value),
            )
        if value is None and key in rule.attributes and located.expression != Literal(None):
            raise SpecError(
                f"layer type '{rule.name}' needs a {key}, and the config has none",
                where=source.where("layer_types"),
                got=f"layer {names['layer']} is {rule.name}",
                hint=f"{located.location} reads it",
            )
        attributes[key] = value
    return attributes
