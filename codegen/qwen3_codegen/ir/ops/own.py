"""An op of the user's own, as statements call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from qwen3_codegen.ir.ops.definition import Attributes, OpDef, Shapes
from qwen3_codegen.spec.functions import Function, FunctionTable

__all__ = ["OwnFunction", "WeightShape", "own_definitions"]

WeightShape: TypeAlias = Callable[[Shapes, Attributes], tuple[int, ...]]
"""Shapes of the values by role, and attributes, to the shape of a checkpoint tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFunction(Function):
    """A statement function with its row of the op table.

    Positional values are the roles that are no weights, in the row's order; keywords are the
    weights and the attributes, by name.
    """

    definition: OpDef = field(metadata={"digest": "never"})
    weights: Mapping[str, WeightShape] = field(metadata={"digest": "never"})
    """By role."""
    source_sha256: str
    """Of the files that define it, for the digests of what is made with it."""


def own_definitions(functions: FunctionTable) -> dict[str, OpDef]:
    """Returns the rows of the user's own among functions, by name."""
    return {
        name: function.definition
        for name, function in functions.items()
        if isinstance(function, OwnFunction)
    }
