from __future__ import annotations

from typing import Any

import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.passes.fold_constants import fold_constants
from tests.ir.tiny import tiny_graph
from tests.passes.rewriting import nodes_of, rewritten, text_of

ROUNDED = 1e-12


def folded(*lines: str, tolerance: float | None = None, **fields: Any) -> list[str]:
    (region,) = rewritten(
        fold_constants, tiny_graph(lines, **fields), tolerance=tolerance
    ).layer_kinds
    return text_of(region)


def unchanged(*lines: str, **fields: Any) -> bool:
    graph = tiny_graph(lines, **fields)
    return nodes_of(rewritten(fold_constants, graph).layer_kinds[0]) == nodes_of(
        graph.layer_kinds[0]
    )


def test_an_offset_goes_into_the_norm_weight() -> None:
    assert folded("h = rms_norm(h, weight=norm, offset=1)") == [
        "@norm = add(layers.{layer}.norm.weight, value=1.0)",
        "%h_rms_norm = rms_norm(x=%h, weight=@norm) {eps=0.07, offset=0.0}",
        "return %h_rms_norm",
    ]


def test_an_offset_all_uses_agree_on_goes_once() -> None:
    x = "x = rms_norm(h, weight=norm, offset=0.5)"
    text = folded(x, "h = x + rms_norm(x, weight=norm, offset=0.5)")
    assert text[0] == "@norm = add(layers.{layer}.norm.weight, value=0.5)"
    assert all("offset=0.0" in line for line in text if "rms_norm(" in line)


@pytest.mark.parametrize(
    "other", ["rms_norm(x, weight=norm)", "rms_norm(x, weight=norm, offset=2)"]
)
def test_an_offset_uses_disagree_on_stays(other: str) -> None:
    assert unchanged("x = rms_norm(h, weight=norm, offset=1)", f"h = x + {other}")


def test_a_weight_that_is_no_norm_only_stays() -> None:
    graph = tiny_graph(
        (
            "x = rms_norm(h, weight=norm, offset=1)",
            "h = layer_norm(x, weight=norm, bias=false, eps=1)",
        )
    )
    assert rewritten(fold_constants, graph) == graph


def test_a_scale_of_a_linear_is_its_alpha() -> None:
    linear = "linear(h, weight=w, out=hidden_size)"
    assert folded(f"h = h + 0.3 * ({linear} / 0.7)", tolerance=ROUNDED) == [
        "@w = layers.{layer}.w.weight",
        f"%scale_scale = linear(x=%h, weight=@w) {{alpha={(1 / 0.7) * 0.3!r}}}",
        "%h_add = add(a=%h, b=%scale_scale)",
        "return %h_add",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("h = h + 0.3 * linear(h, weight=w, out=12, bias=true)",),
        ("x = linear(h, weight=w, out=12)", "h = x + 0.3 * x"),
        ("h = h + linear(0.3 * h, weight=w, out=12)",),
    ],
    ids=["bias", "another use", "scaled input"],
)
def test_a_scale_that_would_reach_too_far_stays(lines: tuple[str, ...]) -> None:
    assert unchanged(*lines)


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [(0.3, 0.25, True), (-4.0, 0.3, True), (0.3, 0.7, False), (0.3, 3.0, False)],
)
def test_scales_join_when_one_is_a_power_of_two(first: float, second: float, joined: bool) -> None:
    lines = [line for line in folded(f"h = h * {first} * {second}") if "= scale(" in line]
    assert len(lines) == (1 if joined else 2)
    if joined:
        assert f"factor={first * second!r}" in lines[0]


ATTEND = "h = reshape(attention(q * {f}, q * {g}, q, scale=0.3), 12)"


@pytest.mark.parametrize(
    ("f", "g", "scale", "scales"),
    [("0.5", "4", "0.6", 0), ("0.7", "4", "1.2", 1), ("-2", "1.5", "0.3", 2)],
)
def test_powers_of_two_before_attention_go_into_its_scale(
    f: str, g: str, scale: str, scales: int
) -> None:
    text = folded("q = reshape(h, [2, 6])", ATTEND.format(f=f"({f})", g=g))
    assert sum("= scale(" in line for line in text) == scales
    assert any(f"{{scale={scale}, window=none, softcap=none}}" in line for line in text)


def prologue_of(graph: Graph) -> list[str]:
    return text_of(rewritten(fold_constants, graph, tolerance=ROUNDED).prologue)


EMBED = "h = 3.3 * embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])"


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
def test_a_scale_of_an_embedding_goes_into_a_table_of_its_own(dtype: DType) -> None:
    assert prologue_of(tiny_graph(prologue=(EMBED,), dtype=dtype)) == [
        "@embed = scale(embed.weight, factor=3.3)",
        "%h = embedding(ids=%input_ids, weight=@embed)",
        "return %h",
    ]


def test_a_table_the_head_shares_stays_as_it_is() -> None:
    head = ("logits = linear(h, weight=rows(embed, 0, vocab_size), out=vocab_size)",)
    text = prologue_of(tiny_graph(prologue=(EMBED,), epilogue=head))
    assert text[0] == "@embed = embed.weight"
    assert "%h = scale(x=%embed_embedding) {factor=3.3}" in text


def test_a_table_used_twice_stays_as_it_is() -> None:
    plain = "e = embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])"
    assert "@embed = embed.weight" in prologue_of(tiny_graph(prologue=(plain, "h = e + 3 * e")))
    again = "h = e + " + EMBED.removeprefix("h = ")
    assert "@embed = embed.weight" in prologue_of(tiny_graph(prologue=(plain, again)))


def test_a_result_of_the_region_keeps_its_scale() -> None:
    linear = "x = linear(h, weight=w, out=12)"
    assert folded(linear, "h = 0.5 * x") == [
        "@w = layers.{layer}.w.weight",
        "%h_scale = linear(x=%h, weight=@w) {alpha=0.5}",
        "return %h_scale",
    ]
