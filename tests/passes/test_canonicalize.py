from __future__ import annotations

from typing import Any

import pytest

from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.passes.canonicalize import canonicalize
from tests.ir.tiny import ATTENTION, tiny_graph
from tests.passes.rewriting import nodes_of, rewritten, text_of


@pytest.mark.parametrize(("window", "expected"), [(63, 63), (64, None), (65, None), (None, None)])
def test_a_window_over_every_position_is_none(window: Any, expected: Any) -> None:
    graph = tiny_graph(ATTENTION, attributes=({"window": window},))
    (region,) = rewritten(canonicalize, graph).layer_kinds
    (attention,) = (node for node in region.nodes if node.op == "attention")
    assert attention.attributes == {"scale": 0.9, "window": expected, "softcap": None}


def test_nodes_that_change_nothing_go() -> None:
    lines = (
        "x = h * 1",
        "x = reshape(x, 12)",
        "x = concat(silu(x), x)",
        "a, b = split(x, [12, 12])",
        "h = reshape(a * b, 12) * 1.0",
    )
    (region,) = rewritten(canonicalize, tiny_graph(lines)).layer_kinds
    assert text_of(region) == [
        "%silu = silu(x=%h)",
        "%x_concat = concat(x0=%silu, x1=%h)",
        "%a, %b = split(x=%x_concat) {sizes=[12, 12]}",
        "%mul = mul(a=%a, b=%b)",
        "return %mul",
    ]


def test_a_layer_may_become_empty() -> None:
    (region,) = rewritten(canonicalize, tiny_graph(("h = h * 1",))).layer_kinds
    assert text_of(region) == ["return %h"]


def test_nodes_that_change_something_stay() -> None:
    lines = (
        "x = h * 0.999",
        "x = reshape(x, [2, 6])",
        "h = reshape(x, 12)",
    )
    graph: Graph = tiny_graph(lines)
    (region,) = rewritten(canonicalize, graph).layer_kinds
    assert nodes_of(region) == nodes_of(graph.layer_kinds[0])
