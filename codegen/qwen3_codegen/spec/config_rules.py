"""The part of an architecture file that sorts config.json's fields."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec import schema
from qwen3_codegen.spec.expressions import names_in
from qwen3_codegen.spec.names import check_table
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.rope import ROPE_TYPES
from qwen3_codegen.spec.rules import (
    Check,
    ConfigField,
    ConfigSchema,
    LocatedExpression,
    Note,
    RopeRule,
    SharedFields,
)
from qwen3_codegen.spec.sections import Section, located_expression
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Literal
from qwen3_codegen.spec.yaml_loader import Scalar, YamlList, YamlMap, YamlNode, YamlScalar, kind_of

__all__ = ["FIELD_TYPES", "parse_config_rules", "parse_rope_rules", "parse_shared_fields"]

FIELD_TYPES = ("int", "float", "bool", "str", "[int]", "[float]", "[bool]", "[str]")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


def parse_shared_fields(root: YamlMap) -> SharedFields:
    """Reads what holds for fields of config.json in every architecture.

    Raises:
        SpecError: The file is not such a list.
    """
    problems = Problems()
    section = Section(root, "the list of shared config fields", schema.SHARED_FIELDS, problems)
    inert = section.texts("inert")
    refused = dict(_named_texts(section, "refused"))
    problems.raise_any()
    return SharedFields(inert=frozenset(inert), refused=refused)


def _named_texts(section: Section, key: str) -> Iterator[tuple[str, str]]:
    for name, node, where in section.entries(key):
        if isinstance(node, YamlScalar) and isinstance(node.value, str):
            yield name, node.value
        else:
            section.problems.add(SpecError(f"'{name}' must be text", where=where))


def parse_config_rules(section: Section, shared: SharedFields) -> ConfigSchema:
    """Reads the ``config`` section; faults go to the section's problems."""
    config = section.section("config", schema.CONFIG)
    if config is None:
        return ConfigSchema(fields={}, must_equal={}, inert=shared.inert, derived={})
    fields = {field.name: field for field in _fields(config)}
    must_equal = dict(_must_equal(config, fields))
    own_inert = config.texts("inert")
    derived = dict(_derived(config, fields))
    checks = tuple(_checks(config))
    notes = tuple(_notes(config))
    for name in own_inert:
        if name in fields or name in must_equal:
            config.problems.add(
                SpecError(f"'{name}' is inert and not inert", where=config.where("inert"))
            )
    sorted_elsewhere = {*fields, *must_equal}
    return ConfigSchema(
        fields=fields,
        must_equal=must_equal,
        inert=frozenset({*shared.inert, *own_inert} - sorted_elsewhere),
        refused=shared.refused,
        derived=derived,
        checks=checks,
        notes=notes,
    )


def _field_name(name: str, where: SourceLocation, problems: Problems) -> None:
    if not _FIELD_NAME.match(name) or name == "layer":
        problems.add(SpecError("not the name of a config field", where=where, got=ascii(name)))


def _fields(config: Section) -> Iterator[ConfigField]:
    known: set[str] = set()
    for name, node, where in config.entries("consumed"):
        _field_name(name, where, config.problems)
        section = Section(node, f"config field '{name}'", schema.FIELD, config.problems)
        kind = section.text("type")
        if kind not in FIELD_TYPES and "type" in section:
            config.problems.add(
                SpecError(
                    f"unknown type '{kind}' of config field '{name}'",
                    where=section.where("type"),
                    expected=", ".join(FIELD_TYPES),
                    hint=nearest(kind, FIELD_TYPES),
                )
            )
        least, above = section.scalar("min", float), section.scalar("above", float)
        default = section.expression("default")
        per_layer = section.flag("per_layer")
        _default_names(default, known | ({"layer"} if per_layer else set()), config.problems)
        yield ConfigField(
            name=name,
            type=kind,
            minimum=least if above is None else above,
            exclusive=above is not None,
            choices=section.texts("choices"),
            nullable=section.flag("nullable"),
            aliases=section.texts("aliases"),
            per_layer=per_layer,
            default=default,
            location=where,
        )
        known.add(name)


def _default_names(default: LocatedExpression | None, known: set[str], problems: Problems) -> None:
    for name in names_in(default.expression) if default else ():
        if name not in known:
            problems.add(
                SpecError(
                    f"a default uses '{name}', which is no config field above it",
                    where=default.location if default else None,
                    hint=nearest(name, known),
                )
            )


def _must_equal(
    config: Section, fields: dict[str, ConfigField]
) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
    for name, node, where in config.entries("must_equal"):
        _field_name(name, where, config.problems)
        if name in fields:
            config.problems.add(SpecError(f"'{name}' is consumed above", where=where))
        items = node.items if isinstance(node, YamlList) else (node,)
        values = [item.value for item in items if isinstance(item, YamlScalar)]
        if len(values) != len(items) or not values:
            config.problems.add(
                SpecError(
                    f"'{name}' must equal a scalar or one of a list of scalars",
                    where=where,
                    got=kind_of(node),
                )
            )
        yield name, tuple(values)


def _derived(
    config: Section, fields: dict[str, ConfigField]
) -> Iterator[tuple[str, LocatedExpression]]:
    known = {*fields, "dtype"}
    for name, node, where in config.entries("derived"):
        _field_name(name, where, config.problems)
        expression = LocatedExpression(Literal(None), where)
        with config.problems.collect():
            expression = located_expression(node, name)
        _default_names(expression, known, config.problems)
        yield name, expression
        known.add(name)


def _checks(config: Section) -> Iterator[Check]:
    for item in config.items("checks"):
        section = Section(item, "a check", schema.CHECK, config.problems)
        require = section.expression("require")
        message, hint = section.text("message"), section.text("hint")
        if require is not None:
            yield Check(require=require, message=message, hint=hint or None)


def _notes(config: Section) -> Iterator[Note]:
    for item in config.items("notes"):
        section = Section(item, "a note", schema.NOTE, config.problems)
        when = section.expression("when")
        text = section.text("text")
        if when is not None:
            yield Note(when=when, text=text)


# ---- rope -----------------------------------------------------------------------------------


def parse_rope_rules(section: Section) -> dict[str, RopeRule]:
    """Reads the ``rope`` section; faults go to the section's problems."""
    rules: dict[str, RopeRule] = {}
    for name, node, where in section.entries("rope"):
        check_table(name, where, rules, section.problems)
        rule = _rope_rule(name, node, where, section.problems)
        if rule is not None:
            rules[name] = rule
    return rules


def _rope_rule(
    name: str, node: YamlNode, where: SourceLocation, problems: Problems
) -> RopeRule | None:
    section = Section(node, f"rope table '{name}'", schema.ROPE_TABLE, problems)
    head_dim = section.expression("head_dim")
    theta = _number(section, "default_theta", 1.0, 1e12)
    partial = _number(section, "partial_rotary_factor", 1e-6, 1.0)
    scaled = section.flag("scaled", default=True)
    types = section.texts("types") if "types" in section else None
    aliases = dict(_named_texts(section, "aliases"))
    for kind in [*(types or ()), *aliases.values()]:
        if kind not in ROPE_TYPES:
            problems.add(
                SpecError(
                    f"unknown rope type '{kind}'",
                    where=where,
                    expected=", ".join(ROPE_TYPES),
                    hint=nearest(kind, ROPE_TYPES),
                )
            )
    rule = None
    if head_dim is not None:
        rule = RopeRule(
            name=name,
            head_dim=head_dim,
            default_theta=10000.0 if theta is None else theta,
            theta_field=section.text("theta_field", "rope_theta"),
            scaling_field="rope_scaling" if scaled else None,
            layer_type=section.text("layer_type") or None,
            partial_rotary_factor=partial,
            interleaved=section.flag("interleaved"),
            types=types,
            aliases=aliases,
            original_max_position_embeddings=section.expression("original_max_position_embeddings"),
            location=where,
        )
    return rule


def _number(section: Section, key: str, least: float, most: float) -> float | None:
    value = section.scalar(key, float)
    if value is not None and not least <= value <= most:
        section.problems.add(
            SpecError(
                f"'{key}' of {section.what} is out of range",
                where=section.where(key),
                got=value,
                expected=f"{least:g} to {most:g}",
            )
        )
    return value
