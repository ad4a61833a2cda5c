from __future__ import annotations

import pytest

from qwen3_codegen.passes.fuse_swiglu import fuse_swiglu
from tests.ir.tiny import MLP, tiny_graph
from tests.passes.rewriting import nodes_of, ops_of, rewritten


@pytest.mark.parametrize("product", ["silu(a) * b", "b * silu(a)"])
def test_the_activated_factor_is_the_gate(product: str) -> None:
    lines = ("a = h * 2", "b = tanh(h)", f"h = {product}")
    (region,) = rewritten(fuse_swiglu, tiny_graph(lines)).layer_kinds
    assert nodes_of(region) == [
        "%a = scale(x=%h) {factor=2.0}",
        "%b = tanh(x=%h)",
        "%h_mul = swiglu(gate=%a, up=%b)",
    ]


def test_of_two_activated_factors_the_first_is_the_gate() -> None:
    lines = ("a = h * 2", "h = silu(a) * silu(h)")
    (region,) = rewritten(fuse_swiglu, tiny_graph(lines)).layer_kinds
    assert nodes_of(region)[1:] == [
        "%silu_silu = silu(x=%h)",
        "%h_mul = swiglu(gate=%a, up=%silu_silu)",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("h = gelu(h) * h",),
        ("s = silu(h)", "h = s * h + s"),
        ("s = silu(h)", "h = s * s"),
        ("h = h * silu(linear(h, weight=w, out=1))",),
    ],
    ids=["another activation", "another use", "a square", "one factor per row"],
)
def test_other_products_stay(lines: tuple[str, ...]) -> None:
    graph = tiny_graph(lines)
    assert rewritten(fuse_swiglu, graph) == graph


def test_an_mlp() -> None:
    graph = rewritten(fuse_swiglu, tiny_graph(MLP))
    assert ops_of(graph)[1] == ["rms_norm", "linear", "linear", "swiglu", "linear", "add"]
