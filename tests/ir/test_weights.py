"""Weight positions: what they read, and what is wrong with them for a given shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from qwen3_codegen.errors import SpecError
from qwen3_codegen.ir.graph import Weight
from qwen3_codegen.ir.weights import format_expression, tensor_templates
from qwen3_runtime.checkpoint.transform import (
    Add,
    Concat,
    Reshape,
    Rows,
    Scale,
    Stack,
    Tensor,
    Transpose,
    evaluate,
)
from tests.ir.tiny import tiny_graph

P = "layers.{layer}."


def weights_of(*lines: str) -> dict[str, Weight]:
    (region,) = tiny_graph(lines, attributes=({"window": 3},)).layer_kinds
    return {weight.name: weight for weight in region.weights}


def linear(weight: str, out: str = "12", extra: str = "") -> str:
    return f"h = linear(h, weight={weight}, out={out}{extra})"


FORMS = [
    ("attn.q_proj", "q_proj", Tensor(P + "attn.q_proj.weight"), {"attn.q_proj.weight": (12, 12)}),
    ("tensor(attn.q)", "q", Tensor(P + "attn.q"), {"attn.q": (12, 12)}),
    ("a if layer.window == 3 else b", "a", Tensor(P + "a.weight"), {"a.weight": (12, 12)}),
    ("a if layer.window == 4 else b.c", "c", Tensor(P + "b.c.weight"), {"b.c.weight": (12, 12)}),
    ("blocks[2].w", "w", Tensor(P + "blocks.2.w.weight"), {"blocks.2.w.weight": (12, 12)}),
    (
        "rows(qkv, 5 + 1, hidden_size)",
        "qkv_rows_6",
        Rows(Tensor(P + "qkv.weight"), 6, 12),
        {"qkv.weight": (18, 12)},
    ),
    (
        "rows(tensor(qkv), 0, 12)",
        "qkv_rows_0",
        Rows(Tensor(P + "qkv"), 0, 12),
        {"qkv": (12, 12)},
    ),
    (
        "concat(a.x, b)",
        "x",
        Concat((Tensor(P + "a.x.weight"), Tensor(P + "b.weight"))),
        {"a.x.weight": (6, 12), "b.weight": (6, 12)},
    ),
    (
        "concat(rows(a, 1, 5), b)",
        "a_rows_1",
        Concat((Rows(Tensor(P + "a.weight"), 1, 5), Tensor(P + "b.weight"))),
        {"a.weight": (6, 12), "b.weight": (7, 12)},
    ),
]


@pytest.mark.parametrize(("syntax", "name", "expression", "sources"), FORMS)
def test_forms(
    syntax: str, name: str, expression: object, sources: Mapping[str, tuple[int, ...]]
) -> None:
    ((found, weight),) = weights_of(linear(syntax)).items()
    assert found == name
    assert weight.expression == expression
    assert weight.sources == {P + tensor: shape for tensor, shape in sources.items()}
    assert weight.type.shape == (12, 12)


def test_a_bias_stands_beside_its_weight() -> None:
    found = weights_of(linear("rows(qkv, 4, 12)", extra=", bias=true"))
    assert list(found) == ["qkv_rows_4", "qkv_rows_4_bias"]
    bias = found["qkv_rows_4_bias"]
    assert bias.expression == Rows(Tensor(P + "qkv.bias"), 4, 12)
    assert bias.sources == {P + "qkv.bias": (16,)}


def test_all_rows_uses_together_say_how_many_rows_a_tensor_has() -> None:
    lines = [
        f"{name} = linear(h, weight=rows(qkv, {start}, {count}), out={count})"
        for name, start, count in (("a", 0, 3), ("b", 3, 5), ("c", 8, 4))
    ]
    found = weights_of(*lines, "h = concat(a, b, c)")
    assert list(found) == ["qkv_rows_0", "qkv_rows_3", "qkv_rows_8"]
    assert {tuple(weight.sources.items()) for weight in found.values()} == {
        ((P + "qkv.weight", (12, 12)),)
    }


def test_experts_are_stacked() -> None:
    found = weights_of(
        "h = moe(h, router=r, gate=e[expert].g, up=e[expert].u, down=e[expert].d, num_experts=2,"
        " top_k=1, intermediate=5)"
    )
    assert list(found) == ["r", "g", "u", "d"]
    assert found["d"].expression == Stack((Tensor(P + "e.0.d.weight"), Tensor(P + "e.1.d.weight")))
    assert found["d"].type.shape == (2, 12, 5)
    assert found["d"].sources == {P + "e.0.d.weight": (12, 5), P + "e.1.d.weight": (12, 5)}


def test_a_convolution_is_stored_with_a_channel_of_one() -> None:
    weight = weights_of("h = causal_conv1d(h, weight=c, kernel=4)")["c"]
    assert weight.expression == Reshape(Tensor(P + "c.weight"), (12, 4))
    assert weight.sources == {P + "c.weight": (12, 1, 4)}


def test_names_give_way() -> None:
    lines = [
        "a = linear(h, weight=x.proj, out=12)",
        "b = linear(a, weight=y.proj, out=12)",
        "y_proj = silu(b)",
        "h = linear(y_proj, weight=y[0].proj, out=12)",
    ]
    assert list(weights_of(*lines)) == ["proj", "y_proj", "y_proj_2"]


FAULTS = [
    (linear("rows(a, 0, 11)"), "'rows(a, 0, 11)' has the wrong number of rows"),
    (linear("rows(a, 0)"), "rows takes a path, a start and a count"),
    (linear("rows(a, 0 - 1, 12)"), "must be a whole number"),
    (linear("rows(a, 0.5, 12)"), "must be a whole number"),
    (linear("concat(a, b, c, d, e)"), "do not fill the weight"),
    (linear("concat(rows(a, 0, 12), b)"), "do not fill the weight"),
    (linear("concat(rows(a, 0, 5), rows(b, 0, 6))"), "do not fill the weight"),
    (linear("a if 3 else b"), "a condition is not a boolean"),
    (linear("tensor(a)", extra=", bias=true"), "has no bias"),
    (linear("sqrt(4)"), "not a weight"),
    (linear("3"), "not a weight"),
    (linear("a['x']"), "must be a whole number"),
]


@pytest.mark.parametrize(("line", "message"), FAULTS)
def test_faults(line: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        weights_of("x = silu(h)", line.replace("(h,", "(x,", 1))
    assert message in str(caught.value)
    assert caught.value.where == "layer:2"


@pytest.mark.parametrize(
    "lines",
    [
        ("x = linear(h, weight=rows(a, 6, 12), out=12)", "h = linear(x, weight=a, out=12)"),
        ("x = linear(h, weight=a, out=12)", "h = linear(x, weight=rows(a, 6, 12), out=12)"),
        ("x = linear(h, weight=a, out=6)", "h = linear(x, weight=a, out=12)"),
    ],
)
def test_a_tensor_has_one_shape(lines: tuple[str, ...]) -> None:
    with pytest.raises(
        SpecError, match=r"tensor 'layers\.\{layer\}\.a\.weight' is read in two shapes"
    ):
        weights_of(*lines)


def test_a_read_of_the_whole_tensor_says_its_rows() -> None:
    found = weights_of(
        "x = linear(h, weight=rows(a, 1, 6), out=6)",
        "h = h + linear(h, weight=a, out=12)",
        "h = h + linear(x, weight=b, out=12)",
    )
    assert found["a_rows_1"].sources == found["a"].sources == {P + "a.weight": (12, 12)}


def test_templates_and_text() -> None:
    expression = Concat((Scale(Tensor("a"), 0.5), Rows(Add(Tensor("b"), 1.0), 0, 2), Tensor("a")))
    assert tensor_templates(expression) == ("a", "b")
    assert format_expression(expression) == (
        "concat(scale(a, factor=0.5), rows(add(b, value=1.0), start=0, count=2), a, axis=0)"
    )
    assert format_expression(Transpose(Tensor("a"))) == "transpose(a)"


def test_expressions_read_what_they_say() -> None:
    arrays = {"layers.0.qkv.weight": np.arange(216.0).reshape(18, 12)}
    weight = weights_of(linear("rows(qkv, 6, 12)"))["qkv_rows_6"]
    found = evaluate(weight.expression, arrays.__getitem__, 0)
    np.testing.assert_array_equal(found, arrays["layers.0.qkv.weight"][6:])
