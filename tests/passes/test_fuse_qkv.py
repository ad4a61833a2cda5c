from __future__ import annotations

import pytest

from qwen3_codegen.passes.fuse_qkv import fuse_qkv
from tests.ir.tiny import tiny_graph
from tests.passes.rewriting import nodes_of, rewritten, text_of

ROUNDED = 1e-12

QKV = (
    "x = rms_norm(h, weight=norm)",
    "q = linear(x, weight=attn.q_proj, out=[4, 6])",
    "k = linear(x, weight=attn.k_proj, out=[2, 6])",
    "v = linear(x, weight=attn.v_proj, out=[2, 6])",
)
REST = (
    "a = attention(q, k, v, scale=0.9)",
    "h = h + linear(a, weight=attn.o_proj, out=hidden_size)",
)
BETWEEN = (
    "q = rms_norm(q, weight=q_norm)",
    "k = layer_norm(k * 2, weight=k_norm, eps=0.1)",
    "q, k = rope(q, k, table='rope')",
)


ROWS = ((0, 24), (36, 12), (24, 12))


def test_three_projections_become_one() -> None:
    (region,) = rewritten(fuse_qkv, tiny_graph((*QKV, *REST)), tolerance=ROUNDED).layer_kinds
    p = "layers.{layer}.attn."
    assert text_of(region) == [
        "@norm = layers.{layer}.norm.weight",
        f"@qkv_proj = concat({p}q_proj.weight, {p}k_proj.weight, {p}v_proj.weight, axis=0)",
        f"@o_proj = {p}o_proj.weight",
        "%x = rms_norm(x=%h, weight=@norm) {eps=0.07, offset=0.0}",
        "%qkv = linear(x=%x, weight=@qkv_proj) {alpha=1.0}",
        "%q_proj_linear, %k_proj_linear, %v_proj_linear = split(x=%qkv) {sizes=[24, 12, 12]}",
        "%q = reshape(x=%q_proj_linear) {shape=[4, 6]}",
        "%k = reshape(x=%k_proj_linear) {shape=[2, 6]}",
        "%v = reshape(x=%v_proj_linear) {shape=[2, 6]}",
        "%a = attention(q=%q, k=%k, v=%v) {scale=0.9, window=none, softcap=none}",
        "%a_reshape = reshape(x=%a) {shape=[24]}",
        "%o_proj_linear = linear(x=%a_reshape, weight=@o_proj) {alpha=1.0}",
        "%h_add = add(a=%h, b=%o_proj_linear)",
        "return %h_add",
    ]


def linears_of(*lines: str, tolerance: float | None = ROUNDED) -> list[str]:
    (region,) = rewritten(fuse_qkv, tiny_graph(lines), tolerance=tolerance).layer_kinds
    return [line for line in nodes_of(region) if "= linear(" in line and "o_proj" not in line]


def test_norms_and_rotations_may_stand_between() -> None:
    assert linears_of(*QKV, *BETWEEN, *REST) == [
        "%qkv = linear(x=%x, weight=@qkv_proj) {alpha=1.0}"
    ]


def test_biases_are_joined_too() -> None:
    biased = [line.replace("])", "], bias=true)") for line in QKV]
    (region,) = rewritten(fuse_qkv, tiny_graph((*biased, *REST)), tolerance=ROUNDED).layer_kinds
    p = "layers.{layer}.attn."
    assert (
        f"@qkv_proj_bias = concat({p}q_proj.bias, {p}k_proj.bias, {p}v_proj.bias, axis=0)"
        in text_of(region)
    )
    assert "%qkv = linear(x=%x, weight=@qkv_proj, bias=@qkv_proj_bias) {alpha=1.0}" in nodes_of(
        region
    )


def test_rows_of_one_tensor_are_read_as_the_tensor() -> None:
    lines = [
        "q = linear(h, weight=rows(qkv_proj, 0, 24), out=[4, 6])",
        "k = linear(h, weight=rows(qkv_proj, 24, 12), out=[2, 6])",
        "v = linear(h, weight=rows(qkv_proj, 36, 12), out=[2, 6])",
    ]
    (region,) = rewritten(fuse_qkv, tiny_graph((*lines, *REST)), tolerance=ROUNDED).layer_kinds
    assert text_of(region)[0] == "@qkv_proj = layers.{layer}.qkv_proj.weight"


def test_other_orders_of_rows_are_joined_again() -> None:
    lines = [
        "q = linear(h, weight=rows(w, 24, 24), out=[4, 6])",
        "k = linear(h, weight=rows(w, 0, 12), out=[2, 6])",
        "v = linear(h, weight=rows(w, 12, 12), out=[2, 6])",
    ]
    (region,) = rewritten(fuse_qkv, tiny_graph((*lines, *REST)), tolerance=ROUNDED).layer_kinds
    w = "layers.{layer}.w.weight"
    assert text_of(region)[0] == (
        f"@qkv_proj = concat(rows({w}, start=24, count=24), rows({w}, start=0, count=24), axis=0)"
    )


def test_rows_with_others_between_stay_parts() -> None:
    lines = [
        "q = linear(h, weight=rows(w, 0, 24), out=[4, 6])",
        "k = linear(h, weight=rows(w, 36, 12), out=[2, 6])",
        "v = linear(h, weight=rows(w, 24, 12), out=[2, 6])",
    ]
    (region,) = rewritten(fuse_qkv, tiny_graph((*lines, *REST)), tolerance=ROUNDED).layer_kinds
    parts = [f"rows(layers.{{layer}}.w.weight, start={s}, count={n})" for s, n in ROWS]
    assert text_of(region)[0] == f"@qkv_proj = concat({', '.join(parts)}, axis=0)"


def test_those_that_fit_the_first_are_joined() -> None:
    lines = (*QKV[:3], QKV[3].replace("(x", "(h"))
    assert linears_of(*lines, *REST) == [
        "%qk = linear(x=%x, weight=@qk_proj) {alpha=1.0}",
        "%v_proj_linear = linear(x=%h, weight=@v_proj) {alpha=1.0}",
    ]


@pytest.mark.parametrize(("changed", "left"), [(1, 3), (2, 2), (3, 2)])
def test_one_with_a_bias_keeps_apart(changed: int, left: int) -> None:
    lines = list(QKV)
    lines[changed] = lines[changed].replace("])", "], bias=true)")
    assert len(linears_of(*lines, *REST)) == left


def test_a_weight_with_another_reader_stays() -> None:
    lines = (*QKV, *REST, "h = h + linear(silu(h), weight=attn.k_proj, out=12)")
    assert len([line for line in linears_of(*lines) if "@k_proj" in line]) == 2


def test_something_else_between_keeps_them_apart() -> None:
    graph = tiny_graph((*QKV, "k = k + v", "q = silu(q)", *REST))
    assert rewritten(fuse_qkv, graph) == graph


def test_one_projection_for_all_stays() -> None:
    lines = (
        "q = linear(h, weight=w, out=[4, 6])",
        REST[0].replace("(q, k, v", "(q, q, q"),
        REST[1],
    )
    graph = tiny_graph(lines)
    assert rewritten(fuse_qkv, graph) == graph


def test_a_value_that_is_also_the_key_is_joined_once() -> None:
    lines = (*QKV[:3], REST[0].replace("k, v", "k, k"), REST[1])
    assert len(linears_of(*lines)) == 1


def test_every_attention_of_a_layer_gets_its_own() -> None:
    second = [line.replace("attn.", "cross.") for line in (*QKV[1:], *REST)]
    lines = (*QKV, *REST, *second)
    found = linears_of(*lines)
    assert found == [
        "%qkv = linear(x=%x, weight=@qkv_proj) {alpha=1.0}",
        "%qkv_2 = linear(x=%x, weight=@qkv_proj_2) {alpha=1.0}",
    ]


def test_an_untouched_graph_stays_equal() -> None:
    graph = tiny_graph(("h = silu(h)",))
    assert rewritten(fuse_qkv, graph) == graph
