"""Rope parameters out of either generation of config.json.

Older files have ``rope_theta`` and ``rope_scaling``; transformers 5 writes ``rope_parameters``,
nested by layer type where layers differ. Precedence and defaults are those of transformers'
``RotaryEmbeddingConfigMixin``; parameters out of their range, which it only warns about, are errors
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen3_codegen.errors import SpecError, nearest
from qwen3_codegen.spec.config_source import ConfigSource
from qwen3_codegen.spec.evaluation import evaluate
from qwen3_codegen.spec.model import ArchitectureSpec, ConfigValue, RopeTable
from qwen3_codegen.spec.rope import ROPE_KEYS, rope_table
from qwen3_codegen.spec.rules import LocatedExpression, RopeRule
from qwen3_codegen.spec.yaml_loader import kind_of

__all__ = ["resolve_rope", "rope_fields", "rope_notes"]

_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_MAX_VALUE = 1e12
"""Bound of any rope parameter; far above what models use, far below float32 overflow."""
_MAX_ROTARY_DIM = 1 << 16
"""Far above any head; a table of angles has half as many columns."""
_LEAST = {"factor": 1.0, "mscale": 0.0, "mscale_all_dim": 0.0}
"""Smallest value of a parameter where it is not just above zero."""


def rope_fields(architecture: ArchitectureSpec) -> set[str]:
    """Returns the config fields that the architecture's rope tables read."""
    names: set[str] = set()
    for rule in architecture.rope.values():
        names |= {"rope_parameters", "rope_scaling", "rope_theta", rule.theta_field}
        names.add("partial_rotary_factor")
    return names


def resolve_rope(
    architecture: ArchitectureSpec, source: ConfigSource, config: Mapping[str, ConfigValue]
) -> dict[str, RopeTable]:
    """Computes every rope table of a model.

    Args:
        architecture: Holds the rules.
        source: The config fields as given.
        config: Consumed and derived fields.

    Raises:
        SpecError: Rope parameters are unknown, missing, contradictory or out of range.
    """
    return {
        name: _Resolver(rule, source, config, _labels(architecture)).table()
        for name, rule in architecture.rope.items()
    }


def rope_notes(architecture: ArchitectureSpec, source: ConfigSource) -> list[str]:
    """Returns a line for every base that no field gives."""
    lines = [
        f"no {rule.theta_field} is given: {rule.default_theta:.12g} is used"
        for rule in architecture.rope.values()
        if not _Resolver(rule, source, {}, _labels(architecture)).has_theta()
    ]
    return list(dict.fromkeys(lines))


def _labels(architecture: ArchitectureSpec) -> list[str]:
    return [rule.layer_type for rule in architecture.rope.values() if rule.layer_type]


@dataclass(frozen=True, slots=True)
class _Resolver:
    rule: RopeRule
    source: ConfigSource
    config: Mapping[str, ConfigValue]
    labels: list[str]

    def fail(self, key: str, message: str, **facts: Any) -> SpecError:
        return SpecError(message, where=self.source.where(key), **facts)

    def holder(self, key: str, field: str) -> str:
        """Returns the field to blame for a parameter that stands in ``key``: its override."""
        return field if field in self.source.overrides else key

    def table(self) -> RopeTable:
        key, given = self.given()
        parameters = {name: value for name, value in given.items() if value is not None}
        parameters["rope_type"] = self.rope_type(key, parameters)
        parameters.pop("type", None)
        parameters["rope_theta"] = self.theta(key, parameters)
        rotary_dim = self.rotary_dim(key, parameters)
        self.check_keys(key, parameters)
        self.check_values(key, parameters, rotary_dim)
        self.original_length(key, parameters)
        self.check_order(key, parameters)
        return rope_table(
            self.rule.name,
            parameters,
            rotary_dim=rotary_dim,
            max_position_embeddings=self.max_positions(),
            interleaved=self.rule.interleaved,
        )

    def max_positions(self) -> int:
        value = self.config["max_position_embeddings"]
        assert isinstance(value, int)
        return value

    def given(self) -> tuple[str, dict[str, Any]]:
        """Returns the field that holds this table's parameters, and a copy of them."""
        new = self.mapping("rope_parameters")
        old = self.mapping("rope_scaling")
        if not self.rule.scaling_field:
            old = {}
        if not new:
            return "rope_scaling", dict(old)
        if old and new != old:
            raise self.fail(
                "rope_scaling",
                "'rope_scaling' and 'rope_parameters' contradict each other",
                hint="keep 'rope_parameters'",
            )
        return "rope_parameters", self.flat(new)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.source.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.fail(key, f"'{key}' must be a mapping", got=kind_of(value))
        return value

    def flat(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Picks this table's entry when parameters are nested by layer type."""
        if self.rule.layer_type is None:
            return dict(parameters)
        for name in parameters:
            if name not in self.labels:
                raise self.fail(
                    "rope_parameters",
                    f"'{name}' in 'rope_parameters' is no layer type",
                    expected=f"a mapping for each of {', '.join(self.labels)}",
                    hint=nearest(name, self.labels),
                )
        inner = parameters.get(self.rule.layer_type)
        if inner is None:
            return {}
        if not isinstance(inner, Mapping):
            raise self.fail(
                "rope_parameters",
                f"'{self.rule.layer_type}' in 'rope_parameters' must be a mapping",
                got=kind_of(inner),
            )
        return dict(inner)

    def rope_type(self, key: str, parameters: Mapping[str, Any]) -> str:
        kind, older = parameters.get("rope_type"), parameters.get("type")
        if kind is not None and older is not None and kind != older:
            raise self.fail(key, "'rope_type' and 'type' contradict each other", got=[kind, older])
        kind = "default" if kind is None and older is None else (kind or older)
        if not isinstance(kind, str):
            raise self.fail(key, "'rope_type' must be text", got=kind_of(kind))
        kind = self.rule.aliases.get(kind, kind)
        allowed = self.rule.types or tuple(ROPE_KEYS)
        if kind not in allowed:
            hint = nearest(kind, allowed)
            if kind == "dynamic":
                hint = "its frequencies change with the length of each sequence; use 'yarn'"
            raise self.fail(
                key,
                f"rope type '{kind}' is not supported",
                expected=", ".join(allowed),
                hint=hint,
            )
        return kind

    def theta(self, key: str, parameters: Mapping[str, Any]) -> float:
        inner = parameters.get("rope_theta")
        field = self.rule.theta_field
        outer = self.source.values.get(field)
        if inner is not None and outer is not None and inner != outer:
            raise self.fail(
                field,
                f"'{field}' and '{key}' contradict each other",
                got=f"{outer} and {inner}",
                hint=f"--set {field}=VALUE decides",
            )
        value = outer if inner is None else inner
        if value is None:
            return self.rule.default_theta
        place = self.holder(field if inner is None else key, field)
        return self.number(place, "rope_theta", value, least=1.0)

    def has_theta(self) -> bool:
        _, parameters = self.given()
        return not (
            parameters.get("rope_theta") is None
            and self.source.values.get(self.rule.theta_field) is None
        )

    def whole(self, rule: LocatedExpression, what: str, least: int) -> int | None:
        """Computes a size of the rope section, None where it says so."""
        value = evaluate(rule.expression, self.config, location=rule.location)
        if value is not None and (type(value) is not int or not least <= value < 2**31):
            raise SpecError(
                f"'{what}' of rope table '{self.rule.name}' is no size",
                where=rule.location,
                got=kind_of(value),
                expected=f"a whole number, at least {least}",
            )
        return value

    def rotary_dim(self, key: str, parameters: dict[str, Any]) -> int:
        head_dim = self.whole(self.rule.head_dim, "head_dim", 1)
        if head_dim is None:
            raise SpecError(
                f"rope table '{self.rule.name}' needs a head_dim, and the config has none",
                where=self.rule.head_dim.location,
            )
        partial = parameters.pop("partial_rotary_factor", None)
        if partial is None:
            key, partial = "partial_rotary_factor", self.source.values.get("partial_rotary_factor")
        key = self.holder(key, "partial_rotary_factor")
        if partial is None:
            partial = (
                1.0
                if self.rule.partial_rotary_factor is None
                else (self.rule.partial_rotary_factor)
            )
        partial = self.number(key, "partial_rotary_factor", partial, least=0.0)
        if partial > 1 or (partial != 1 and self.rule.partial_rotary_factor is None):
            raise self.fail(
                key,
                "'partial_rotary_factor' does not fit the architecture",
                got=partial,
                expected="1.0" if self.rule.partial_rotary_factor is None else "at most 1.0",
            )
        rotary_dim = int(head_dim * partial)
        place = "head_dim" if "head_dim" in self.source.values else "hidden_size"
        if rotary_dim > _MAX_ROTARY_DIM:
            raise self.fail(
                place,
                "the rotated part of a head is too large",
                got=rotary_dim,
                expected=f"at most {_MAX_ROTARY_DIM}",
            )
        if rotary_dim < 2 or rotary_dim % 2:
            raise self.fail(
                place,
                "rope rotates pairs, so the rotated part of a head must be even",
                got=f"head_dim {head_dim}"
                + (f" with partial_rotary_factor {partial}" if partial != 1 else ""),
            )
        return rotary_dim

    def check_keys(self, key: str, parameters: Mapping[str, Any]) -> None:
        kind = parameters["rope_type"]
        keys = ROPE_KEYS[kind]
        allowed = (*_COMMON, *keys.required, *keys.optional)
        for name in parameters:
            if name not in allowed:
                raise self.fail(
                    key,
                    f"rope type '{kind}' has no parameter '{name}'",
                    expected=", ".join(allowed),
                    hint=nearest(name, allowed),
                )
        for name in keys.required:
            if name not in parameters:
                raise self.fail(key, f"rope type '{kind}' needs '{name}'")

    def check_values(self, key: str, parameters: dict[str, Any], rotary_dim: int) -> None:
        for name, value in parameters.items():
            if name in ("short_factor", "long_factor"):
                self.factors(key, name, value, rotary_dim // 2)
            elif name == "truncate":
                if not isinstance(value, bool):
                    raise self.fail(key, "'truncate' must be a boolean", got=kind_of(value))
            elif name == "original_max_position_embeddings":
                if type(value) is not int or not 1 < value < 2**31:
                    raise self.fail(key, f"'{name}' must be a whole number above 1", got=value)
            elif name not in ("rope_type", "rope_theta"):
                self.number(key, name, value, least=_LEAST.get(name, 1e-6))

    def check_order(self, key: str, parameters: Mapping[str, Any]) -> None:
        low, high = parameters.get("low_freq_factor"), parameters.get("high_freq_factor")
        if low is not None and high is not None and high <= low:
            raise self.fail(
                key, "'high_freq_factor' must be above 'low_freq_factor'", got=f"{high} and {low}"
            )
        fast, slow = parameters.get("beta_fast", 32), parameters.get("beta_slow", 1)
        if fast < slow:
            raise self.fail(
                key, "'beta_fast' must be at least 'beta_slow'", got=f"{fast} and {slow}"
            )
        if parameters["rope_type"] == "yarn" and parameters["rope_theta"] <= 1:
            raise self.fail(key, "yarn needs a 'rope_theta' above 1")

    def factors(self, key: str, name: str, value: Any, count: int) -> None:
        if not isinstance(value, tuple):
            raise self.fail(key, f"'{name}' must be a list", got=kind_of(value))
        if len(value) != count:
            raise self.fail(
                key,
                f"'{name}' has the wrong length",
                got=f"{len(value)} factors",
                expected=f"{count}, one per rotated pair",
            )
        for item in value:
            self.number(key, name, item, least=1e-6)

    def number(self, key: str, name: str, value: Any, *, least: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"'{name}' must be a number", got=kind_of(value))
        if not least <= value <= _MAX_VALUE:
            raise self.fail(
                key, f"'{name}' is out of range", got=value, expected=f"{least} to {_MAX_VALUE:g}"
            )
        return value

    def original_length(self, key: str, parameters: dict[str, Any]) -> None:
        """Fills in the length before scaling: the rule's field, the parameter, the model's."""
        name = "original_max_position_embeddings"
        rule = self.rule.original_max_position_embeddings
        given = None if rule is None else self.whole(rule, name, 2)
        if name not in ROPE_KEYS[parameters["rope_type"]].optional:
            return
        if given is not None:
            parameters[name] = given
        if parameters.setdefault(name, self.max_positions()) < 2:
            raise self.fail(
                "max_position_embeddings",
                f"rope type '{parameters['rope_type']}' needs more than one position",
                got=parameters[name],
            )
