"""Names in ``ops.hpp`` of what caches, tables and matrices are made of, and of rows beside them."""

from __future__ import annotations

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Node
from qwen3_codegen.plan.context import RegionContext

ELEMENTS = {DType.F32: "F32", DType.BF16: "Bf16", DType.F16: "F16"}


def matrix_elements(node: Node, role: str, context: RegionContext) -> tuple[str, ...]:
    """Returns the last template argument of a kernel that takes a matrix or table.

    Nothing where it is of the elements of the result, which is what kernels expect.
    """
    dtype = context.type_of(node.inputs[role]).dtype
    return () if dtype is node.output.type.dtype else (ELEMENTS[dtype],)


def row_options(node: Node, role: str, context: RegionContext) -> tuple[str, ...]:
    """Returns what follows the matrix's element in a product whose rows may be rounded to it."""
    dtype = context.type_of(node.inputs[role]).dtype
    return ("RoundableRows",) if dtype is context.engine.row_dtype else ()
