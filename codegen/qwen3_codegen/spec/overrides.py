"""``--set`` values folded into config fields, so that nothing later asks what overrode what.

A field may stand in config.json under other names: the dtype and aliased fields have two, rope
parameters stand in ``rope_parameters`` or in older fields. An override replaces all of them, and
what is written from the result holds each field once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec.config_fields import DTYPE_FIELDS
from qwen3_codegen.spec.config_source import ConfigSource, parse_overrides
from qwen3_codegen.spec.model import ArchitectureSpec
from qwen3_codegen.spec.rules import RopeRule

__all__ = ["with_overrides"]

_NEW, _OLD, _PARTIAL = "rope_parameters", "rope_scaling", "partial_rotary_factor"


def with_overrides(
    architecture: ArchitectureSpec, source: ConfigSource, overrides: Mapping[str, str]
) -> ConfigSource:
    """Returns the fields with overrides in place of what they replace.

    Args:
        architecture: Says which fields have several names.
        source: The fields as given.
        overrides: ``--set`` values by field, as text.

    Raises:
        SpecError: A value cannot be read, or the field decides more than a size.
    """
    parsed = parse_overrides(overrides)
    if "model_type" in parsed:
        raise SpecError(
            "'model_type' chooses the architecture and cannot be overridden",
            where="--set model_type",
            hint="--arch NAME or --arch FILE.yaml chooses another architecture",
        )
    values = {**source.values, **parsed}
    for names in _synonyms(architecture):
        if any(name in parsed for name in names):
            for name in set(names) - set(parsed):
                values.pop(name, None)
    _fold_rope(tuple(architecture.rope.values()), values, parsed)
    places = {key: f"--set {key}" for key in parsed}
    if _NEW in values and _OLD in parsed:
        places.setdefault(_NEW, f"--set {_OLD}")
    return dataclasses.replace(source, values=values, overrides=places)


def _synonyms(architecture: ArchitectureSpec) -> Iterator[tuple[str, ...]]:
    yield DTYPE_FIELDS
    for field in architecture.config.fields.values():
        yield (field.name, *field.aliases)


def _fold_rope(
    rules: tuple[RopeRule, ...], values: dict[str, Any], parsed: Mapping[str, Any]
) -> None:
    """Moves overrides of older rope fields into what holds the parameters."""
    new, old = values.get(_NEW), values.get(_OLD)
    if isinstance(new, Mapping) and new:
        if _NEW in parsed:
            _drop_stale(rules, values, new, parsed)
        else:
            _fold_into_new(rules, values, new, parsed)
    elif isinstance(old, Mapping) and _OLD not in parsed:
        for rule in rules:
            old = {**old, **{k: v for k, v in _inner(rule, parsed).items() if k in old}}
        values[_OLD] = old


def _fold_into_new(
    rules: tuple[RopeRule, ...],
    values: dict[str, Any],
    new: Mapping[str, Any],
    parsed: Mapping[str, Any],
) -> None:
    scaling = parsed.get(_OLD)
    if not isinstance(scaling, Mapping | None):
        return
    if values.get(_OLD) == new:
        del values[_OLD]
    for rule in rules:
        entry = _entry(new, rule)
        if not isinstance(entry, Mapping):
            continue
        if _OLD in parsed and rule.scaling_field:
            kept = {key: entry[key] for key in _older_fields(rule) if key in entry}
            entry = {**kept, **(scaling or {})}
        entry = {**entry, **_inner(rule, parsed)}
        new = entry if rule.layer_type is None else {**new, rule.layer_type: entry}
        for name in {_OLD, *_older_fields(rule).values()} & set(parsed):
            values.pop(name, None)
    values[_NEW] = new


def _drop_stale(
    rules: tuple[RopeRule, ...],
    values: dict[str, Any],
    new: Mapping[str, Any],
    parsed: Mapping[str, Any],
) -> None:
    """Drops the file's older fields where overriding parameters say the same thing anew."""
    for rule in rules:
        entry = _entry(new, rule)
        known = entry if isinstance(entry, Mapping) else {}
        stale = {_OLD, *(field for key, field in _older_fields(rule).items() if key in known)}
        for name in stale - set(parsed):
            values.pop(name, None)


def _entry(parameters: Mapping[str, Any], rule: RopeRule) -> Any:
    """Returns a table's parameters where they are nested by layer type."""
    return parameters if rule.layer_type is None else parameters.get(rule.layer_type, {})


def _older_fields(rule: RopeRule) -> dict[str, str]:
    """Returns the fields beside ``rope_scaling``, by the names rope parameters have for them."""
    return {"rope_theta": rule.theta_field, _PARTIAL: _PARTIAL}


def _inner(rule: RopeRule, parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the overrides of a table's older fields, under the names of rope parameters."""
    return {key: parsed[field] for key, field in _older_fields(rule).items() if field in parsed}
