"""What every test of a pass does: rewrite, verify, compare text and numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qwen3_codegen.ir.graph import Graph, Region
from qwen3_codegen.ir.printer import format_expression, format_node
from qwen3_codegen.ir.verify import verify
from tests.ir.tiny import hard_weights, interpret


def text_of(region: Region) -> list[str]:
    """Weights and nodes of a region, types and places left out."""
    weights = [f"@{w.name} = {format_expression(w.expression)}" for w in region.weights]
    nodes = []
    for node in region.nodes:
        results = ", ".join(f"%{value.name}" for value in node.outputs)
        nodes.append(f"{results} = {format_node(region, node).split(' = ', 1)[1]}")
    return [*weights, *nodes, f"return %{region.results[0]}"]


def nodes_of(region: Region) -> list[str]:
    """Like ``text_of`` without weights and result."""
    return [line for line in text_of(region)[:-1] if line.startswith("%")]


def ops_of(graph: Graph) -> list[list[str]]:
    """The op names of every region."""
    return [[node.op for node in region.nodes] for region in graph.regions()]


def rewritten(
    run: Callable[[Graph], Graph], before: Graph, *, tolerance: float | None = None
) -> Graph:
    """Runs a pass and checks that the result is good, stable, and computes the same.

    Args:
        run: The pass.
        before: A graph whose tensors are all read by the result too, or none of whose are needed.
        tolerance: Allowed relative difference in float64; None means equal to the last bit.
    """
    after = run(before)
    verify(after)
    assert run(after) == after, "a second run changes nothing"
    weights = hard_weights(before)
    expected = interpret(before, weights.__getitem__)
    actual = interpret(after, weights.__getitem__)
    assert np.abs(expected).max() > 1e-3
    if tolerance is None:
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
    return after
