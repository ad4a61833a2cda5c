"""What an engine keeps between its ops, and in its cache, where its matrices are in half precision.

Native kernels compute in float32 whatever they read, so values between ops can stay in it: buffers
are small beside weights and cache, and the roundings that would add up from layer to layer are
gone. Keys and values are many, are rounded once and go nowhere but into attention; they are kept
in the dtype of the matrices.

Rows of a product go nowhere else, so they may be rounded to the dtype of the matrix where the
instruction set multiplies two numbers of that faster than two floats (AVX512_BF16); the values
themselves stay. Of the hard models of the tests, the least cosine is 0.9996 then.

None of this in a mixture of experts: a router picks the experts of a row by comparing logits. Where
two are nearly equal, a rounding anywhere before them sends the row to another expert, which no
later precision mends; of the hard models of the tests, rounding the cache alone was enough in
bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Graph, Node, Region, Value, ValueType, Weight
from qwen3_codegen.passes.rewriting import map_regions

__all__ = ["activation_dtype", "cache_dtype", "row_dtype", "with_activations"]

_MATRIX_ROLES = {
    "embedding": ("weight",),
    "linear": ("weight",),
    "moe": ("router", "gate", "up", "down"),
}
"""Inputs whose kernels take another float dtype than that of the values beside them."""


def activation_dtype(graph: Graph, lowering: str, wanted: DType | None = None) -> DType:
    """Returns what the values between ops are kept in; a graph says what its matrices are in.

    Args:
        graph: The graph.
        lowering: ``native`` or ``portable``.
        wanted: What the user asks for; None takes the lowering's own choice.

    Raises:
        LoweringError: The lowering or the model's dtype has no such values.
    """
    if wanted is not None:
        return _checked(wanted, graph.dtype, lowering)
    return DType.F32 if lowering == "native" else graph.dtype


def cache_dtype(
    graph: Graph, lowering: str, activations: DType, wanted: DType | None = None
) -> DType:
    """Returns what keys and values are kept in, the same in every group.

    Args:
        graph: The graph.
        lowering: ``native`` or ``portable``.
        activations: What values between ops are kept in.
        wanted: What the user asks for; None leaves the choice to the model.

    Raises:
        LoweringError: The lowering has no cache of another dtype than its activations.
    """
    if wanted is None:
        return activations if _has_router(graph) else graph.dtype
    if lowering == "portable":
        raise LoweringError(
            "the portable lowering keeps keys and values in the dtype of the activations",
            got=f"kv_cache_dtype {wanted.value}",
            expected="auto",
            hint="the native lowering of dev cpu has caches of other dtypes",
        )
    return wanted


def row_dtype(
    graph: Graph, lowering: str, activations: DType, wanted: DType | None = None
) -> DType | None:
    """Returns what rows beside matrices of that dtype may be rounded to as they are multiplied.

    Args:
        graph: The graph.
        lowering: ``native`` or ``portable``.
        activations: What values between ops are kept in.
        wanted: What the user asks values to be kept in; asked for float32, products have it, too.

    Returns:
        None where all rows are multiplied as they are: a router must not be misled, no instruction
        set has such products of another dtype, or values are in that dtype already.
    """
    is_wider = lowering == "native" and activations is DType.F32 and graph.dtype is DType.BF16
    return DType.BF16 if is_wider and wanted is None and not _has_router(graph) else None


def _has_router(graph: Graph) -> bool:
    return any(node.op == "moe" for region in graph.regions() for node in region.nodes)


def _checked(wanted: DType, dtype: DType, lowering: str) -> DType:
    if lowering == "portable":
        raise LoweringError(
            "the portable lowering keeps activations in the dtype of the matrices",
            got=f"activation_dtype {wanted.value}",
            expected="auto",
            hint="the native lowering of dev cpu has float32 activations beside half matrices",
        )
    if wanted not in (dtype, DType.F32):
        others = "" if dtype is DType.F32 else " or float32"
        raise LoweringError(
            f"activations beside {dtype.value} matrices are {dtype.value}{others}",
            got=f"activation_dtype {wanted.value}",
            expected=", ".join(dict.fromkeys(("auto", dtype.value, "float32"))),
            hint="the dtype of the matrices is an option of its own: dtype",
        )
    return wanted


def with_activations(graph: Graph, dtype: DType) -> Graph:
    """Returns the graph with every value of its dtype in another one, all but its matrices.

    That graph is for the plan alone: to the op table, what goes into an op is of one dtype.
    """
    if dtype is graph.dtype:
        return graph

    def kept(type_: ValueType) -> ValueType:
        return replace(type_, dtype=dtype) if type_.dtype is graph.dtype else type_

    def value_in(value: Value) -> Value:
        return replace(value, type=kept(value.type))

    def node_in(node: Node) -> Node:
        return replace(node, outputs=tuple(map(value_in, node.outputs)))

    def weight_in(weight: Weight, matrices: Collection[str]) -> Weight:
        return weight if weight.name in matrices else replace(weight, type=kept(weight.type))

    def region_in(region: Region) -> Region:
        matrices = _matrices(region)
        return replace(
            region,
            parameters=tuple(map(value_in, region.parameters)),
            weights=tuple(weight_in(weight, matrices) for weight in region.weights),
            nodes=tuple(map(node_in, region.nodes)),
        )

    return map_regions(graph, region_in)


def _matrices(region: Region) -> frozenset[str]:
    """Names of the weights that nothing but matrix products and lookups read."""
    read: dict[bool, set[str]] = {True: set(), False: set()}
    for node in region.nodes:
        for role, name in node.inputs.items():
            read[role in _MATRIX_ROLES.get(node.op, ())].add(name)
    return frozenset(read[True] - read[False])
