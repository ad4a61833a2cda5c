from __future__ import annotations

import pytest

from qwen3_codegen.passes.fold_constants import fold_constants
from qwen3_codegen.passes.fuse_gate_up import fuse_gate_up
from qwen3_codegen.passes.fuse_residual import fuse_residual
from tests.ir.tiny import tiny_graph
from tests.passes.rewriting import rewritten, text_of

ROUNDED = 1e-12

GATE = "gate = linear(h, weight=mlp.gate_proj, out=10)"
UP = "up = linear(h, weight=mlp.up_proj, out=10)"
DOWN = "h = h + linear({product}, weight=mlp.down_proj, out=12)"


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "relu2"])
@pytest.mark.parametrize("lines", [(GATE, UP), (UP, GATE)])
def test_gate_and_up_become_one_gate_first(activation: str, lines: tuple[str, str]) -> None:
    down = DOWN.format(product=f"{activation}(gate) * up")
    (region,) = rewritten(fuse_gate_up, tiny_graph((*lines, down)), tolerance=ROUNDED).layer_kinds
    p = "layers.{layer}.mlp."
    assert text_of(region) == [
        f"@gate_up_proj = concat({p}gate_proj.weight, {p}up_proj.weight, axis=0)",
        f"@down_proj = {p}down_proj.weight",
        "%gate_up = linear(x=%h, weight=@gate_up_proj) {alpha=1.0}",
        "%gate, %up = split(x=%gate_up) {sizes=[10, 10]}",
        f"%{activation} = {activation}(x=%gate)",
        f"%mul = mul(a=%{activation}, b=%up)",
        "%down_proj_linear = linear(x=%mul, weight=@down_proj) {alpha=1.0}",
        "%h_add = add(a=%h, b=%down_proj_linear)",
        "return %h_add",
    ]


def test_the_activated_factor_may_come_second() -> None:
    down = DOWN.format(product="up * silu(gate)")
    (region,) = rewritten(fuse_gate_up, tiny_graph((GATE, UP, down)), tolerance=ROUNDED).layer_kinds
    assert "%gate, %up = split(x=%gate_up) {sizes=[10, 10]}" in text_of(region)


@pytest.mark.parametrize(
    "lines",
    [
        (GATE, UP, DOWN.format(product="gate * up")),
        (GATE, UP, DOWN.format(product="silu(gate) * silu(up)")),
        (GATE, UP.replace("(h", "(silu(h)"), DOWN.format(product="silu(gate) * up")),
        (GATE, UP.replace("10)", "10, bias=true)"), DOWN.format(product="silu(gate) * up")),
        (GATE, DOWN.format(product="silu(gate) * gate")),
        (GATE, UP, DOWN.format(product="silu(gate * 2) * up")),
    ],
    ids=["no activation", "two activations", "two inputs", "one bias", "one linear", "scaled"],
)
def test_other_products_stay(lines: tuple[str, ...]) -> None:
    graph = tiny_graph(lines)
    assert rewritten(fuse_gate_up, graph) == graph


def test_linears_with_residuals_stay() -> None:
    lines = (
        "gate = h + linear(h, weight=gate_proj, out=12)",
        "up = h + linear(h, weight=up_proj, out=12)",
        "h = silu(gate) * up",
    )
    graph = fuse_residual(tiny_graph(lines))
    assert all("residual" in node.inputs for node in graph.layer_kinds[0].nodes[:2])
    assert rewritten(fuse_gate_up, graph) == graph


def test_equal_alphas_are_needed() -> None:
    down = DOWN.format(product="silu(gate) * up")
    half = GATE.replace("= ", "= 0.5 * ")
    graph = fold_constants(tiny_graph((half, UP, down)))
    assert rewritten(fuse_gate_up, graph) == graph
    graph = fold_constants(tiny_graph((half, UP.replace("= ", "= 0.5 * "), down)))
    (region,) = rewritten(fuse_gate_up, graph, tolerance=ROUNDED).layer_kinds
    assert any("weight=@gate_up_proj) {alpha=0.5}" in line for line in text_of(region))
