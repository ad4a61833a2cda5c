"""Telling the three kinds of descriptions apart, where one is given in place of another."""

from __future__ import annotations

from dataclasses import dataclass

from qwen3_codegen.errors import SpecError
from qwen3_codegen.spec import schema
from qwen3_codegen.spec.schema import Schema
from qwen3_codegen.spec.yaml_loader import YamlMap

__all__ = ["ARCHITECTURE", "DEVICE", "MODEL", "Kind", "check_kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of description."""

    title: str
    """With its article, as messages call it."""
    schema: Schema
    marks: frozenset[str]
    """Required keys that no other kind has."""
    hint: str
    """Where such a file is taken."""


MODEL = Kind("a model spec", schema.MODEL, frozenset({"name"}), "--spec takes model specs")
ARCHITECTURE = Kind(
    "an architecture file",
    schema.ARCHITECTURE,
    frozenset({"huggingface", "prologue", "epilogue"}),
    "--arch takes architecture files, and so does the key 'architecture' of a model spec",
)
DEVICE = Kind(
    "a device description", schema.DEVICE, frozenset({"device"}), "--dev takes device descriptions"
)


def check_kind(root: YamlMap, expected: Kind) -> None:
    """Refuses a description of another kind, whose every key would else be a fault of its own.

    Raises:
        SpecError: It has the marks of another kind and none of ``expected``, and more keys of the
            other one.
    """
    keys = root.keys.keys()
    if keys & expected.marks:
        return
    for kind in (MODEL, ARCHITECTURE, DEVICE):
        if keys >= kind.marks and len(keys & kind.schema.keys()) > len(
            keys & expected.schema.keys()
        ):
            raise SpecError(
                f"this is {kind.title}, not {expected.title}", where=root.location, hint=kind.hint
            )
