"""Typed values of the config fields an architecture consumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.config_source import ConfigSource
from qwen3_codegen.spec.evaluation import evaluate
from qwen3_codegen.spec.model import ConfigValue
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.rules import ConfigField, ConfigSchema, LocatedExpression
from qwen3_codegen.spec.yaml_loader import kind_of

__all__ = [
    "DTYPE_FIELDS",
    "LARGEST_SIZE",
    "check_field_names",
    "derive_fields",
    "read_fields",
    "with_field_names",
]

DTYPE_FIELDS = ("torch_dtype", "dtype")
"""The older and the newer name of the checkpoint's dtype."""
LARGEST_SIZE = 2**31 - 1
"""Engines hold sizes and indices in 32 bits."""
_LEAST_FLOAT = 2.0**-149
"""The smallest float32 above zero."""
_MAX_FIELDS = 1000
"""Of a config; published ones have fewer than a hundred."""
_MAX_LAYERS = 4096

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
}


def with_field_names(schema: ConfigSchema, source: ConfigSource) -> ConfigSource:
    """Returns the fields with aliases replaced by the names the architecture uses.

    Raises:
        SpecError: A field stands under two names with two values.
    """
    values, lines, places = dict(source.values), dict(source.lines), dict(source.overrides)
    for field in schema.fields.values():
        for alias in field.aliases:
            if alias not in values:
                continue
            value = values.pop(alias)
            if field.name not in values:
                values[field.name] = value
                if alias in lines:
                    lines[field.name] = lines[alias]
                if alias in places:
                    places[field.name] = places[alias]
            elif value != values[field.name]:
                raise SpecError(
                    f"config fields '{field.name}' and '{alias}' contradict each other",
                    where=source.where(alias),
                    got=f"{values[field.name]} and {value}",
                )
    return dataclasses.replace(source, values=values, lines=lines, overrides=places)


def check_field_names(
    schema: ConfigSchema,
    source: ConfigSource,
    special: set[str],
    ignored: tuple[str, ...],
    problems: Problems,
) -> None:
    """Checks that every given field is consumed, must equal its value, is inert or is ignored."""
    if len(source.values) > _MAX_FIELDS:
        problems.add(
            SpecError(
                "the config has too many fields",
                where=source.path,
                got=len(source.values),
                expected=f"at most {_MAX_FIELDS}",
            )
        )
        return
    known = {*schema.fields, *schema.must_equal, *schema.inert, *schema.refused, *special}
    needed = {*schema.fields, *special}
    needed |= {alias for field in schema.fields.values() for alias in field.aliases}
    for key in ignored:
        if key not in needed and key not in source.values:
            problems.add(
                SpecError(
                    f"there is no config field '{key}' to ignore",
                    where=f"--ignore-config-key {key}",
                    hint=nearest(key, source.values),
                )
            )
        if key in needed:
            problems.add(
                SpecError(
                    f"config field '{key}' is needed and cannot be ignored",
                    where=f"--ignore-config-key {key}",
                    hint=f"--set {key}=VALUE changes it",
                )
            )
    for key, value in source.values.items():
        if key in ignored:
            continue
        if key in schema.refused and value is not None:
            problems.add(
                SpecError(
                    f"config field '{key}' cannot be honoured",
                    where=source.where(key),
                    hint=schema.refused[key],
                )
            )
        elif key not in known:
            problems.add(_unknown_field(key, value, known, source))
        elif key in schema.must_equal:
            _check_equal(key, value, schema.must_equal[key], source, problems)


def _unknown_field(
    key: str, value: ConfigValue, known: set[str], source: ConfigSource
) -> SpecError:
    if key in source.overrides:
        return SpecError(
            f"unknown config field '{key}'", where=source.where(key), hint=nearest(key, known)
        )
    ignore = f"--ignore-config-key {key} if it does not change the forward pass"
    if key == "trust_remote_code":
        ignore = f"code from a checkpoint is never run; --ignore-config-key {key} accepts the field"
    near = nearest(key, known) or _other_architectures(key)
    return SpecError(
        f"config field '{key}' is unknown to this architecture",
        where=source.where(key),
        got=kind_of(value),
        hint=f"{near}{' Or' if near.endswith('?') else '; or'} {ignore}" if near else ignore,
    )


def _other_architectures(key: str) -> str | None:
    """Returns a hint naming the shipped architectures that do know a field, None if none does."""
    from qwen3_codegen.spec.catalog import architecture_names, load_architecture  # imports this

    knowing = [
        name for name in architecture_names() if key in load_architecture(name).config.fields
    ]
    if not knowing:
        return None
    several = "one of these architectures has" if len(knowing) > 1 else "this architecture has"
    return f"{several} it: {', '.join(f'--arch {name}' for name in knowing)}"


def _check_equal(
    key: str,
    value: ConfigValue,
    allowed: tuple[Any, ...],
    source: ConfigSource,
    problems: Problems,
) -> None:
    if not any(type(value) is type(item) and value == item for item in allowed):
        problems.add(
            SpecError(
                f"config field '{key}' has a value this architecture does not have",
                where=source.where(key),
                got=kind_of(value),
                expected=" or ".join(kind_of(item) for item in allowed),
            )
        )


def read_fields(schema: ConfigSchema, source: ConfigSource) -> dict[str, ConfigValue]:
    """Returns the consumed fields, defaults filled in.

    Raises:
        SpecError: Fields are missing or have the wrong type, range or length.
    """
    problems = Problems()
    values: dict[str, ConfigValue] = {}
    for field in schema.fields.values():
        if problems and field.default is not None and field.name not in source.values:
            continue
        with problems.collect():
            values[field.name] = _read_field(field, source, values)
    problems.raise_any()
    return values


def _read_field(
    field: ConfigField, source: ConfigSource, earlier: Mapping[str, ConfigValue]
) -> ConfigValue:
    given = source.values.get(field.name)
    if given is None and field.name in source.values and field.nullable:
        return None
    if given is None:
        return _default(field, source, earlier)
    value = _typed(field, given, source.where(field.name))
    if field.per_layer:
        _check_length(field, value, source, earlier)
    return value


def _default(
    field: ConfigField, source: ConfigSource, earlier: Mapping[str, ConfigValue]
) -> ConfigValue:
    if field.default is None:
        raise SpecError(
            f"config field '{field.name}' is missing"
            if field.name not in source.values
            else f"config field '{field.name}' is null",
            where=source.where(field.name),
            expected=_WORDS.get(field.type, f"a list of type {field.type}"),
            hint=f"--set {field.name}=VALUE gives it",
        )
    try:
        value = _computed(field.default, field.per_layer, earlier)
    except SpecError as error:
        raise SpecError(
            f"config field '{field.name}' is not given and has no default here: {error.message}",
            where=source.where(field.name),
            got=error.got,
            hint=f"--set {field.name}=VALUE gives it; {error.where} has the default",
        ) from None
    if value is None and not field.nullable:
        raise SpecError(
            f"the default of config field '{field.name}' is none, which is no value of it",
            where=field.default.location,
            hint="nullable: true makes it one",
        )
    return value if value is None else _typed(field, value, source.where(field.name))


def _computed(
    default: LocatedExpression, per_layer: bool, earlier: Mapping[str, ConfigValue]
) -> ConfigValue:
    expression, location = default.expression, default.location
    if not per_layer:
        return evaluate(expression, earlier, location=location)  # type: ignore[no-any-return]
    return tuple(
        evaluate(expression, {**earlier, "layer": layer}, location=location)
        for layer in range(_num_layers(earlier))
    )


def _num_layers(values: Mapping[str, ConfigValue]) -> int:
    count = values.get("num_hidden_layers")
    return count if isinstance(count, int) and count <= _MAX_LAYERS else 0


def _check_length(
    field: ConfigField,
    value: ConfigValue,
    source: ConfigSource,
    earlier: Mapping[str, ConfigValue],
) -> None:
    assert isinstance(value, tuple)
    if "num_hidden_layers" in earlier and len(value) != earlier["num_hidden_layers"]:
        raise SpecError(
            f"config field '{field.name}' has the wrong length",
            where=source.where(field.name),
            got=f"{len(value)} entries",
            expected=f"{earlier['num_hidden_layers']}, one per layer",
        )


def derive_fields(
    schema: ConfigSchema, consumed: Mapping[str, ConfigValue], dtype: str
) -> dict[str, ConfigValue]:
    """Returns the consumed fields with derived ones added, or in place of what they replace.

    Raises:
        SpecError: An expression has no value, or not one of the type and range of the field that
            it replaces.
    """
    config = dict(consumed)
    for name, rule in schema.derived.items():
        value = evaluate(rule.expression, {**config, "dtype": dtype}, location=rule.location)
        field = schema.fields.get(name)
        if field is not None and not (value is None and field.nullable):
            value = _typed(field, value, rule.location)
        config[name] = value
    return config


def _typed(field: ConfigField, value: Any, where: object) -> ConfigValue:
    if not field.type.startswith("["):
        return _element(field, field.type, value, where)
    if not isinstance(value, tuple):
        raise SpecError(
            f"config field '{field.name}' has the wrong type",
            where=where,
            got=kind_of(value),
            expected="a list",
        )
    return tuple(_element(field, field.type[1:-1], item, where) for item in value)


def _element(field: ConfigField, kind: str, value: Any, where: object) -> ConfigValue:
    def fail(message: str, expected: str, hint: str | None = None) -> SpecError:
        return SpecError(
            f"config field '{field.name}' {message}",
            where=where,
            got=kind_of(value),
            expected=expected,
            hint=hint,
        )

    if kind == "float" and type(value) is int:
        value = float(value) if abs(value) < 2**63 else value
    if type(value).__name__ != kind:
        raise fail("has the wrong type", _WORDS[kind])
    if kind == "str" and field.choices and value not in field.choices:
        raise fail("has an unknown value", ", ".join(field.choices), nearest(value, field.choices))
    if kind in ("int", "float"):
        _check_range(field, kind, value, fail)
    return value  # type: ignore[no-any-return]


def _check_range(field: ConfigField, kind: str, value: Any, fail: Any) -> None:
    least = field.minimum
    if least is not None and (value <= least if field.exclusive else value < least):
        bound = f"{'above' if field.exclusive else 'at least'} {least:g}"
        raise fail("is too small", bound)
    largest = _MAX_LAYERS if field.name == "num_hidden_layers" else LARGEST_SIZE
    if kind == "int" and value > largest:
        raise fail("is too large", f"at most {largest}")
    if kind == "float" and not abs(value) <= 3.4e38:
        raise fail("is too large", "a number that float32 can hold")
    if kind == "float" and 0 < abs(value) < _LEAST_FLOAT:
        raise fail("is too small", "0, or a number that float32 can hold")
