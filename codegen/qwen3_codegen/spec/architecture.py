"""Architecture files: YAML to ``ArchitectureSpec``, with every check that needs no sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec import kinds, schema
from qwen3_codegen.spec.chat import read_chat
from qwen3_codegen.spec.config_rules import parse_config_rules, parse_rope_rules
from qwen3_codegen.spec.expressions import names_in, parse_statement
from qwen3_codegen.spec.functions import FunctionTable
from qwen3_codegen.spec.kinds import check_kind
from qwen3_codegen.spec.model import ArchitectureSpec, CheckpointNames
from qwen3_codegen.spec.names import check_identifier, check_layer_type
from qwen3_codegen.spec.problems import Problems
from qwen3_codegen.spec.rules import ConfigField, LayerTypeRule, LocatedExpression, SharedFields
from qwen3_codegen.spec.sections import Section, list_items, located_expression, unknown_key
from qwen3_codegen.spec.statement_checks import StatementScope, check_statements
from qwen3_codegen.spec.syntax import Expression, Literal, Statement, Unary
from qwen3_codegen.spec.yaml_loader import YamlMap, YamlNode, YamlScalar, kind_of, read_yaml

__all__ = ["NAME_PATTERN", "check_name", "parse_architecture", "read_architecture"]

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
"""Names of models, architectures and devices: they become folders and C++ identifiers."""
_MAX_NAME = 80
_NEEDED_FIELDS = ("vocab_size", "num_hidden_layers", "max_position_embeddings")
"""Config fields that every later stage reads."""
_ATTRIBUTE = schema.Key("expression", "Value of a layer attribute for this type.")
_CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")
_TENSOR_PATTERN = re.compile(r"[A-Za-z0-9_.*?{}\[\]-]*\Z")


def check_name(name: str, where: object, what: str = "name") -> None:
    """Checks a name that becomes a folder and part of C++ identifiers.

    Raises:
        SpecError: It holds other characters or is too long.
    """
    if not NAME_PATTERN.match(name) or len(name) > _MAX_NAME:
        raise SpecError(
            f"'{what}' may hold letters, digits, '.', '_' and '-' only",
            where=where,
            got=ascii(name[:_MAX_NAME]),
            expected=f"1 to {_MAX_NAME} of them, a letter or digit first",
        )


def read_architecture(
    file: Path, shown: str, shared: SharedFields, own_functions: FunctionTable | None = None
) -> ArchitectureSpec:
    """Reads an architecture file.

    Args:
        file: What to open.
        shown: The path that messages and locations name.
        shared: What holds for config fields in every architecture.
        own_functions: What statements may call beside the functions of the language.

    Raises:
        SpecError: Everything that is wrong with the file, at once.
    """
    return parse_architecture(read_yaml(file, shown), shared, own_functions)


def parse_architecture(
    root: YamlMap, shared: SharedFields, own_functions: FunctionTable | None = None
) -> ArchitectureSpec:
    """Reads an architecture from parsed YAML; see ``read_architecture``."""
    check_kind(root, kinds.ARCHITECTURE)
    problems = Problems()
    section = Section(root, kinds.ARCHITECTURE.title, schema.ARCHITECTURE, problems)
    name = section.text("architecture")
    with problems.collect():
        check_name(name, section.where("architecture"), "architecture")
    description = section.text("description")
    model_types, class_name = _huggingface(section)
    config = parse_config_rules(section, shared)
    rope = parse_rope_rules(section)
    prologue = _statements(section, "prologue")
    blocks = _blocks(section)
    epilogue = _statements(section, "epilogue")
    attributes = _layer_attributes(section)
    layer_types = _layer_types(section, blocks, attributes)
    layer_type = section.expression("layer_type") or _only_layer_type(section, layer_types)
    checkpoint = _checkpoint(section)
    chat = read_chat(section)
    problems.raise_any()
    architecture = ArchitectureSpec(
        name=name,
        description=description,
        model_type=model_types[0],
        model_types=model_types,
        huggingface_class=class_name,
        config=config,
        rope=rope,
        layer_types=layer_types,
        layer_type=layer_type,
        layer_attributes=attributes,
        prologue=prologue,
        blocks=blocks,
        epilogue=epilogue,
        checkpoint=checkpoint,
        chat=chat,
        own_functions=own_functions or {},
        location=root.location,
    )
    _check_flow(architecture, problems)
    problems.raise_any()
    return architecture


def _huggingface(section: Section) -> tuple[tuple[str, ...], str]:
    inner = section.section("huggingface", schema.HUGGINGFACE)
    if inner is None:
        return ("",), ""
    node = inner.node("model_type")
    many = node is not None and not isinstance(node, YamlScalar)
    types = inner.texts("model_type") if many else (inner.text("model_type"),)
    class_name = inner.text("class")
    for pattern, text, key in [
        (_CLASS_NAME, class_name, "class"),
        *((NAME_PATTERN, text, "model_type") for text in types),
    ]:
        if key in inner and not pattern.match(text):
            section.problems.add(
                SpecError(f"'{key}' is not a name", where=inner.where(key), got=ascii(text))
            )
    return types or ("",), class_name


def _checkpoint(section: Section) -> CheckpointNames:
    inner = section.section("checkpoint", schema.CHECKPOINT)
    if inner is None:
        return CheckpointNames(layer_prefix="model.layers.{layer}.")
    prefix = inner.text("layer_prefix")
    ignore = inner.texts("ignore")
    if prefix.count("{layer}") != 1 or not _TENSOR_PATTERN.match(prefix):
        section.problems.add(
            SpecError(
                "'layer_prefix' must hold {layer} once, and letters, digits, '.', '_' and '-'",
                where=inner.where("layer_prefix"),
                got=ascii(prefix),
            )
        )
    for pattern in ignore:
        if not _TENSOR_PATTERN.match(pattern):
            section.problems.add(
                SpecError("not a pattern of tensor names", where=inner.where("ignore"), got=pattern)
            )
    return CheckpointNames(layer_prefix=prefix, ignore=ignore)


# ---- statements -----------------------------------------------------------------------------


def _statements(section: Section, key: str) -> tuple[Statement, ...]:
    return tuple(_flatten(section.items(key), (), section.problems))


def _flatten(
    items: tuple[YamlNode, ...], when: tuple[Expression, ...], problems: Problems
) -> Iterator[Statement]:
    for item in items:
        if isinstance(item, YamlMap):
            yield from _conditional(item, when, problems)
        elif isinstance(item, YamlScalar) and isinstance(item.value, str):
            with problems.collect():
                yield parse_statement(item.value, item.location, when)
        else:
            problems.add(
                SpecError(
                    "a statement is text, or a mapping with 'when' and 'then'",
                    where=item.location,
                    got=kind_of(item),
                )
            )


def _conditional(
    item: YamlMap, when: tuple[Expression, ...], problems: Problems
) -> Iterator[Statement]:
    section = Section(item, "a conditional statement", schema.CONDITIONAL, problems)
    condition = section.expression("when")
    test = condition.expression if condition else Literal(True)
    yield from _flatten(section.items("then"), (*when, test), problems)
    yield from _flatten(section.items("else"), (*when, Unary("not", test)), problems)


def _blocks(section: Section) -> dict[str, tuple[Statement, ...]]:
    if "layer" in section and "blocks" in section:
        section.problems.add(
            SpecError(
                "'layer' and 'blocks' exclude each other",
                where=section.where("blocks"),
                hint="'layer' is one block of that name",
            )
        )
    if "blocks" not in section:
        if "layer" not in section:
            section.problems.add(
                SpecError("an architecture file has no 'layer'", where=section.location)
            )
        return {"layer": _statements(section, "layer")}
    blocks = {}
    for name, node, where in section.entries("blocks"):
        check_identifier(name, where, "block", section.problems)
        items = list_items(node, f"block '{name}'", section.problems)
        blocks[name] = tuple(_flatten(items, (), section.problems))
    return blocks


# ---- layers ---------------------------------------------------------------------------------


def _layer_attributes(section: Section) -> dict[str, LocatedExpression]:
    return dict(_expressions(section, "layer_attributes", "layer attribute"))


def _expressions(section: Section, key: str, what: str) -> Iterator[tuple[str, LocatedExpression]]:
    for name, node, where in section.entries(key):
        check_identifier(name, where, what, section.problems)
        expression = LocatedExpression(Literal(None), where)
        with section.problems.collect():
            expression = located_expression(node, name)
        yield name, expression


def _layer_types(
    section: Section,
    blocks: Mapping[str, tuple[Statement, ...]],
    attributes: Mapping[str, LocatedExpression],
) -> dict[str, LayerTypeRule]:
    rules = {}
    for name, node, where in section.entries("layer_types"):
        check_layer_type(name, where, section.problems)
        keys = {**schema.LAYER_TYPE, **dict.fromkeys(attributes, _ATTRIBUTE)}
        inner = Section(node, f"layer type '{name}'", keys, section.problems)
        chosen = inner.texts("blocks") if "blocks" in inner else tuple(blocks)
        for block in chosen:
            if block not in blocks:
                section.problems.add(unknown_key(block, "'blocks'", blocks, inner.where("blocks")))
        given = {}
        for attribute in attributes:
            if expression := inner.expression(attribute):
                given[attribute] = expression
        rules[name] = LayerTypeRule(name=name, blocks=chosen, attributes=given, location=where)
    if not rules:
        where = section.where("layer_types")
        rules["full_attention"] = LayerTypeRule(
            name="full_attention", blocks=tuple(blocks), attributes={}, location=where
        )
    return rules


def _only_layer_type(
    section: Section, layer_types: Mapping[str, LayerTypeRule]
) -> LocatedExpression:
    if len(layer_types) != 1:
        section.problems.add(
            SpecError(
                "an architecture with several layer types has no 'layer_type'",
                where=section.where("layer_types"),
                hint="such as layer_type: layer_types[layer]",
            )
        )
    (first, *_) = layer_types
    return LocatedExpression(Literal(first), section.where("layer_types"))


# ---- whole-file checks ----------------------------------------------------------------------


def _check_flow(architecture: ArchitectureSpec, problems: Problems) -> None:
    config = {*architecture.config.fields, *architecture.config.derived}
    for field in _NEEDED_FIELDS:
        rule = architecture.config.fields.get(field)
        if rule is None or not _is_size(rule):
            problems.add(
                SpecError(
                    f"an architecture must consume '{field}'" + (" as a size" if rule else ""),
                    where=rule.location if rule else architecture.location,
                    hint=f"config: consumed: {field}: {{type: int, min: 1}}",
                )
            )
    for table in architecture.rope.values():
        if table.name in config:
            problems.add(SpecError(f"'{table.name}' is a config field too", where=table.location))
    _check_names(architecture, config, problems)
    outside = StatementScope(config, functions=architecture.functions)
    inside = replace(outside, attributes=tuple(architecture.layer_attributes), in_layers=True)
    end = check_statements(architecture.prologue, outside, {"input_ids"}, problems)
    _wants("h", end, "prologue", architecture, problems)
    for layer_type in architecture.layer_types.values():
        body = [statement for name in layer_type.blocks for statement in architecture.blocks[name]]
        check_statements(body, inside, {"h"}, problems)
    end = check_statements(architecture.epilogue, outside, {"h"}, problems)
    _wants("logits", end, "epilogue", architecture, problems)


def _is_size(rule: ConfigField) -> bool:
    least = rule.minimum if rule.minimum is not None else 0
    return (
        rule.type == "int" and not rule.nullable and (least >= 1 or (rule.exclusive and least >= 0))
    )


def _wants(
    value: str, defined: set[str], part: str, architecture: ArchitectureSpec, problems: Problems
) -> None:
    if value not in defined:
        where = architecture.location
        statements = getattr(architecture, part)
        if statements:
            where = statements[-1].location
        problems.add(SpecError(f"the {part} does not define '{value}'", where=where))


def _check_names(architecture: ArchitectureSpec, config: set[str], problems: Problems) -> None:
    """Checks names in expressions over the config; per-layer ones may also use ``layer``."""
    tables = set(architecture.rope)
    schema = architecture.config
    fields = set(schema.fields)
    for rule in [*(check.require for check in schema.checks), *(n.when for n in schema.notes)]:
        _known_names(rule, fields, problems)
    for table in architecture.rope.values():
        _known_names(table.head_dim, config, problems)
        if table.original_max_position_embeddings is not None:
            _known_names(table.original_max_position_embeddings, config, problems)
    _known_names(architecture.layer_type, config | {"layer"}, problems)
    per_layer = [*architecture.layer_attributes.values()]
    for layer_type in architecture.layer_types.values():
        per_layer.extend(layer_type.attributes.values())
    for rule in per_layer:
        _known_names(rule, config | tables | {"layer"}, problems)


def _known_names(rule: LocatedExpression, known: set[str], problems: Problems) -> None:
    for name in names_in(rule.expression):
        if name not in known:
            problems.add(
                SpecError(
                    f"unknown name '{name}'",
                    where=rule.location,
                    expected="a config field that this architecture consumes or derives",
                    hint=nearest(name, known),
                )
            )
