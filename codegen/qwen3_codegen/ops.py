"""What a file with an op of one's own imports; docs/own-ops.md shows such a file.

    from qwen3_codegen.ops import Attribute, AttributeKind, Op, Role, same_as

``Op`` is the row; ``Role``, ``Attribute``, ``AttributeKind`` and ``Element`` are the records of the
op table. ``same_as``, ``require_rank``, ``require_shape``, ``size_of`` and ``OpRuleError`` are for
shape rules, ``Array``, ``Arrays``, ``Attributes``, ``Shape``, ``Shapes`` and ``Step`` for those who
annotate.
"""

from __future__ import annotations

from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    Element,
    OpRuleError,
    Role,
    Shape,
    Shapes,
)
from qwen3_codegen.ir.ops.shapes import require_rank, require_shape, same_as, size_of
from qwen3_codegen.ir.ops.step import Step
from qwen3_codegen.own_ops.row import Op

__all__ = [
    "Array",
    "Arrays",
    "Attribute",
    "AttributeKind",
    "Attributes",
    "Element",
    "Op",
    "OpRuleError",
    "Role",
    "Shape",
    "Shapes",
    "Step",
    "require_rank",
    "require_shape",
    "same_as",
    "size_of",
]
