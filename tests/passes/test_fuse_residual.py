from __future__ import annotations

import pytest

from qwen3_codegen.passes.fuse_residual import fuse_residual
from tests.ir.tiny import tiny_graph
from tests.passes.rewriting import nodes_of, rewritten

LINEAR = "linear({x}, weight={w}, out=12{extra})"


def linear(x: str = "h", w: str = "w", extra: str = "") -> str:
    return LINEAR.format(x=x, w=w, extra=extra)


def fused(*lines: str) -> list[str]:
    (region,) = rewritten(fuse_residual, tiny_graph(lines)).layer_kinds
    return nodes_of(region)


@pytest.mark.parametrize("line", [f"h = h + {linear()}", f"h = {linear()} + h"])
def test_the_other_term_is_the_residual(line: str) -> None:
    assert fused(line) == ["%h_add = linear(x=%h, weight=@w, residual=%h) {alpha=1.0}"]


def test_bias_and_residual_go_together() -> None:
    assert fused(f"h = h + {linear(extra=', bias=true')}") == [
        "%h_add = linear(x=%h, weight=@w, bias=@w_bias, residual=%h) {alpha=1.0}"
    ]


def test_the_linear_moves_behind_the_other_term() -> None:
    assert fused(f"x = {linear()}", "y = silu(h)", "h = y + x") == [
        "%y = silu(x=%h)",
        "%h_add = linear(x=%h, weight=@w, residual=%y) {alpha=1.0}",
    ]


def test_of_two_linears_the_second_takes_the_first() -> None:
    assert fused(f"h = {linear()} + {linear(w='v')}") == [
        "%w_linear = linear(x=%h, weight=@w) {alpha=1.0}",
        "%h_add = linear(x=%h, weight=@v, residual=%w_linear) {alpha=1.0}",
    ]


def test_sums_chain() -> None:
    assert fused(f"h = h + {linear()} + {linear(w='v')}") == [
        "%add = linear(x=%h, weight=@w, residual=%h) {alpha=1.0}",
        "%h_add = linear(x=%h, weight=@v, residual=%add) {alpha=1.0}",
    ]


def test_a_linear_takes_one_residual_only() -> None:
    assert fused("x = tanh(h)", f"h = h + {linear()} + x") == [
        "%x = tanh(x=%h)",
        "%add = linear(x=%h, weight=@w, residual=%h) {alpha=1.0}",
        "%h_add = add(a=%add, b=%x)",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        (f"x = {linear()}", "h = h * x + x"),
        (f"x = {linear()}", "h = x + x"),
        (f"h = h + silu({linear()})",),
        ("h = h + h",),
    ],
    ids=["another use", "both terms", "something between", "no linear"],
)
def test_other_sums_stay(lines: tuple[str, ...]) -> None:
    graph = tiny_graph(lines)
    assert rewritten(fuse_residual, graph) == graph


def test_a_linear_that_is_also_the_result_stays() -> None:
    graph = tiny_graph((f"x = {linear()}", "y = h + x", "h = x * y"))
    assert rewritten(fuse_residual, graph) == graph
