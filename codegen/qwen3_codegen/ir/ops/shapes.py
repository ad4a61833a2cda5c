"""Checks shared by the shape rules."""

from __future__ import annotations

from qwen3_codegen.ir.graph import Dim
from qwen3_codegen.ir.ops.definition import Attributes, OpRuleError, Shape, ShapeRule, Shapes


def format_shape(shape: Shape) -> str:
    """Returns ``[num_tokens, 64]``."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def require_rank(shapes: Shapes, role: str, *ranks: int) -> Shape:
    """Returns the shape of a role, whose rank must be one of ``ranks``."""
    shape = shapes[role]
    if len(shape) not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise OpRuleError(
            f"input '{role}' has the wrong number of dimensions",
            got=format_shape(shape),
            expected=f"{wanted} dimensions",
        )
    return shape


def require_shape(shapes: Shapes, role: str, expected: Shape) -> None:
    """Refuses any other shape than ``expected``; an absent optional role is fine."""
    if role in shapes and shapes[role] != expected:
        raise OpRuleError(
            f"input '{role}' has the wrong shape",
            got=format_shape(shapes[role]),
            expected=format_shape(expected),
        )


def size_of(dim: Dim, role: str) -> int:
    """Returns a dimension that must be a number because the op reduces or divides over it."""
    if isinstance(dim, str):
        raise OpRuleError(f"input '{role}' has a symbolic size here", got=dim, expected="a number")
    return dim


def same_as(role: str) -> ShapeRule:
    """A shape rule: one result of the shape of ``role``."""

    def rule(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
        return (shapes[role],)

    return rule
