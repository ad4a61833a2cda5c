"""Questions about the weights of a graph and the expressions they are made by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from qwen3_codegen.ir.graph import Graph, Region
from qwen3_runtime.checkpoint import WeightBinding
from qwen3_runtime.checkpoint.transform import Concat, Stack, Tensor
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression

LAYER = "{layer}"
"""Stands for the layer index in the tensor names of a layer kind."""


def tensor_templates(expression: WeightExpression) -> tuple[str, ...]:
    """Returns the tensor names an expression reads, ``{layer}`` kept, in order, each once."""
    return tuple(dict.fromkeys(_leaves(expression)))


def _leaves(expression: WeightExpression) -> Iterator[str]:
    if isinstance(expression, Tensor):
        yield expression.name
    elif isinstance(expression, Concat | Stack):
        for source in expression.sources:
            yield from _leaves(source)
    else:
        yield from _leaves(expression.source)


def weight_bindings(graph: Graph) -> list[WeightBinding]:
    """Returns every weight of a graph, layer by layer, as a checkpoint is compared with them."""
    places: list[tuple[Region, int | None]] = [(graph.prologue, None), (graph.epilogue, None)]
    places += [(graph.layer_kinds[kind], layer) for layer, kind in enumerate(graph.schedule)]
    return [
        WeightBinding(
            name=f"{region.name}.{weight.name}",
            layer=layer,
            shape=tuple(int(extent) for extent in weight.type.shape),
            dtype=weight.type.dtype.value,
            expression=weight.expression,
            sources=weight.sources,
        )
        for region, layer in places
        for weight in region.weights
    ]


def format_expression(expression: WeightExpression) -> str:
    """Returns ``concat(a.weight, b.weight, axis=0)``: the operation, its sources, its numbers."""
    if isinstance(expression, Tensor):
        return expression.name
    if isinstance(expression, Concat | Stack):
        parts = [format_expression(source) for source in expression.sources]
    else:
        parts = [format_expression(expression.source)]
    for field in fields(expression):
        if field.name not in ("source", "sources"):
            parts.append(f"{field.name}={getattr(expression, field.name)}")
    return f"{_snake_case(type(expression).__name__)}({_shortened(parts)})"


def _shortened(parts: list[str]) -> str:
    """Many experts read alike; the first and last say it."""
    if len(parts) > 6:
        parts = [*parts[:2], f"... {len(parts) - 3} more ...", parts[-1]]
    return ", ".join(parts)


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
